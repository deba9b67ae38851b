"""Which part of a window is decoded, and where the next one begins."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.small_pack import small_pack
from tests.support.window_tokens import BEGIN, scores, split
from whisper_sae_steer.steering.cuts import (
    EXCERPT_GAP_FRAMES,
    MIN_GAP_FRAMES,
    PAD_FRAMES,
    WindowCut,
    content_of,
    cut_window,
    frames_before_speech,
    plan_window,
    tokens_that_seek_to,
)

LEVELS = small_pack(threshold=4.0, ramp=1.0, gap_below=-2.0).metadata.levels
NO_GAPS = replace(LEVELS, gap_below=None)
END = 1500


@pytest.mark.parametrize(
    "speech",
    [
        [],
        [(0, END)],
        [(MIN_GAP_FRAMES, 1400)],  # as much as PAD_FRAMES is left before speech
        [(0, 400), (400 + MIN_GAP_FRAMES - 1, END)],
        [(10, END - MIN_GAP_FRAMES + 1)],
    ],
)
def test_windows_without_a_long_gap_are_left_alone(speech: list[tuple[int, int]]):
    assert cut_window(scores(*speech), END, LEVELS) is None


def test_an_excerpt_is_cut_at_longer_gaps():
    values = scores((0, 300), (300 + EXCERPT_GAP_FRAMES - 1, END))
    assert cut_window(values, END, LEVELS) is not None
    assert plan_window(values, END, LEVELS, False, EXCERPT_GAP_FRAMES).cut is None
    longer = scores((0, 300), (300 + EXCERPT_GAP_FRAMES + PAD_FRAMES, END))
    assert plan_window(longer, END, LEVELS, False, EXCERPT_GAP_FRAMES).cut is not None


@pytest.mark.parametrize(
    ("speech", "content", "cut"),
    [
        ([(600, 900)], END, WindowCut(600 - PAD_FRAMES, END, END)),  # begins with a gap
        ([(0, 300), (700, 1400)], END, WindowCut(0, 300 + PAD_FRAMES, 700 - PAD_FRAMES)),
        (
            [(0, 300)],
            END,
            WindowCut(0, 300 + PAD_FRAMES, END - PAD_FRAMES),
        ),  # what begins at the end may not show yet
        ([(0, 300)], 1200, WindowCut(0, 300 + PAD_FRAMES, 1200)),
        (
            [(0, 100), (200, 300), (800, 900)],
            END,
            WindowCut(0, 300 + PAD_FRAMES, 800 - PAD_FRAMES),
        ),  # a pause is no gap
    ],
)
def test_a_gap_is_cut_out(speech: list[tuple[int, int]], content: int, cut: WindowCut):
    assert cut_window(scores(*speech), content, LEVELS) == cut


@pytest.mark.parametrize(
    ("speech", "content", "frames"),
    [
        ([], END, END),
        ([], 700, 700),
        ([(0, 300)], END, 0),
        ([(MIN_GAP_FRAMES, 400)], END, 0),
        ([(600, 900)], END, 600 - PAD_FRAMES),
        ([(600, 900)], 500, 500),  # that is not audio any more
        ([], 0, 0),
    ],
)
def test_what_lies_before_speech(speech: list[tuple[int, int]], content: int, frames: int):
    assert frames_before_speech(scores(*speech), content, LEVELS) == frames
    assert frames_before_speech(scores(*speech), content, NO_GAPS) == 0


def test_a_bang_in_the_gap_is_no_speech():
    values = scores((0, 300), (900, 1200))
    values[600:605] = 1.9
    assert cut_window(values, END, LEVELS) == WindowCut(0, 300 + PAD_FRAMES, 900 - PAD_FRAMES)
    values[600:605] = 2.1  # higher than noise: a word under noise perhaps
    assert cut_window(values, END, LEVELS) == WindowCut(0, 300 + PAD_FRAMES, 600 - PAD_FRAMES)


@pytest.mark.parametrize(
    ("speech", "cut"),
    [
        ([(10, 40), (240, 700)], None),
        ([(10, 300), (500, 530), (730, 1300)], None),
        ([(10, 40), (240, 270), (470, 1300)], None),
        ([(10, 40), (240, 600), (900, 1300)], WindowCut(0, 600 + PAD_FRAMES, 900 - PAD_FRAMES)),
        (
            [(10, 40), (400, 1300)],
            WindowCut(0, 40 + PAD_FRAMES, 400 - PAD_FRAMES),
        ),  # unless they are far away
        ([(10, 200), (400, 1300)], WindowCut(0, 200 + PAD_FRAMES, 400 - PAD_FRAMES)),  # a sentence isn't
        # it goes on in the next window
        ([(10, 200), (400, 600), (800, 1500)], WindowCut(0, 200 + PAD_FRAMES, 400 - PAD_FRAMES)),
        ([(10, 1200), (1440, 1500)], WindowCut(0, 1200 + PAD_FRAMES, 1440 - PAD_FRAMES)),
    ],
)
def test_a_reply_is_decoded_with_its_neighbours(speech: list[tuple[int, int]], cut: WindowCut | None):
    content = min(END, speech[-1][1] + PAD_FRAMES)
    assert cut_window(scores(*speech), content, LEVELS) == cut


def test_padding_is_no_gap_and_packs_may_look_for_none():
    values = scores((0, 300))
    assert cut_window(values, 300 + MIN_GAP_FRAMES - 1, LEVELS) is None
    assert cut_window(values, END, NO_GAPS) is None


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([BEGIN, 7, 8, BEGIN + 290], [[BEGIN, 7, 8, BEGIN + 290]]),
        ([BEGIN, 7, 8], [[BEGIN, 7, 8, BEGIN + 325 - PAD_FRAMES]]),  # not closed
        ([7, 8], [[BEGIN, 7, 8, BEGIN + 325 - PAD_FRAMES]]),  # without timestamps
        ([], []),
        ([BEGIN, 7, BEGIN + 100, BEGIN + 110, 8], [[BEGIN, 7, BEGIN + 100]]),  # goes on from 100
        (
            [BEGIN, 7, BEGIN + 100, BEGIN + 110, 8, BEGIN + 290],
            [[BEGIN, 7, BEGIN + 100], [BEGIN + 110, 8, BEGIN + 290]],
        ),
        (  # goes on from beyond the gap
            [BEGIN, 7, BEGIN + 100, BEGIN + 110, 8, BEGIN + 900, BEGIN + 900],
            [[BEGIN, 7, BEGIN + 100], [BEGIN + 110, 8, BEGIN + 325]],
        ),
        ([BEGIN, 7, BEGIN + 900], [[BEGIN, 7, BEGIN + 325]]),
        # a segment that begins after the end keeps its length, or its words would be dropped
        ([BEGIN + 400, 7, BEGIN + 900], [[BEGIN + 400, 7, BEGIN + 900]]),
    ],
)
def test_the_libraries_seek_to_the_end_of_the_gap(tokens: list[int], text: list[list[int]]):
    cut = WindowCut(0, 325, 675)
    segments, seek = split(tokens_that_seek_to(tokens, cut, BEGIN))
    assert [s for s in segments if any(token < BEGIN for token in s)] == text
    # an unfinished segment is decoded again from where it began, as ever
    goes_on = tokens[2:4] == [BEGIN + 100, BEGIN + 110] and tokens[-1] < BEGIN
    assert seek == (2 * 100 if goes_on else 2 * 675)
    # what was added has no length, and no text
    assert all(s[0] == s[-1] for s in segments if all(token >= BEGIN for token in s))


def test_a_window_that_would_seek_to_its_own_start_moves_on():
    _, seek = split(tokens_that_seek_to([BEGIN, BEGIN], WindowCut(0, 325, 675), BEGIN))
    assert seek == 2 * 675


def test_padding_is_told_by_its_zeros():
    mel = np.zeros((80, 3000), np.float32)
    assert content_of(mel) == 0
    mel[3, 999] = -0.5
    assert content_of(mel) == 500
    mel[:, 1000] = 0.1
    assert content_of(mel) == 501
