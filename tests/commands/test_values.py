"""Options take what makes sense, and say what that is before anything is loaded."""

import argparse
from collections.abc import Callable
from typing import Any

import ctranslate2
import pytest
from whisper.tokenizer import get_tokenizer

from whisper_sae_steer.commands import values


@pytest.mark.parametrize(
    ("read", "taken", "refused"),
    [
        (values.whole(1), {"1": 1, "2000": 2000}, ["0", "-1", "1.5", "x", ""]),
        (values.whole(0, 9), {"0": 0, "9": 9}, ["-1", "10", "9" * 5000]),
        (values.or_none(values.whole(1)), {"None": None, "1": 1}, ["0", "none"]),
        (values.number, {"-1e9": -1e9}, ["nan", "inf", "1,5"]),
        (values.not_negative, {"0": 0.0}, ["-0.1", "nan", "inf"]),
        (values.above_zero, {"1e-3": 1e-3}, ["0", "nan", "inf"]),
        (values.share, {"0": 0.0, "1": 1.0}, ["-0.1", "1.1", "nan"]),
        (values.risk, {"1": 1.0, "0.5": 0.5}, ["0", "1.1", "nan"]),
        (values.temperature_step, {"0.01": 0.01, "2": 2.0}, ["0", "1e-9", "-1", "inf"]),
        (values.alpha, {"0.5": 0.5}, ["nan", "x"]),
        (values.device, {"cpu": "cpu", "cuda:1": "cuda:1"}, ["abacus", "cpu:x", "auto", ""]),
        (values.device_or_auto, {"auto": "auto", "cuda": "cuda"}, ["abacus"]),
        (values.token_ids, {"-1": "-1", "1,2,51863": "1,2,51863"}, ["-2", "51864", "a", "1,", ""]),
        (
            values.spans,
            {text: text for text in ("", "0", "5", "1,2", "1,2.5,4", "50,60,10,20")},
            ["5,1", "1,1", "1,2,4,3", "-1,2", "a", "nan", "1,inf", "1,"],
        ),
    ],
)
def test_values(read: Callable[[str], Any], taken: dict[str, Any], refused: list[str]) -> None:
    assert {text: read(text) for text in taken} == taken
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)


def test_every_whisper_has_the_token_ids_that_are_taken() -> None:
    smallest = get_tokenizer(multilingual=False)
    assert smallest.timestamp_begin + 1501 == values.SHARED_TOKENS  # timestamps from 0 to 30 s come last


def test_compute_types_are_ctranslate2s() -> None:
    assert ctranslate2.get_supported_compute_types("cpu") < set(values.COMPUTE_TYPES)
