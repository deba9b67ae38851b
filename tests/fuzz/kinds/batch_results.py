"""Parquet files of an earlier batch, damaged: read on with, or refused."""

import random
import tempfile
from functools import cache
from pathlib import Path

from tests.fuzz.damage import spoiled
from whisper_sae_steer.batch.parts import BatchResults
from whisper_sae_steer.batch.row import failed

SETTINGS = {"model": "some-model"}


def attempt(dice: random.Random, folder: Path) -> str:
    """Go on with it: rows that are whole are kept, and the file that is written holds them."""
    out = folder / "out.parquet"
    data = spoiled(_original(), dice)
    if dice.random() < 0.5:
        out.write_bytes(data)
    else:
        parts = folder / "out.parquet.parts"
        parts.mkdir()
        (parts / dice.choice(("00000001.parquet", "00000002.parquet", "9.parquet"))).write_bytes(data)
    with BatchResults(out, SETTINGS) as results:
        results.rows_of(["0.wav"])
        results.add(failed("new.wav", "no audio"))
        results.merge()
    assert "new.wav" in results.errors
    return "read"


@cache
def _original() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.parquet"
        with BatchResults(out, SETTINGS) as results:
            for number in range(3):
                results.add(failed(f"{number}.wav", "no audio"))
            results.merge()
        return out.read_bytes()
