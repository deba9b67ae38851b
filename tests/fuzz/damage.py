"""Ways to spoil bytes and JSON."""

import copy
import json
import math
import random
from typing import Any

NUMBERS = (0, 1, -1, 2, 3, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NASTY: tuple[Any, ...] = (
    *(None, True, False, *NUMBERS, 2**70, 10**400, -0.0, 0.5, 1e-320, 1e38, -1e308, math.nan, math.inf),
    *("", " ", "x", "\0", "é\u2028\ud800", "../../etc/passwd", "nan", "1e999", "%s%n", "a" * 10_000),
    *([], {}, [[]], [None], {"": None}),
)
"""values that a field may not expect"""


def spoiled(data: bytes, dice: random.Random) -> bytes:
    """Bytes with a few faults of any kind; often in the head, where sizes stand."""
    spoilt = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 5, 20))):
        _spoil(spoilt, dice)
    return bytes(spoilt)


def _spoil(data: bytearray, dice: random.Random) -> None:
    end = len(data) if dice.random() < 0.5 else min(len(data), 256)
    begin = dice.randrange(end + 1)
    length = dice.randrange(dice.choice((2, 9, 100, 4000)))
    match dice.randrange(8):
        case 0:
            del data[begin:]
        case 1:
            del data[begin : begin + length]
        case 2:
            data[begin : begin + length] = dice.randbytes(length)
        case 3:
            data[begin:begin] = dice.randbytes(length)
        case 4:
            data[begin : begin + length] = bytes(min(length, len(data) - begin))
        case 5:
            size = dice.choice((1, 2, 4, 8))
            number = dice.choice(NUMBERS) % 2 ** (8 * size)
            data[begin : begin + size] = number.to_bytes(size, dice.choice(("little", "big")))
        case 6:
            piece = data[begin : begin + length]
            place = dice.randrange(len(data) + 1)
            data[place:place] = piece
        case _:
            if data:
                data[min(begin, len(data) - 1)] ^= 1 << dice.randrange(8)


def as_json(value: Any) -> str:
    """In ASCII; brackets where it is nested too deeply to be written."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 100_000


def spoiled_json(value: Any, dice: random.Random) -> Any:
    """A JSON value in which one place, at any depth, is lost or holds another value."""
    spoilt = [copy.deepcopy(value)]
    place: Any = spoilt
    key: Any = 0
    while isinstance(place[key], dict | list) and place[key] and dice.random() < 0.85:
        place = place[key]
        key = dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))
    match dice.randrange(6) if place is not spoilt else 1:
        case 0:
            del place[key]
        case 2 if isinstance(place, dict):
            place[dice.choice(("", "type", "x" * 300, "metadata"))] = place[key]
        case 3:
            for _ in range(dice.choice((3, 2000))):
                place[key] = [place[key]]
        case _:
            place[key] = dice.choice(NASTY)
    return spoilt[0]
