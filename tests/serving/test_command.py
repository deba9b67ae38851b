"""`whisper-sae-steer serve` as a process: logs, key from the environment, and what SIGTERM does."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from tests.support.real_models import sample
from tests.support.serving_parts import TRANSCRIBE, ModelAsTold, http, until
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import ConfigError
from whisper_sae_steer.serving import logs, model
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.connections import PunctualProtocol

SERVE = [sys.executable, "-m", "whisper_sae_steer", "serve"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_sigterm_lets_a_running_request_finish_and_logs_are_json(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    options = ["--model", "tiny.en", "--compute_type", "int8", "--cpu_threads", "1", "--port", str(port)]
    environment = {**os.environ, "WHISPER_SAE_STEER_API_KEY": "secret-key"}
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": "Bearer secret-key"}

    def answers() -> bool:
        try:
            return http.get(url + "/health").status_code == 200
        except httpx.TransportError:
            return False

    def starts() -> bool:
        assert process.poll() is None, log.read_text()
        return answers()

    # several windows: the first text is there long before the last
    write_wav(tmp_path / "long.wav", np.tile(sample("gap"), 3))
    with ExitStack() as stack:
        file = stack.enter_context(log.open("w"))
        process = subprocess.Popen([*SERVE, *options], env=environment, stderr=file)
        stack.callback(process.kill)  # whatever fails
        until(starts, 60)
        assert http.get(url + "/v1/models").status_code == 401
        recording = {"file": ("my-private-name.wav", (tmp_path / "long.wav").read_bytes())}
        asked = {"stream": "true", "prompt": "my-private-prompt"}
        with http.stream("POST", url + TRANSCRIBE, files=recording, data=asked, headers=headers) as answer:
            events = answer.iter_lines()
            assert "train to the coast" in next(events)
            process.send_signal(signal.SIGTERM)
            rest = list(events)
        assert any("harbor" in event for event in rest)
        assert "transcript.text.done" in rest[-4]
        assert rest[-2] == "data: [DONE]"
        until(lambda: not answers(), 20)
        assert process.wait(20) in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request" and line["status"] == 200]
    assert requests[-1]["audio_seconds"] == pytest.approx(291.8, abs=0.1)
    assert len(requests[-1]["request_id"]) == 32
    for private in ("my-private", "train", "secret-key"):
        assert private not in log.read_text()


def test_the_server_that_is_started_waits_for_no_head_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}
    monkeypatch.setattr(model, "load_model", lambda _: ModelAsTold())
    monkeypatch.setattr(logs, "configure", lambda: None)
    monkeypatch.setattr(uvicorn, "run", lambda _, **options: started.update(options))
    assert main(["serve", "--model", "some-model"]) == 0
    assert started["http"] is PunctualProtocol


def test_an_address_in_use_is_one_line_and_code_2_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        for argv in (["--port", str(port)], ["--port", "0", "--wyoming", f"tcp://127.0.0.1:{port}"]):
            assert main(["serve", "--model", "nobody's", *argv]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert f"can't listen at 127.0.0.1:{port}: Address already in use" in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--workers", "0"], "workers must be at least 1"),
        (["--max_audio_seconds", "0"], "max_audio_seconds must be above 0"),
        (["--max_queue", "-1"], "max_queue must not be negative"),
        (["--steer_alpha", "nan"], "steer_alpha must be a number from 0 to 100"),
        (["--steer_alpha", "-1"], "steer_alpha must be a number from 0 to 100"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--compute_type", "int3"], "'bfloat16'"),
        (["--device", "abacus"], "'cuda'"),
        (["--port", "99999"], "port must be from 0 to 65535"),
        (["--cpu_threads", "2000000000"], "cpu_threads must be at most 1024"),
        (["--replicas", "2"], "are for --engine ray"),
        (["--engine", "ray", "--replicas", "0"], "replicas must be at least 1"),
        (["--engine", "ray", "--replicas", "2", "--max_replicas", "1"], "max_replicas must be at least 2"),
        (["--engine", "ray", "--gpus", "nan"], "gpus must be a number of 0 or more"),
        (["--engine", "ray", "--device", "cuda"], "say --gpus 1"),
        (["--engine", "ray", "--wyoming", "tcp://127.0.0.1:0"], "--wyoming needs the model in this process"),
    ],
)
def test_what_can_not_be_served_is_one_line_and_code_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["serve", *argv])
    except SystemExit as stop:  # argparse's
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("options", [{"device": "abacus"}, {"compute_type": "int3"}, {"port": -1}])
def test_configs_made_in_python_are_checked_as_well(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ServeConfig(**options)
