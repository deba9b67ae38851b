import re

import pytest

from tests.support.parrots import segment
from whisper_sae_steer.bench.peers.filters import PHRASES, drop_phrases, guard


def test_phrases_go_only_where_they_are_the_whole_segment() -> None:
    texts = [" Thank you.", " Thank you. Thank you! THANK YOU", " Thank you, Mr. Smith.", " I'm sorry…", ""]
    kept = drop_phrases([segment(text) for text in texts])
    assert [s["text"] for s in kept] == [" Thank you, Mr. Smith.", ""]
    assert all(re.fullmatch(r"[^\W_]+( [^\W_]+)*", phrase) for phrase in PHRASES)


def test_whisper_guard_drops_what_looks_silent_and_keeps_speech() -> None:
    pytest.importorskip("whisper_guard")
    speech = segment(" The stale smell of old beer lingers.")
    assert [s["text"] for s in guard([speech])] == [speech["text"]]
    assert guard([segment(" Thank you.", no_speech_prob=0.9)]) == []
    assert guard([]) == []
