import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper.transcribe import Segment, Word
from whisper.utils import get_writer

from whisper_sae_steer.reports.segments import segment_dict, with_risk_marked

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


def test_words_of_high_risk_are_in_italics_for_subtitles_only(tmp_path: Path):
    words = [
        {"start": 0.0, "end": 0.5, "word": " so", "probability": 0.9, "hallucination_risk": 0.1},
        {"start": 0.5, "end": 1.0, "word": " thank you", "probability": 0.4, "hallucination_risk": 0.7},
        {"start": 1.0, "end": 1.5, "word": " all", "probability": 0.4},
    ]
    result = {"text": "", "segments": [{"start": 0.0, "end": 1.5, "text": "", "words": words}, {"text": "x"}]}
    before = copy.deepcopy(result)
    marked = with_risk_marked(result, 0.5)
    assert [w["word"] for w in marked["segments"][0]["words"]] == [" so", " <i>thank you</i>", " all"]
    assert marked["segments"][1] == {"text": "x"}
    assert result == before
    assert with_risk_marked(result, 0.9) == before
    writer: Any = get_writer("srt", str(tmp_path))
    writer({"segments": marked["segments"][:1]}, "a.wav", {})
    assert "so <i>thank you</i> all" in (tmp_path / "a.srt").read_text(encoding="utf-8")
