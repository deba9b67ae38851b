"""The segments of a transcript as dicts, the same from every back end."""

import re
from typing import Any


def segment_dict(segment: Any, number: int) -> dict[str, Any]:
    """A faster-whisper segment as openai-whisper's dict, numbered from 0, ready for JSON."""
    fields: dict[str, Any] = vars(segment) | {"id": number}
    words = fields.pop("words")
    if words is not None:
        fields["words"] = [
            {name: v if name == "word" else float(v) for name, v in vars(word).items()} for word in words
        ]
    for name, value in fields.items():
        if name not in ("id", "seek", "text", "tokens", "words") and value is not None:
            fields[name] = float(value)
    return fields


def with_risk_marked(result: dict[str, Any], threshold: float) -> dict[str, Any]:
    """The result for subtitles: words that were made up with that probability and more are in italics."""

    def marked(word: dict[str, Any]) -> dict[str, Any]:
        if word.get("hallucination_risk", 0.0) < threshold:
            return word
        return word | {"word": re.sub(r"(\S.*\S|\S)", r"<i>\1</i>", word["word"], count=1)}

    segments = [
        segment | {"words": [marked(word) for word in segment["words"]]} if "words" in segment else segment
        for segment in result["segments"]
    ]
    return result | {"segments": segments}
