"""Transcripts of every setting: recorded, read again and compared."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.steering import transcripts
from tests.support.real_models import sample
from whisper_sae_steer.audio.clips import Clip, read_folder, write_manifest
from whisper_sae_steer.audio.writing import write_wav


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    (tmp_path / "clips").mkdir()
    write_wav(tmp_path / "clips" / "speech.wav", sample("speech")[: 3 * 16_000])
    (found,) = read_folder(tmp_path / "clips", "speech", "en")
    return found


def test_lines_keep_every_digit_and_have_one_order() -> None:
    line = transcripts.as_line({"b": np.float32(0.1), "a": [0.1 + 0.2, np.int64(3)], "ä": np.arange(2)})
    assert line == '{"a": [0.30000000000000004, 3], "b": 0.10000000149011612, "ä": [0, 1]}'
    with pytest.raises(TypeError, match="set"):
        transcripts.as_line({"a": {1}})


def test_a_refusal_is_a_result(clip: Clip) -> None:
    def refuse(_: object) -> object:
        raise ValueError("too short")

    rows = list(transcripts.record({"a": len, "b": refuse}, [clip], "tiny.en"))
    assert [row["result"] for row in rows] == [48_000, {"error": "ValueError: too short"}]
    assert {row["clip"] for row in rows} == {clip.key}


def write(path: Path, results: dict[str, object]) -> Path:
    rows = [
        {"model": "base", "backend": "faster", "setting": "α = 1", "clip": clip, "result": result}
        for clip, result in results.items()
    ]
    path.write_text("".join(transcripts.as_line(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_that_differ_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write(tmp_path / "before.jsonl", {"a": 1.0, "b": 2.0, "gone": 3.0})
    after = write(tmp_path / "after.jsonl", {"b": 2.0000000000000004, "a": 1.0, "new": 4.0})
    assert transcripts.differences(before, before) == []
    found = transcripts.differences(after, before)
    assert found == [
        "base, faster, α = 1, b: differs",
        f"base, faster, α = 1, gone: only in {before}",
        f"base, faster, α = 1, new: only in {after}",
    ]
    assert transcripts.report([]) == 0
    assert transcripts.report(found) == 1
    assert "3 rows differ" in capsys.readouterr().out


def test_the_same_version_writes_the_same_file(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: transcripts.FASTER[name] for name in ("α = 1, words", "batched without VAD, α = 1")}
    monkeypatch.setattr(transcripts, "FASTER", few)
    manifest = tmp_path / "clips" / "manifest.tsv"
    row = {"path": clip.path.name, "split": "dev", "kind": "speech", "language": "en"}
    write_manifest(manifest, [row, {**row, "path": "unread.wav", "language": "de"}])
    for name in ("before.jsonl", "after.jsonl"):
        options = ["--model", "tiny.en", "--backend", "faster", "--out", str(tmp_path / name)]
        compare = ["--compare", str(tmp_path / "before.jsonl")] if name == "after.jsonl" else []
        monkeypatch.setattr(sys, "argv", ["script", str(manifest), *options, *compare])
        assert transcripts.main() == 0
    assert "every row is the same" in capsys.readouterr().out
    text = (tmp_path / "after.jsonl").read_text(encoding="utf-8")
    assert text == (tmp_path / "before.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["setting"] for row in rows] == list(few)
    assert all(row["result"]["segments"][0]["text"] for row in rows)
