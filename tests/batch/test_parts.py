import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from whisper_sae_steer.batch import parts
from whisper_sae_steer.batch.parts import KEY, PART_ROWS, BatchResults
from whisper_sae_steer.batch.row import Row, failed
from whisper_sae_steer.errors import ManifestError, SteerError

SETTINGS: dict[str, Any] = {"model": "tiny.en", "steer_alpha": 1.0}


def row(path: str, text: str) -> Row:
    word = {"start": 0.0, "end": 0.5, "word": text, "probability": 0.9, "hallucination_risk": 0.1}
    scores = dict.fromkeys(("avg_logprob", "no_speech_prob", "speech_prob", "hallucination_risk"), 0.5)
    segment = {"start": 0.0, "end": 1.0, "text": text, **scores, "words": [word]}
    return Row(
        path=path, seconds=1.0, language="en", text=text, segments=[segment], error=None, wall_seconds=0.1
    )


def table(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_rows_come_back_whole_with_their_settings(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    rows = [row("a.wav", " hello"), failed("b.wav", "AudioError: b.wav is empty", 2.0)]
    with BatchResults(out, SETTINGS) as results:
        for made in rows:
            results.add(made)
        results.merge()
    assert table(out) == rows
    about = json.loads((pq.read_schema(out).metadata or {})[KEY])
    assert about["settings"] == SETTINGS
    assert set(about["versions"]) == set(parts.LIBRARIES)
    assert list(tmp_path.iterdir()) == [out], "no parts, lock or temporary file is left"


def test_an_interrupted_run_keeps_its_rows_and_the_next_one_replaces_errors(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"

    def interrupted() -> None:
        with BatchResults(out, SETTINGS) as results:
            results.add(failed("a.wav", "AudioError: damaged"))
            results.add(row("b.wav", " first"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not out.exists()
    for text in (" second", " third"):
        with BatchResults(out, SETTINGS) as results:
            assert results.errors["b.wav"] is None
            results.add(row("a.wav", text))
            results.merge()
        assert {made["path"]: made["text"] for made in table(out)} == {"a.wav": text, "b.wav": " first"}
        assert len(table(out)) == 2
    before = out.stat()
    with BatchResults(out, SETTINGS) as results:
        results.merge()
    assert out.stat() == before, "nothing new, nothing written"


def test_rows_reach_the_disk_while_the_run_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.parquet"
    with BatchResults(out, SETTINGS) as results:
        for number in range(2 * PART_ROWS + 5):
            results.add(row(f"{number}.wav", " hi"))
        made = sorted(path.name for path in results.folder.glob("*.parquet"))
        assert made == ["00000001.parquet", "00000002.parquet"]
        monkeypatch.setattr(parts, "FLUSH_SECONDS", 0.0)
        results.add(row("late.wav", " hi"))
        assert (results.folder / "00000003.parquet").exists()
        results.merge()
    file = pq.ParquetFile(out)
    assert file.metadata.num_rows == 2 * PART_ROWS + 6
    assert file.metadata.num_row_groups == 3


def test_other_settings_other_files_and_other_writers_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    with BatchResults(out, SETTINGS) as results:
        results.add(row("a.wav", " hello"))
        with pytest.raises(ManifestError, match="another process"), BatchResults(out, SETTINGS):
            pass
    changed = {**SETTINGS, "steer_alpha": 0.5}
    with pytest.raises(ManifestError, match=r"steer_alpha 1\.0, now 0\.5"), BatchResults(out, changed):
        pass
    with BatchResults(out, SETTINGS) as results:
        results.merge()
    with pytest.raises(ManifestError, match=r"steer_alpha 1\.0, now 0\.5"), BatchResults(out, changed):
        pass
    mine = tmp_path / "mine.parquet"
    mine.write_text("my own notes")
    with pytest.raises(ManifestError, match="no result of this command"), BatchResults(mine, SETTINGS):
        pass
    assert mine.read_text() == "my own notes"
    with (
        pytest.raises(SteerError, match="can't write"),
        BatchResults(tmp_path / "no" / "folder.parquet", SETTINGS),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.parquet", "results.parquet"]


def test_a_damaged_file_is_one_error_that_says_which_and_what_to_do(tmp_path: Path) -> None:
    """Bytes that change, and an end that is missing: from the footer to the texts."""
    out = tmp_path / "results.parquet"
    with BatchResults(out, SETTINGS) as results:
        for number in range(3):
            results.add(row(f"{number}.wav", f" text {number}"))
        results.merge()
    whole, rows = out.read_bytes(), table(out)
    rng = np.random.default_rng(0)
    said: list[str] = []
    for place in rng.integers(len(whole), size=60).tolist():
        out.write_bytes(whole[:place] + (rng.bytes(20) + whole[place + 20 :] if place % 2 else b""))
        try:
            add_new(out)
        except ManifestError as error:
            said.append(str(error))
            shutil.rmtree(tmp_path / "results.parquet.parts", ignore_errors=True)
        else:
            assert table(out)[:3] == rows
    assert len(said) > 50
    assert all(message.startswith(str(out)) and "\n" not in message for message in said)


def add_new(out: Path) -> None:
    with BatchResults(out, SETTINGS) as results:
        results.rows_of(["0.wav"])
        results.add(row("new.wav", " hello"))
        results.merge()


def test_rows_outlast_an_output_that_turns_out_to_be_damaged(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    with BatchResults(out, SETTINGS) as results:
        results.add(row("old.wav", " some words"))
        results.merge()
    out.write_bytes(out.read_bytes().replace(b"some words", b"same words"))
    with pytest.raises(ManifestError, match=r"results\.parquet is damaged.* the same command"):
        add_new(out)
    out.unlink()
    with BatchResults(out, SETTINGS) as results:
        assert results.errors == {"new.wav": None}
        results.merge()
    assert [made["path"] for made in table(out)] == ["new.wav"]
