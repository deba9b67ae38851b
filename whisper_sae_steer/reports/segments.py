"""The segments of a transcript as dicts, the same from every back end."""

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
