"""Long recordings in pieces: cut in gaps, joined again to what one worker writes for all of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.io import wavfile

from tests.support.real_models import sample
from whisper_sae_steer.audio.clips import read_folder
from whisper_sae_steer.batch import pieces
from whisper_sae_steer.batch.config import BatchConfig
from whisper_sae_steer.batch.engine import Make, Task
from whisper_sae_steer.batch.job import transcribe_clips
from whisper_sae_steer.batch.local import Processes, here
from whisper_sae_steer.batch.pieces import Piece, joined, names_piece, pieces_of, shifted
from whisper_sae_steer.batch.row import Row, failed
from whisper_sae_steer.errors import SteerError
from whisper_sae_steer.reports import metrics

OPTIONS = BatchConfig(model="tiny.en", compute_type="int8", device="cpu")
PAUSE = np.zeros(6 * 16_000, dtype=np.float32)
TALK = np.concatenate([sample("speech")[: 8 * 16_000], PAUSE, sample("gap")[-7 * 16_000 :]])
"""two sentences with a pause between them, in 21 s"""


def row(text: str, seconds: float, **other: Any) -> Row:
    word = {"start": 1.0, "end": 1.5, "word": text}
    made: dict[str, Any] = {**failed("a", None, seconds), "language": "de", "text": text, "wall_seconds": 2.0}
    segments = [{"start": 1.0, "end": 2.0, "text": text, "words": [word]}]
    return made | {"segments": segments} | other  # type: ignore[return-value]


def test_how_many():
    expected = {0: 1, 5: 1, 29.9: 1, 30.1: 2, 49: 2, 51: 3, 120: 6}
    assert {minutes: len(pieces_of(minutes * 60)) for minutes in expected} == expected
    assert pieces_of(3600) == [Piece(0, 3), Piece(1, 3), Piece(2, 3)]


def test_spans_cover_a_recording_and_end_in_gaps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "SEARCHED_SAMPLES", 20 * 16_000)
    audio = np.tile(TALK, 6)
    spans = [Piece(number, 4).span(audio) for number in range(4)]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(audio)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    for end in [end for _, end in spans[:-1]]:
        second = end / 16_000 % 21
        assert 7.43 < second < 15.235 - 0.5 or second > 20.7 or second < 0.5, "nobody speaks there"


def test_where_nothing_is_quiet_a_piece_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "SEARCHED_SAMPLES", 10 * 16_000)
    talk = sample("speech")[16_000 : int(7.4 * 16_000)]
    audio = np.concatenate([np.tile(talk, 6), np.zeros(5 * 16_000, dtype=np.float32), np.tile(talk, 12)])
    spans = [Piece(number, 3).span(audio) for number in range(3)]
    cut = spans[0][1]
    assert spans == [(0, cut), (cut, len(audio)), (0, 0)]
    assert 6 * len(talk) < cut < 6 * len(talk) + 5 * 16_000


def test_names():
    assert Piece().name("a.wav") == "a.wav"
    assert not names_piece("a.wav")
    names = {Piece(number, 3).name("a.wav") for number in range(3)}
    assert len(names) == 3
    assert all(map(names_piece, names))


def test_rows_are_joined():
    late = row("there", 20.0, segments=[shifted(row("there", 1.0)["segments"][0], 30.5)])
    empty = row("", 0.0, segments=[], language=None)
    whole = joined("key", [row("Hello", 30.5), empty, late])
    assert whole["path"] == "key"
    assert (whole["seconds"], whole["wall_seconds"]) == (50.5, 6.0)
    assert (whole["text"], whole["language"]) == ("Hellothere", "de")
    times = [(segment["start"], segment["words"][0]["end"]) for segment in whole["segments"]]
    assert times == [(1.0, 1.5), (31.5, 32.0)]
    errors = [failed("a", "AudioError: no"), failed("a", "AudioError: more")]
    broken = joined("key", [row("Hello", 30.5), *errors])
    assert (broken["path"], broken["error"], broken["text"]) == ("key", "AudioError: no", None)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one recording of 84 s, which is taken in four pieces."""
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 21)
    monkeypatch.setattr(pieces, "SEARCHED_SAMPLES", 10 * 16_000)
    (tmp_path / "mine").mkdir()
    wavfile.write(tmp_path / "mine" / "long.wav", 16_000, np.tile(TALK, 4))
    return tmp_path


class Stopped:
    """An engine that stops before its n-th answer, as Ctrl-C does."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.tasks: list[str] = []

    def __call__(self, make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        for number, (key, answer) in enumerate(here(make, tasks, alone)):
            if number == self.answers:
                raise KeyboardInterrupt
            self.tasks.append(key)
            yield key, answer


def test_pieces_join_to_the_whole_and_none_is_made_twice(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read_folder(recording / "mine", "speech")
    out = recording / "pieces.parquet"
    first = Stopped(2)
    with pytest.raises(KeyboardInterrupt):
        transcribe_clips(clips, out, OPTIONS, first, progress=False)
    assert not out.exists()
    second = Stopped(9)
    outcome = transcribe_clips(clips, out, OPTIONS, second, progress=False)
    assert (outcome.clips, outcome.new, outcome.failed) == (1, 1, 0)
    assert outcome.audio_seconds == pytest.approx(84, abs=0.1)
    assert len(first.tasks) == len(second.tasks) == 2
    assert len({*first.tasks, *second.tasks}) == 4
    (taken,) = pq.read_table(out).to_pylist()
    assert taken["path"] == clips[0].key

    monkeypatch.setattr(pieces, "PIECE_SECONDS", 1200)
    transcribe_clips(clips, recording / "whole.parquet", OPTIONS, here, progress=False)
    (whole,) = pq.read_table(recording / "whole.parquet").to_pylist()
    errors = metrics.word_errors(whole["text"], taken["text"])
    assert errors is not None
    assert errors.rate < 0.05, "a piece begins without what was said before it as a prompt"
    segments = taken["segments"], whole["segments"]
    assert len(taken["segments"]) == 8
    for edge in ("start", "end"):
        shifts = [abs(one[edge] - other[edge]) for one, other in zip(*segments, strict=True)]
        assert max(shifts) < 1.5, "a piece begins a second before its speech, and Whisper's text with it"


def test_a_piece_that_fails_fails_its_recording(recording: Path) -> None:
    clips = read_folder(recording / "mine", "speech")

    def engine(make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        worker = make()
        yield from ((task.key, worker(task.item)) for task in tasks if task.item.piece.number != 2)

    outcome = transcribe_clips(clips, recording / "out.parquet", OPTIONS, engine, progress=False)
    assert outcome.failed == 1
    (taken,) = pq.read_table(recording / "out.parquet").to_pylist()
    assert taken["error"].startswith(SteerError.__name__)
    assert taken["text"] is None


def test_unsteered_recordings_stay_whole(recording: Path) -> None:
    clips = read_folder(recording / "mine", "speech")
    engine = Stopped(9)
    options = BatchConfig(model="tiny.en", compute_type="int8", device="cpu", steer_alpha=0)
    transcribe_clips(clips, recording / "plain.parquet", options, engine, progress=False)
    assert engine.tasks == [clips[0].key]


@pytest.mark.slow
def test_two_workers_share_a_recording(recording: Path) -> None:
    clips = read_folder(recording / "mine", "speech")
    texts: list[str] = []
    for workers in (1, 2):
        out = recording / f"{workers}.parquet"
        transcribe_clips(clips, out, OPTIONS, Processes(workers), threads=1, progress=False)
        texts += [row["text"] for row in pq.read_table(out).to_pylist()]
    assert texts[0] == texts[1]
