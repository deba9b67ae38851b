"""Speech that no text covers is read next."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.small_pack import small_pack
from tests.support.window_tokens import BEGIN, scores, split
from whisper_sae_steer.steering.batch import SteeredWindow, Verdict
from whisper_sae_steer.steering.cuts import WindowCut
from whisper_sae_steer.steering.unread import Reading, read_on

LEVELS = small_pack(threshold=4.0, ramp=1.0, gap_below=-2.0).metadata.levels
CUT = WindowCut(0, 725, 1100)
"""behind speech from 0 to 14 s, and before a gap"""


def read(
    tokens: list[int], heard: NDArray[np.float32], cut: WindowCut | None = None, begins_at: int = 0
) -> Reading:
    window = SteeredWindow(torch.from_numpy(heard), torch.tensor(Verdict.SPEECH), cut, begins_at)
    return read_on(tokens, window, LEVELS, BEGIN)


@pytest.mark.parametrize(
    ("tokens", "resume_at"),
    [
        ([BEGIN, 7, 8, BEGIN + 385], 385),  # of two sentences only the first was read
        ([BEGIN, 7, BEGIN + 200, BEGIN + 200, 8, BEGIN + 385], 385),
        ([BEGIN, 7, BEGIN + 200, BEGIN + 400, 8, BEGIN + 700], 200),  # one between two others was left out
        ([BEGIN, 7, 8, BEGIN + 665], 1100),  # what is left is too short to be more than the text's end
        ([BEGIN, 7, 8, BEGIN + 700], 1100),
        ([BEGIN, 7, 8], 1100),  # nobody knows where it ends
        ([BEGIN, 7, 8, BEGIN + 10], 1100),  # nobody speaks so fast: the time is wrong
        ([BEGIN, 7, 8, BEGIN + 900], 1100),
        ([], 1100),
    ],
)
def test_speech_before_a_gap_that_was_not_read_is_read_next(tokens: list[int], resume_at: int):
    heard = scores((0, 700), (1120, 1400))
    tokens_read, cut = read(tokens, heard, CUT)
    assert cut == CUT._replace(resume_at=resume_at)
    segments, seek = split(tokens_read)
    assert seek == 2 * resume_at
    assert [s for s in segments if any(token < BEGIN for token in s)] or not tokens


@pytest.mark.parametrize(
    ("tokens", "resume_at"),
    [
        ([BEGIN, 7, 8, BEGIN + 385], 385),
        ([BEGIN, 7, BEGIN + 385, BEGIN + 900, 8, BEGIN + 1400], 385),
        ([BEGIN, 7, BEGIN + 385, BEGIN + 900, 8, BEGIN + 1400, BEGIN + 1400], 385),
    ],
)
def test_a_window_without_a_gap_goes_on_where_its_text_ends(tokens: list[int], resume_at: int):
    tokens_read, cut = read(tokens, scores((0, 1500)))
    assert cut == WindowCut(0, 1500, resume_at)
    segments, seek = split(tokens_read)
    assert seek == 2 * resume_at
    assert segments[0] == [BEGIN, *tokens[1 : tokens.index(BEGIN + 385)], BEGIN + 385]
    assert all(token >= BEGIN for segment in segments[1:] for token in segment)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [7, 8],
        [BEGIN, 7, 8],
        [BEGIN, 7, BEGIN + 1480],
        [BEGIN, 7, BEGIN + 400, BEGIN + 420, 8],  # both libraries go on from there by themselves
        [BEGIN, 7, BEGIN + 400, BEGIN + 400],
        [BEGIN + 300, 7, BEGIN + 1480],  # what comes before the text would be read no better again
        [BEGIN, 7, BEGIN + 400, BEGIN + 430, 8, BEGIN + 1480],  # a pause, more or less
    ],
)
def test_what_leaves_nothing_out_stays_as_it_is(tokens: list[int]):
    assert read(tokens, scores((0, 1500))) == Reading(tokens, None)


def test_padding_is_not_read():
    window = SteeredWindow(torch.full((1500,), 8.0), torch.tensor(Verdict.SPEECH), content=400)
    tokens = [BEGIN, 7, BEGIN + 390]
    assert read_on(tokens, window, LEVELS, BEGIN) == Reading(tokens, None)


def test_sound_that_the_gate_does_not_call_speech_is_not_read_again():
    heard = scores((0, 400), (450, 700))
    heard[450:700] = LEVELS.threshold - 0.1
    tokens = [BEGIN, 7, BEGIN + 400]
    assert read(tokens, heard, CUT).cut == CUT
    assert read(tokens, heard) == Reading(tokens, None)


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        ([BEGIN, 7, BEGIN + 200], 20),
        ([BEGIN + 10, 7, BEGIN + 200, BEGIN + 200, 8], 20),
        ([BEGIN + 40, 7, BEGIN + 200], 40),
        ([BEGIN, 7, BEGIN + 15], 0),  # it ends before speech begins
        ([BEGIN, 7], 0),
    ],
)
def test_behind_a_gap_text_begins_where_speech_does(tokens: list[int], first: int):
    read_tokens, cut = read(tokens, scores((20, 220)), begins_at=20)
    assert cut is None
    assert read_tokens == [BEGIN + first, *tokens[1:]]
    assert read(tokens, scores((20, 220))).tokens == tokens


TWO_SEGMENTS = [BEGIN, 7, BEGIN + 200, BEGIN + 200, 8]


@pytest.mark.parametrize(
    ("tokens", "resume_at"),
    [
        ([*TWO_SEGMENTS, BEGIN + 660, BEGIN + 660], 200),
        ([*TWO_SEGMENTS, BEGIN + 660, BEGIN + 660, 9], 200),  # the library drops what it began to write
        ([*TWO_SEGMENTS, BEGIN + 560, BEGIN + 560], None),  # two seconds can be read by themselves
        ([*TWO_SEGMENTS, BEGIN + 700, BEGIN + 700], None),  # nothing is left
        ([*TWO_SEGMENTS, BEGIN + 660], None),  # the text ends there
        ([BEGIN, 7, BEGIN + 660, BEGIN + 660], None),  # it could only be read the same way again
        ([BEGIN, 7, BEGIN + 10, BEGIN + 10, 8, BEGIN + 660, BEGIN + 660], None),
        ([], None),
    ],
)
def test_a_last_word_is_read_with_its_segment(tokens: list[int], resume_at: int | None):
    last = SteeredWindow(torch.from_numpy(scores((0, 700))), torch.tensor(Verdict.SPEECH), content=720)
    in_excerpt = read_on(tokens, last, LEVELS, BEGIN, in_excerpt=True)
    assert in_excerpt.cut == (WindowCut(0, 720, resume_at) if resume_at else None)
    assert split(in_excerpt.tokens)[1] == 2 * resume_at if resume_at else in_excerpt.tokens == tokens
    assert read_on(tokens, last, LEVELS, BEGIN) == Reading(tokens, None)  # as the plain library does
    before_gap = read(tokens, scores((0, 700), (1120, 1400)), CUT)
    assert before_gap.cut is not None
    assert (before_gap.cut.resume_at == resume_at) == bool(resume_at)


def test_a_word_at_the_end_of_a_full_window_of_an_excerpt_goes_on_in_the_next():
    window = SteeredWindow(torch.from_numpy(scores((0, 1500))), torch.tensor(Verdict.SPEECH))
    tokens = [*TWO_SEGMENTS, BEGIN + 1460, BEGIN + 1460]
    assert read_on(tokens, window, LEVELS, BEGIN, in_excerpt=True) == Reading(tokens, None)
