"""What only some commands need: they look for it before they work."""

from collections.abc import Mapping
from importlib.util import find_spec

from ..errors import MissingExtraError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "batch": ("pyarrow", "filelock", "typing_extensions"),
    "ray": ("ray", "pyarrow", "filelock", "typing_extensions"),
    "hf": ("transformers",),
    "serve": (
        *("fastapi", "starlette", "uvicorn", "pydantic", "python_multipart"),
        *("h11", "websockets", "prometheus_client", "structlog", "wyoming"),
    ),
}
"""modules of the extras in ``pyproject.toml``"""


def require(what: str, extra: str) -> None:
    """MissingExtraError, which says what to install, if ``what`` lacks a module of its extra."""
    if problem := lacking(extra, what):
        raise MissingExtraError(problem)


def lacking(extra: str, what: str | None = None) -> str | None:
    """What ``what`` (default: the extra's own name) needs and how to install it; None if all is there."""
    modules = [name for name in EXTRAS[extra] if find_spec(name) is None]
    install = f'pip install "whisper-sae-steer[{extra}]"'
    return f"{what or extra} needs {', '.join(modules)}: {install}" if modules else None
