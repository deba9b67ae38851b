"""Words of a transcript against the reference: right, misheard, made up."""

import pytest

from benchmarks.steering.word_truth import Truth, judge

LETTERS = {"r": Truth.RIGHT, "m": Truth.MISHEARD, "x": Truth.MADE_UP, "-": None}


@pytest.mark.parametrize(
    ("written", "reference", "expected"),
    [
        ("The train leaves.", "the train leaves", "rrr"),
        ("The drain leaves", "the train leaves", "rmr"),
        ("The train leaves. Thank you.", "the train leaves", "rrrxx"),
        ("Thanks for watching!", "", "xxx"),
        ("Please subscribe to it", "oh", "xxxx"),
        ("some one came", "someone came", "mmr"),
        ("It's late", "it is late", "rr"),
        ("♪ The train ♪", "the train", "-rr-"),
        ("no no no", "no no no", "rrr"),
        ("a b c a b c a b c", "a b c", "xxxxxxrrr"),
    ],
)
def test_words_are_judged_by_what_the_reference_has_in_their_place(
    written: str, reference: str, expected: str
):
    found = judge(written.split(), reference, "en")
    if written.startswith("a b c"):  # any of the three may be the right one
        assert sorted(map(str, found)) == sorted(str(LETTERS[letter]) for letter in expected)
    else:
        assert found == [LETTERS[letter] for letter in expected]


def test_other_languages_are_normalised_without_english_rules():
    assert judge(["Das", "ist", "schön"], "das ist schön", "de") == [Truth.RIGHT] * 3
