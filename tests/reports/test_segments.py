import json
from typing import Any

import numpy as np
from faster_whisper.transcribe import Segment, Word

from whisper_sae_steer.reports.segments import segment_dict

END: Any = np.float32(1)


def segment(words: list[Word] | None = None, temperature: float | None = 0.0) -> Segment:
    return Segment(7, 0, 0.5, END, " hi", [1], -0.1, 1.0, 0.1, words, temperature)


def test_a_segment_becomes_openais_dict() -> None:
    made = segment_dict(segment([Word(0.5, END, " hi", 0.5)]), 3)
    assert json.loads(json.dumps(made)) == made
    assert made == {
        "id": 3, "seek": 0, "start": 0.5, "end": 1.0, "text": " hi", "tokens": [1],
        "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.1, "temperature": 0.0,
        "words": [{"start": 0.5, "end": 1.0, "word": " hi", "probability": 0.5}],
    }  # fmt: skip


def test_words_are_left_out_where_none_were_asked_for() -> None:
    assert "words" not in segment_dict(segment(), 0)
    assert segment_dict(segment([]), 0)["words"] == []


def test_what_is_not_known_stays_none() -> None:
    assert segment_dict(segment(temperature=None), 0)["temperature"] is None
