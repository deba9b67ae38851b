"""Values of options: each a ``type`` for argparse, which says what is allowed before anything is loaded."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar, get_args

from ..errors import AlphaError

T = TypeVar("T")
Reader = Callable[[str], T]
"""Raises argparse.ArgumentTypeError for a text that is no such value."""

Device = Literal["auto", "cpu", "cuda"]
"""where CTranslate2 runs; auto: cuda if there is one"""
ComputeType = Literal[
    "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16",
    "int16", "float16", "bfloat16", "float32",
]  # fmt: skip
"""CTranslate2's; default: that of the files, as far as the device can"""
COMPUTE_TYPES: tuple[ComputeType, ...] = get_args(ComputeType)
MOST_THREADS = 1024
"""more than any machine has cores; far more can't be started"""
MOST_CANDIDATES = 100
"""beams or samples, far beyond any use: each takes memory of its own"""
LEAST_STEP = 0.01
"""from a temperature to the next; a window may be decoded at each"""
SHARED_TOKENS = 51_864
"""tokens of the smallest vocabulary; larger ones end with one or two times more"""


def _reader(kind: Callable[[str], T], allows: Callable[[T], bool], what: str) -> Reader[T]:
    def read(text: str) -> T:
        with suppress(ValueError, argparse.ArgumentTypeError):
            value = kind(text)
            if allows(value):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}")

    return read


number = _reader(float, math.isfinite, "finite number")
not_negative = _reader(float, lambda value: 0 <= value < math.inf, "finite number of 0 or more")
above_zero = _reader(float, lambda value: 0 < value < math.inf, "finite number above 0")
share = _reader(float, lambda value: 0 <= value <= 1, "number from 0 to 1")
risk = _reader(float, lambda value: 0 < value <= 1, "number above 0 and at most 1")
temperature_step = _reader(
    float, lambda value: LEAST_STEP <= value < math.inf, f"finite number of {LEAST_STEP} or more"
)


def whole(at_least: int, at_most: int | None = None) -> Reader[int]:
    """Reads whole numbers of a range, both ends included."""
    allowed = f"of {at_least} or more" if at_most is None else f"from {at_least} to {at_most}"
    end = math.inf if at_most is None else at_most
    return _reader(int, lambda value: at_least <= value <= end, f"whole number {allowed}")


threads = whole(0, MOST_THREADS)
candidates = whole(1, MOST_CANDIDATES)


def or_none(read: Reader[T]) -> Reader[T | None]:
    """Reads ``None``, as openai's command takes it, or what ``read`` does."""

    def read_or_none(text: str) -> T | None:
        if text == "None":
            return None
        try:
            return read(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}; None is taken as well") from None

    return read_or_none


def boolean(text: str) -> bool:
    """`True` or `False`, as openai's command takes them."""
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text == "True"


def alpha(text: str) -> float:
    """A strength of steering."""
    from ..steering.operator import check_alpha  # brings torch: not for --help

    try:
        return check_alpha(number(text))
    except AlphaError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def device(text: str) -> str:
    """A device in torch's words."""
    import torch  # not for --help

    try:
        torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; use cpu, cuda or cuda:N") from None
    return text


def device_or_auto(text: str) -> str:
    """A device in torch's words, or `auto`."""
    return text if text == "auto" else device(text)


def _are_token_ids(text: str) -> bool:
    return all(-1 <= int(part) < SHARED_TOKENS for part in text.split(","))


token_ids = _reader(
    str,
    _are_token_ids,
    f"comma-separated list of token ids; they are from 0 to {SHARED_TOKENS - 1}, or -1",
)
"""Comma-separated ids of tokens that every Whisper has, kept as text for openai's own parser.

-1 stands for special characters."""


def _are_spans(text: str) -> bool:
    times = [not_negative(part) for part in text.split(",")] if text else []
    return all(start < end for start, end in zip(times[::2], times[1::2], strict=False))


spans = _reader(str, _are_spans, "start,end,start,end,… in seconds, each end after its start")
"""Comma-separated starts and ends in seconds, kept as text for the libraries' own parsers.

The last end may be left out; an empty text is the whole recording."""


def language(text: str) -> str:
    """A language code or a capitalised English name, as openai's command takes them."""
    from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE  # brings torch: not for --help

    if text not in LANGUAGES and text not in {name.title() for name in TO_LANGUAGE_CODE}:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no language; use a code such as en or a name such as English"
        )
    return text
