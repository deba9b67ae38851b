import json
import re
from pathlib import Path

import pytest

from whisper_sae_steer import cli
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.bench.peers.catalogue import PEERS


def test_command(clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "peers", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^{peer.name} ", listed, re.MULTILINE) for peer in PEERS)
    assert cli.main(["bench", "peers", "--peers", "vad-0.5"]) == 2
    assert "give --manifest" in capsys.readouterr().err
    noise = clips[0].path.parents[1]
    out = tmp_path / "out"
    arguments = ["--nonspeech", str(noise), "--peers", "vad-0.5", "--model", "tiny.en", "--out", str(out)]
    assert cli.main(["bench", "peers", *arguments, "--compute_type", "int8", "--threads", "1"]) == 0
    assert "Silero VAD" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert [e["name"] for e in summary["peers"]] == ["faster", "vad-0.5"]
    assert summary["conditions"]["clips"] == "2 without speech, 0 with"
    assert (out / "report.html").is_file()
