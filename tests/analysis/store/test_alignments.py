"""Alignments: TextGrid as Praat and MFA write it, CTM, and the phone of each frame."""

from pathlib import Path

import numpy as np
import pytest
from praatio import textgrid

from whisper_sae_steer.analysis.store.activations import Window
from whisper_sae_steer.analysis.store.alignments import Alignments, Interval, labels_of_frames
from whisper_sae_steer.errors import AnalysisError

SHORT = """File type = "ooTextFile short"
"TextGrid"

0
0.5
<exists>
1
"IntervalTier"
"phones"
0
0.5
3
0
0.1
"sil"
0.1
0.3
"AH0"
0.3
0.5
"N"
"""


def write_textgrid(path: Path, tiers: dict[str, list[tuple[float, float, str]]], end: float = 1.0) -> None:
    grid = textgrid.Textgrid(0, end)
    for name, entries in tiers.items():
        intervals = [textgrid.constants.Interval(*entry) for entry in entries]
        grid.addTier(textgrid.IntervalTier(name, intervals, 0, end))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(str(path), "long_textgrid", includeBlankSpaces=True)


def window(path: str, start: float = 0, frames: int = 50) -> Window:
    return Window("", path, start, "speech", "speech", "", "g", "en", "", 0, frames)


def test_a_frame_has_the_phone_at_its_centre() -> None:
    intervals = [Interval(0.02, 0.05, "a"), Interval(0.05, 0.07, "b"), Interval(0.1, 0.2, "c")]
    # centres 0.01, 0.03, 0.05, 0.07, 0.09, 0.11: starts belong to the phone, ends don't
    assert labels_of_frames(intervals, 0, 6).tolist() == ["", "a", "b", "", "", "c"]
    assert labels_of_frames(intervals, 0.04, 3).tolist() == ["b", "", ""]
    assert labels_of_frames([], 0, 2).tolist() == ["", ""]


def test_textgrids_below_a_folder_without_silences(tmp_path: Path) -> None:
    write_textgrid(
        tmp_path / "speaker" / "one.TextGrid",
        {
            "words": [(0, 1, "dog")],
            "phones": [(0, 0.2, "D"), (0.2, 0.5, "AO1"), (0.5, 0.6, "spn"), (0.6, 1, "G")],
        },
    )
    (tmp_path / "two.TextGrid").write_text(SHORT)
    found = Alignments.read(tmp_path)
    assert found.phones["one"] == [(0, 0.2, "D"), (0.2, 0.5, "AO1"), (0.6, 1, "G")]
    assert found.phones["two"] == [(0.1, 0.3, "AH0"), (0.3, 0.5, "N")]


def test_tiers_of_several_speakers_are_joined_in_order_of_time(tmp_path: Path) -> None:
    write_textgrid(
        tmp_path / "one.TextGrid", {"ann - phones": [(0.5, 0.6, "B")], "bob - phones": [(0.1, 0.2, "A")]}
    )
    assert [i.phone for i in Alignments.read(tmp_path).phones["one"]] == ["A", "B"]


def test_another_tier(tmp_path: Path) -> None:
    write_textgrid(tmp_path / "one.TextGrid", {"MAU": [(0, 1, "d")]})
    assert Alignments.read(tmp_path, "MAU").phones["one"] == [(0, 1, "d")]
    with pytest.raises(AnalysisError, match="no tier phones; choose with --tier one of: MAU"):
        Alignments.read(tmp_path)


def test_ctm(tmp_path: Path) -> None:
    (tmp_path / "all.ctm").write_text(
        ";; made by hand\none 1 0.50 0.25 AH 0.9\n\none 1 0.10 0.40 SIL\ntwo A 0 .1 D\n"
    )
    found = Alignments.read(tmp_path)
    assert found.phones == {"one": [(0.5, 0.75, "AH")], "two": [(0, 0.1, "D")]}


def test_recordings_are_matched_by_stem(tmp_path: Path) -> None:
    (tmp_path / "all.ctm").write_text("one 1 0 1 AH\n")
    alignments = Alignments.read(tmp_path)
    windows = [window("a/one.wav"), window("a/one.wav", 30), window("a/other.wav")]
    assert [w.start for w, _ in alignments.match(windows)] == [0, 30]
    with pytest.raises(AnalysisError, match="none of the alignments"):
        list(alignments.match([window("a/other.wav")]))
    with pytest.raises(AnalysisError, match="have one alignment, one"):
        list(alignments.match([window("a/one.wav"), window("b/one.wav")]))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no .TextGrid or .ctm file"),
        ({"a.ctm": "one 1 0.5 AH\n"}, "a.ctm, line 1"),
        ({"a.ctm": "one 1 0.5 x AH\n"}, "a.ctm, line 1"),
        ({"a.TextGrid": "what?"}, "no TextGrid of intervals"),
        ({"a.TextGrid": SHORT.replace('0.3\n"AH0"', 'later\n"AH0"')}, "no TextGrid of intervals"),
        ({"a.ctm": "one 1 0 1 AH\n", "one.TextGrid": SHORT}, "second alignment of one"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(AnalysisError, match=says) as caught:
        Alignments.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_many_frames_at_once() -> None:
    intervals = [Interval(0.02 * i, 0.02 * (i + 1), str(i)) for i in range(1500)]
    np.testing.assert_array_equal(labels_of_frames(intervals, 0, 1500), [str(i) for i in range(1500)])
