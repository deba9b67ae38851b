"""The bench: how often text is written without speech, and what steering costs on speech."""

from .backends import Backend, FasterBackend, OpenAIBackend
from .report import summarise, write_report
from .runner import Row, read_rows, run

__all__ = [
    "Backend",
    "FasterBackend",
    "OpenAIBackend",
    "Row",
    "read_rows",
    "run",
    "summarise",
    "write_report",
]
