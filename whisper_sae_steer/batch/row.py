"""The row of a clip, on its way from a worker to the results."""

from typing import Any, TypedDict


class Row(TypedDict):
    """What is known of one clip; `text` is None if and only if `error` says why."""

    path: str
    seconds: float | None
    language: str | None
    text: str | None
    segments: list[dict[str, Any]]
    error: str | None
    wall_seconds: float | None


def failed(key: str, error: str | None, seconds: float | None = None) -> Row:
    """The row of a clip that gave no text."""
    return Row(
        path=key, seconds=seconds, language=None, text=None, segments=[], error=error, wall_seconds=None
    )
