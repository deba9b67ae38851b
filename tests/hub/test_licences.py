"""Which licence a pack may be shared under, by those of the recordings it was made from."""

import pytest

from whisper_sae_steer.errors import HubError
from whisper_sae_steer.hub.licences import licence_of


def data(*licences: str, **more: object) -> dict[str, object]:
    return {"clips": 3, "licences": [f"source {i}: {text}" for i, text in enumerate(licences)], **more}


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["CC0 1.0"], "cc0-1.0"),
        (["public domain (LJSpeech 1.1)"], "cc0-1.0"),
        (["CC0 1.0", "MIT (repo)"], "mit"),
        (["Apache-2.0 (repo)", "CC0 1.0"], "apache-2.0"),
        (["CC BY 4.0 (LibriSpeech)", "Apache-2.0 (repo)"], "cc-by-4.0"),
        (["CC BY 3.0", "CC BY 4.0"], "cc-by-4.0"),
        (["CC BY 3.0"], "cc-by-3.0"),
        (["CC BY-SA 3.0 (Digium core sounds)", "CC BY 4.0"], "cc-by-sa-3.0"),
        (["CC BY-SA 4.0", "CC BY-SA 3.0/GPL/PD per-file"], "cc-by-sa-4.0"),
        (["cc-by-sa-3.0"], "cc-by-sa-3.0"),
        (["CC0/CC BY (SOUNDS_LICENSING.md)"], "cc-by-4.0"),
        (["GPL-2+/CC BY-SA per kit"], "cc-by-sa-4.0"),
        (["repo MIT; sounds CC0/Pixabay licence"], "mit"),
    ],
)
def test_the_most_demanding_licence_counts(licences: list[str], expected: str):
    assert licence_of(data(*licences), "it") == expected


@pytest.mark.parametrize(
    "licence",
    [
        "GPL-2+",
        "ESC-50 CC BY-NC 3.0",
        "CC BY-NC-SA 4.0",
        "CC BY-ND 4.0",
        "CC0, non-commercial use only",
        "all mine",
    ],
)
def test_what_may_not_be_passed_on_is_named(licence: str):
    with pytest.raises(HubError, match=r"source 1: .*can't be passed on freely; pass --license") as caught:
        licence_of(data("CC0 1.0", licence), "the pack x")
    assert licence in str(caught.value)


def test_words_in_the_name_of_a_source_say_nothing():
    assert licence_of({"clips": 1, "licences": ["github:nc/GPL: CC0 1.0"]}, "it") == "cc0-1.0"


def test_the_pack_below_counts_too():
    below = data("CC BY-SA 4.0", built_on=None)
    assert licence_of(data("CC0 1.0", built_on=below), "it") == "cc-by-sa-4.0"
    with pytest.raises(HubError, match=r"GPL-2\+"):
        licence_of(data("CC0 1.0", built_on=data("GPL-2+")), "it")


def test_recordings_without_licences():
    assert licence_of({"clips": 0, "licences": [], "synthetic": 60}, "it") == "cc0-1.0"
    for unsaid in ({}, {"clips": 4}, {"clips": 4, "licences": []}):
        with pytest.raises(
            HubError, match="it doesn't say which licences its recordings have: pass --license"
        ):
            licence_of(unsaid, "it")
