"""The scorer for HALAS, on a small table of the same layout."""

import csv
import json
import sys
from pathlib import Path

import pytest

from benchmarks.steering import halas
from tests.support.real_models import sample, truth
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import AnalysisError, ManifestError

SYSTEM = "whisper_large_v2"


def span(text: str, part: str, label: str = "Hallucination") -> dict[str, object]:
    start = text.index(part)
    return {"text": part, "start": start, "end": start + len(part), "labels": [label]}


def write_table(
    folder: Path, rows: dict[str, tuple[str, list[dict[str, object]]]], split: str = "test"
) -> Path:
    table = folder / "test.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = ("prediction", "label", "hallucination_text", "hallucination_json")
        names = [f"{SYSTEM}_{column}" for column in columns]
        writer.writerow(["audio_id", "corrected_reference_text", *names, "split"])
        for name, (text, spans) in rows.items():
            writer.writerow([name, "", text, "", "", json.dumps(spans) if spans else "", split])
            (folder / name).touch()
    return table


def test_words_are_marked_where_most_of_their_characters_are(tmp_path: Path) -> None:
    text = "Good morning. Thank you, bye bye bye."
    spans = [span(text, "Thank you, b"), span(text, "bye bye.", "Hallucination Looping")]
    table = write_table(tmp_path, {"a.wav": (text, spans), "b.wav": ("", []), "c.wav": ("Yes,\n no", [])})
    found = halas.read_annotations(table, tmp_path, SYSTEM, "test")
    assert [(one.audio.name, "".join("-x"[mark] for mark in one.marked)) for one in found] == [
        ("a.wav", "--xx-xx"),
        ("b.wav", ""),
        ("c.wav", "--"),
    ]
    assert found[2].words == ["Yes,", "no"]
    (tmp_path / "b.wav").unlink()
    for system, split, said in (
        (SYSTEM, "test", "1 of 3"),
        ("canary", "test", "canary"),
        (SYSTEM, "x", "no li"),
    ):
        with pytest.raises(ManifestError, match=said):
            halas.read_annotations(table, tmp_path, system, split)


def test_words_of_both_texts_are_found_by_their_places() -> None:
    theirs = ["Good", "morning,", "it's", "—", "late", "bye", "bye", "bye."]
    ours = [" good", " Morning.", " It's", " too", " late,", " bye", " bye"]
    assert dict(halas.same_words(theirs, ours)) in (
        {0: 0, 1: 1, 2: 2, 4: 4, 5: 5, 6: 6},
        {0: 0, 1: 1, 2: 2, 4: 4, 5: 6, 6: 7},
        {0: 0, 1: 1, 2: 2, 4: 4, 5: 5, 6: 7},
    )
    assert list(halas.same_words([], ours)) == list(halas.same_words(theirs, [])) == []


def test_figures_of_words_and_their_intervals() -> None:
    risks = [
        (0, 0.9, True),
        (0, 0.1, False),
        (1, 0.6, False),
        (1, 0.8, True),
        (2, 0.3, True),
        (3, 0.2, False),
    ]
    found = halas.figures([halas.JudgedWord(*word) for word in risks], 5, 0.5)
    values = {name: figure["value"] for name, figure in found.items()}
    assert values == {
        "precision": 0.6667, "recall": 0.6667, "F1": 0.6667, "AUC": 0.8889, "average precision": 0.9167,
    }  # fmt: skip
    for figure in found.values():
        low, high = figure["interval"]
        assert 0 <= low < figure["value"] < high <= 1
    alone = halas.figures([halas.JudgedWord(*word) for word in risks[:2]], 1, 0.5)
    assert alone["F1"] == {"value": 1.0, "interval": [1.0, 1.0]}
    with pytest.raises(AnalysisError, match="marked"):
        halas.figures([halas.JudgedWord(0, 0.5, True)], 1, 0.5)


@pytest.mark.parametrize("steered", [False, True])
def test_a_recording_from_table_to_figures(
    steered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = truth("speech")["speech"][0]["text"]
    *_, last = text.split()
    rows = {
        "1_call.wav": (f"{text} Thank you.", [span(text, last), span(f"{text} Thank you.", "Thank you.")])
    }
    table = write_table(tmp_path, rows)
    write_wav(tmp_path / "1_call.wav", sample("speech"))
    argv = [str(table), "--audio", str(tmp_path), "--model", "tiny.en", "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["script", *argv, *(["--steered"] if steered else [])])
    halas.main()
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (found["recordings"], found["annotated"]["marked"], found["judged"]["marked"]) == (1, 3, 1)
    assert 0.8 * found["annotated"]["words"] < found["judged"]["words"] <= found["written"]
    assert set(found["flagged from 0.5 on"]) == set(halas.FIGURES)
