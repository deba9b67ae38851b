"""Runners for published sets, on small folders of the same layout."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speech import open_asr
from benchmarks.steering import us8k
from tests.support.parquet_sets import parquet_set
from tests.support.real_models import sample, truth
from whisper_sae_steer.audio.synthetic import generate
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import ManifestError

NOISE = list(generate(24, 0))[23].audio
"""tiny.en writes text for it unless steered"""
TEXT = truth("speech")["speech"][0]["text"]
SLICES = (
    ("100032-3-0-0.wav", 100032, 5, "dog_bark"),
    ("100648-1-0-0.wav", 100648, 10, "car_horn"),
    ("100648-1-1-0.wav", 100648, 10, "car_horn"),
    ("100263-2-0-3.wav", 100263, 5, "children_playing"),
    ("101848-9-0-0.wav", 101848, 7, "street_music"),
)


@pytest.fixture
def urban(tmp_path: Path) -> Path:
    """The folder, without the recordings of the two classes that are left out."""
    folder = tmp_path / "UrbanSound8K"
    (folder / "metadata").mkdir(parents=True)
    with (folder / "metadata" / "UrbanSound8K.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"])
        for name, upload, fold, sound in SLICES:
            table.writerow([name, upload, 0.0, 0.317551, 1, fold, name.split("-")[1], sound])
            if sound not in us8k.VOICES:
                path = folder / "audio" / f"fold{fold}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_wav(path, NOISE)
    return folder


def started(script: Any, monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *argv, "--model", "tiny.en"])
    script.main()


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def test_city_sounds_without_voices(urban: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    started(us8k, monkeypatch, str(urban), "--per_class", "1", "--out", str(out))
    found = summary(out)["nonspeech"]
    assert {sound: of["1"]["clips"] for sound, of in found["by_class"].items()} == {
        "car_horn": 1,
        "dog_bark": 1,
    }
    rates = {alpha: found["total"][alpha]["FPR_text"]["k"] for alpha in ("0", "1")}
    assert rates == {"0": 2, "1": 0}
    assert found["total"]["1"]["FPR_raw"]["n"] == 2
    rows = (out / "clips.jsonl").read_text(encoding="utf-8")
    assert str(tmp_path) not in rows
    assert '"audio/fold5/100032-3-0-0.wav"' in rows


def test_slices_of_an_upload_are_one_group(urban: Path) -> None:
    clips = us8k.read_clips(urban)
    assert [(clip.class_, clip.group) for clip in clips] == [
        ("dog_bark", "100032"),
        ("car_horn", "100648"),
        ("car_horn", "100648"),
    ]


def test_what_a_folder_of_city_sounds_lacks_is_told(urban: Path) -> None:
    clips = us8k.read_clips(urban)
    clips[0].path.unlink()
    with pytest.raises(ManifestError, match=r"1 of 3 .*fold5/100032"):
        us8k.read_clips(urban)
    table = urban / "metadata" / "UrbanSound8K.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("fsID", "id"), encoding="utf-8")
    with pytest.raises(ManifestError, match="no column fsID"):
        us8k.read_clips(urban)
    with pytest.raises(ManifestError, match="no such file"):
        us8k.read_clips(urban / "audio")


def spoken(path: Path, seconds: float) -> dict[str, Any]:
    write_wav(path, sample("speech")[: int(16_000 * seconds)])
    return {"bytes": path.read_bytes(), "path": path.name}


def test_a_set_of_the_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of its rows have nothing to score, and one lies behind the first four."""
    texts = (TEXT, "ignore_time_segment_in_scoring", " ", TEXT.upper(), "beyond")
    whole = spoken(tmp_path / "a.wav", len(sample("speech")) / 16_000)
    rows = [
        {"audio": whole, "dataset": "ami", "text": text, "id": f"id-{n}", "audio_length_s": 6.0}
        for n, text in enumerate(texts)
    ]
    place = parquet_set(tmp_path / "sets", "test", {"ami": rows, "other": rows[4:]})
    out = tmp_path / "out"
    started(open_asr, monkeypatch, place, "--name", "ami", "--count", "4", "--out", str(out))
    found = summary(out)["speech"]
    assert set(found["by_source"]) == {"ami, test"}
    for alpha in ("0", "1"):
        total = found["total"][alpha]
        assert (total["clips"], total["own_reference"]) == (2, 0)
        assert total["words"] == 2 * len(open_asr.metrics.normalise(TEXT, "en").split())
        assert total["WER"] < 0.2
    assert sorted(path.name for path in (out / "audio").iterdir()) == ["000000.wav", "000003.wav"]
    with pytest.raises(ManifestError, match="scored"):
        started(
            open_asr,
            monkeypatch,
            parquet_set(tmp_path / "empty", "test", {"x": rows[1:3]}),
            "--out",
            str(out),
        )


def test_columns_that_are_needed(tmp_path: Path) -> None:
    sound = spoken(tmp_path / "a.wav", 1)
    place = parquet_set(tmp_path / "set", "test", {"x": [{"audio": sound, "sentence": "The  train"}]})
    (clip,) = open_asr.write_clips(open_asr.read_rows(place, None, "test"), tmp_path / "audio", "a set")
    assert (clip.text, clip.language, clip.path.read_bytes()) == ("The train", "en", sound["bytes"])
    place = parquet_set(tmp_path / "other", "test", {"x": [{"audio": sound, "words": "The train"}]})
    with pytest.raises(ManifestError, match=r"transcription.*words"):
        open_asr.read_rows(place, None, "test")
