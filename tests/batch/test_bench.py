import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.real_models import sample
from whisper_sae_steer.audio.clips import read_folder
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.batch.engine import Make, Task
from whisper_sae_steer.batch.local import here
from whisper_sae_steer.bench import runner
from whisper_sae_steer.bench.backends import Transcript
from whisper_sae_steer.cli import main
from whisper_sae_steer.models.greedy import RawWindow


class Teller:
    """A back end that says how long the audio is."""

    name = "faster"
    model_name = "teller"
    compute_type = "int8"
    pack: str | None = None

    def transcribe(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> Transcript:
        return Transcript(f"it lasts {len(audio)} samples", [])

    def first_window(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> RawWindow:
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seconds in (("a", 2.5), ("b", 3.0)):
        path = tmp_path / "mine" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        write_wav(path, sample("speech")[: int(16000 * seconds)])
    return tmp_path / "mine"


def test_worker_processes_give_the_rows_of_this_process(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(out: str, *argv: str) -> list[dict[str, Any]]:
        chosen = ["--model", "tiny.en", "--compute_type", "int8", "--threads", "1", "--out", out]
        assert main(["bench", "wer", str(folder), *chosen, *argv]) == 0
        lines = (Path(out) / "clips.jsonl").read_text(encoding="utf-8").splitlines()
        made = [{**json.loads(line), "wall": None} for line in lines]
        return sorted(made, key=lambda row: (row["path"], row["alpha"]))

    expected = measured(str(tmp_path / "here"))
    assert len(expected) == 4
    there = str(tmp_path / "there")
    assert measured(there, "--engine", "local") == expected
    before = (tmp_path / "there" / "clips.jsonl").read_bytes()
    assert measured(there, "--engine", "local") == expected
    assert (tmp_path / "there" / "clips.jsonl").read_bytes() == before
    assert "WER" in capsys.readouterr().out


def test_a_clip_that_kills_its_worker_costs_its_own_rows(folder: Path, tmp_path: Path) -> None:
    def all_but_b(make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        yield from here(make, [task for task in tasks if not task.key.endswith("b.wav")], alone)

    clips = read_folder(folder, "speech")
    out = tmp_path / "out"
    elsewhere = runner.Elsewhere(all_but_b, Teller)
    rows = runner.run(Teller(), clips, [0.0], out, raw=False, progress=False, elsewhere=elsewhere)
    assert [(row["path"], row["text"]) for row in rows] == [
        ("mine/a.wav", "it lasts 40000 samples"),
        ("mine/b.wav", None),
    ]
    assert "died at each of 3 tries" in str(rows[1]["error"])
    assert runner.read_rows(out / "clips.jsonl") == rows
