"""Speech between pauses that no text has is read by itself."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.small_pack import small_pack
from tests.support.window_tokens import BEGIN, scores, split
from whisper_sae_steer.steering.batch import SteeredWindow, Verdict
from whisper_sae_steer.steering.cuts import WindowCut
from whisper_sae_steer.steering.doubt import Answer
from whisper_sae_steer.steering.left_out import cut_at_left_out, misled_by_text_before
from whisper_sae_steer.steering.unread import read_on

LEVELS = small_pack(threshold=4.0, ramp=1.0, gap_below=-2.0).metadata.levels
WORD, SENTENCE, LAST = (50, 90), (200, 500), (600, 640)
SAID = [240, 300, 450]
OVER_ALL = [BEGIN, 7, 8, BEGIN + 700]
FIRST, BEFORE_LAST = WindowCut(0, 110, 180), WindowCut(0, 520, 580)


def window(heard: NDArray[np.float32], cut: WindowCut | None = None) -> SteeredWindow:
    return SteeredWindow(torch.from_numpy(heard), torch.tensor(Verdict.SPEECH), cut, content=720)


@pytest.mark.parametrize(
    ("tokens", "word_ends", "cut"),
    [
        (OVER_ALL, [80, *SAID, 620], None),  # each has words
        (OVER_ALL, [*SAID, 620], FIRST),  # the first is read by itself
        (OVER_ALL, [195, *SAID, 620], FIRST),
        (OVER_ALL, [80, *SAID], BEFORE_LAST),  # what is before the last is, and then the last
        (OVER_ALL, [103, *SAID, 653], None),  # the alignment is a little late
        (OVER_ALL, [], FIRST),
        (OVER_ALL, [80, 300, 320, 620], FIRST),  # of a sentence of 6 s there are two words
        ([BEGIN, 7, BEGIN + 150, BEGIN + 190, 8, BEGIN + 550], [300], None),  # each has a text of its own
        ([BEGIN, 7, BEGIN + 150, BEGIN + 190, 8], [80, *SAID], BEFORE_LAST),  # which may reach to the end
        ([7, 8], [*SAID, 620], FIRST),  # without timestamps
        (
            [BEGIN + 195, 7, BEGIN + 700],
            [620],
            FIRST,
        ),  # a sentence is left out, and so is what is before the text
        ([], [], FIRST),  # no text at all
        ([BEGIN, BEGIN + 700], [], FIRST),
    ],
)
def test_speech_without_a_word_of_the_text_ends_the_window(
    tokens: list[int], word_ends: list[float], cut: WindowCut | None
):
    heard = window(scores(WORD, SENTENCE, LAST))
    assert cut_at_left_out(tokens, heard, LEVELS, BEGIN, lambda: word_ends) == cut


def test_a_pack_that_knows_no_gaps_asks_nothing():
    levels = small_pack(threshold=4.0, ramp=1.0, gap_below=None).metadata.levels
    heard = window(scores(WORD, SENTENCE, LAST))
    assert cut_at_left_out(OVER_ALL, heard, levels, BEGIN, list) is None
    assert read_on([BEGIN, 7, 8, BEGIN + 505], heard, levels, BEGIN).cut is None


def test_a_word_that_is_not_sure_is_not_passed_over():
    unsure = np.maximum(scores(WORD, SENTENCE, LAST), scores((130, 150), level=3.0))
    assert cut_at_left_out(OVER_ALL, window(unsure), LEVELS, BEGIN, list) == WindowCut(0, 110, 110)


@pytest.mark.parametrize(
    "heard",
    [
        scores((150, 190), SENTENCE),  # no pause
        scores((50, 55), SENTENCE),  # a click
        scores((0, 40), SENTENCE),  # read before, but for its end
        np.maximum(scores(SENTENCE), scores(WORD, level=5.0)),  # it may be noise
    ],
)
def test_only_sure_speech_between_pauses_is_asked_about(heard: NDArray[np.float32]):
    assert cut_at_left_out(OVER_ALL, window(heard), LEVELS, BEGIN, list) is None


def test_nothing_is_asked_of_the_model_where_texts_tell():
    def refuse() -> list[float]:
        raise AssertionError

    apart = [BEGIN, 7, BEGIN + 150, BEGIN + 190, 8, BEGIN + 550, BEGIN + 580, 9, BEGIN + 700]
    for tokens, heard in [
        (OVER_ALL, scores(SENTENCE)),
        (OVER_ALL, scores()),
        (apart, scores(WORD, SENTENCE, LAST)),
    ]:
        assert cut_at_left_out(tokens, window(heard), LEVELS, BEGIN, refuse) is None


def test_a_window_that_is_cut_is_asked_about_up_to_there():
    cut = WindowCut(0, 520, 700)
    heard = window(scores(WORD, SENTENCE, LAST), cut)
    assert cut_at_left_out(OVER_ALL, heard, LEVELS, BEGIN, lambda: [80, *SAID]) is None
    assert cut_at_left_out(OVER_ALL, heard, LEVELS, BEGIN, lambda: SAID) == FIRST


def test_a_lone_word_behind_the_text_is_read_next():
    tokens, cut = read_on([BEGIN, 7, 8, BEGIN + 505], window(scores((50, 500), LAST)), LEVELS, BEGIN)
    assert cut == WindowCut(0, 720, 580)
    assert split(tokens)[1] == 2 * 580


@pytest.mark.parametrize("heard", [scores((0, 40), (200, 500)), scores((200, 500), (1470, 1500))])
def test_what_a_window_begins_or_ends_with_is_no_lone_word(heard: NDArray[np.float32]):
    """It may have been read before, or goes on in the next window."""
    tokens = [BEGIN, 7, BEGIN + 500]
    whole = SteeredWindow(torch.from_numpy(heard), torch.tensor(Verdict.SPEECH))
    assert read_on(tokens, whole, LEVELS, BEGIN).tokens == tokens


@pytest.mark.parametrize(
    ("text", "before", "heard", "cut", "misled"),
    [
        ("to the station", "We go to the station.", (0, 400), None, True),  # too few words for 8 s
        ("to the station", "We go to the station.", (0, 250), None, False),  # it may have been said again
        ("to the station", "We go to the station.", (0, 40), WindowCut(0, 60, 200), True),
        ("Yes.", "Yes.", (0, 40), WindowCut(0, 60, 200), False),
        ("Yes.", "Yes.", (0, 400), None, True),
        ("to the harbor", "We go to the station.", (0, 400), None, False),
        ("", "We go to the station.", (0, 400), None, False),
        (
            "We all go to the big station.",
            "We go to the station.",
            (0, 40),
            WindowCut(0, 60, 200),
            True,
        ),  # in 0.8 s
        ("We all go to the big station.", "We go to the station.", (0, 60), WindowCut(0, 80, 200), False),
        ("We all go to the big station.", "", (0, 40), WindowCut(0, 60, 200), False),
        ("We all go to the big station.", "We go to the station.", (0, 40), None, False),
    ],
)
def test_a_text_made_of_that_before_is_told_from_what_is_said(
    text: str, before: str, heard: tuple[int, int], cut: WindowCut | None, misled: bool
):
    answer = Answer(text, avg_logprob=-0.3, no_speech_prob=0.0, prompt=before)
    assert misled_by_text_before(answer, window(scores(heard), cut), LEVELS) is misled
