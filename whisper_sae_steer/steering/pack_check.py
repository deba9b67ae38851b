"""What a steering pack must hold: checked when one is read, and before one is written.

A pack with a right hash is still wrong if what made it was: a NaN in one threshold, or scores averaged over
more frames than there are, would silence speech without a word. Errors name the field, not the file.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from ..errors import PackError

T = TypeVar("T")

LARGEST = torch.finfo(torch.float16).max
"""size of any number, and of the edit: models run in half precision, too"""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES: Mapping[str, tuple[int | str, ...]] = {
    "gate.ids": ("G",),
    "gate.rows": ("G", "d"),
    "gate.bias": ("G",),
    "gate.threshold": ("G",),
    "gate_weight": ("G",),
    "gate_bias": (),
    "steer.ids": ("S",),
    "steer.rows": ("S", "d"),
    "steer.bias": ("S",),
    "steer.threshold": ("S",),
    "directions": ("F", "d"),
    "coefficients": ("F",),
    "probe": ("d",),
    "pooled.centre": ("d",),
    "pooled.scale": ("d",),
    "pooled.key": ("H", "d"),
    "pooled.value": ("H", "d"),
    "pooled.offset": (),
    "pooled.shut": (),
    "pooled.full": (),
    "pooled.spare": (3, "d"),
}
"""of each tensor; what goes by one letter has one size"""


def read_fields(kind: type[T], saved: object, may_lack: Collection[str] = (), name: str = "metadata") -> T:
    """A dataclass from a JSON object whose values are of the kinds that its fields declare; else PackError.

    Whole numbers may declare a ``range``. Only fields in ``may_lack`` may be left to their defaults; what
    has no field is ignored.
    """
    if not isinstance(saved, dict):
        raise PackError(f"{name} must be an object, not {saved!r:.60}")
    content, hints = cast(dict[str, Any], saved), get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for field in fields(cast(Any, kind)):
        inside = field.name if name == "metadata" else f"{name}.{field.name}"
        if field.name in content:
            found[field.name] = _taken(content[field.name], hints[field.name], inside)
        elif field.name not in may_lack or field.default is field.default_factory is MISSING:
            raise PackError(f"{inside} is missing")
    return kind(**found)


def _taken(value: Any, kind: Any, name: str) -> Any:
    """A JSON value as a field declares it: PackError unless it fits."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _taken(value, parts[0], name)
    if is_dataclass(kind):
        return read_fields(cast(type[Any], kind), value, name=name)
    if origin is tuple:
        any_number = parts[-1] is Ellipsis
        if isinstance(value, list) and (any_number or len(cast(list[Any], value)) == len(parts)):
            values = enumerate(cast(list[Any], value))
            return tuple(_taken(v, parts[0 if any_number else i], f"{name}[{i}]") for i, v in values)
        fits, wanted = False, "a list" if any_number else f"a list of {len(parts)}"
    elif origin is Literal:
        fits, wanted = value in parts, f"one of {', '.join(parts)}"
    elif origin is Annotated:
        allowed: range = parts[1]
        fits = type(value) is int and value in allowed
        wanted = f"a whole number from {allowed[0]} to {allowed[-1]}"
    elif origin is Mapping:
        fits, wanted = isinstance(value, dict) and _is_finite(value), "an object of text and finite numbers"
    elif kind is float:
        fits = type(value) in (int, float) and abs(value) <= LARGEST
        wanted = f"a number from {-LARGEST:g} to {LARGEST:g}"
    else:
        fits, wanted = type(value) is kind, {str: "text", bool: "true or false"}[kind]
    if not fits:
        raise PackError(f"{name} must be {wanted}, not {value!r:.60}")
    return value


def _is_finite(value: object) -> bool:
    """Whether JSON proper, which knows neither NaN nor infinity, can say it."""
    try:
        return bool(json.dumps(value, allow_nan=False))
    except (ValueError, RecursionError):
        return False


def check_tensors(tensors: Mapping[str, Tensor], d_in: int, alpha_unit: float, suppresses: bool) -> None:
    """PackError unless all tensors are there, finite, and of shapes and dtypes that go together.

    Older packs have no ``probe``, or nothing that is ``pooled``.
    """
    groups = {name.partition(".")[0] for name in tensors}
    sizes: dict[int | str, int] = {"d": d_in, 3: 3}
    for name, shape in SHAPES.items():
        if name in tensors:
            _check_shape(name, tensors[name], shape, sizes)
            _check_values(name, tensors[name])
        elif name.partition(".")[0] in groups or not name.startswith(("probe", "pooled")):
            raise PackError(f"{name} is missing")
    if not sizes["G"] or not sizes["F"]:
        raise PackError(f"{'directions' if sizes['G'] else 'gate.rows'} must not be empty")
    if suppresses and sizes["S"] != sizes["F"]:
        raise PackError(f"steer.rows must be as many as directions, {sizes['F']}, not {sizes['S']}")
    edits = tensors["directions"].double() * tensors["coefficients"].double()[:, None] * alpha_unit
    if edits.abs().max() > LARGEST or edits.sum(0).abs().max() > LARGEST:
        raise PackError(f"directions times coefficients and alpha_unit must be at most {LARGEST:g}")
    if "pooled" in groups and not (tensors["pooled.scale"] > 0).all():
        raise PackError("pooled.scale must be above 0")
    if "pooled" in groups and not tensors["pooled.full"] < tensors["pooled.shut"]:
        raise PackError("pooled.full must be below pooled.shut")


def _check_shape(
    name: str, tensor: Tensor, shape: tuple[int | str, ...], sizes: dict[int | str, int]
) -> None:
    """Of a letter that has no size yet, it takes the tensor's."""
    found = tuple(tensor.shape)
    wanted = shape
    if len(found) == len(shape):
        wanted = tuple(sizes.setdefault(letter, n) for letter, n in zip(shape, found, strict=True))
    if found != wanted:
        raise PackError(f"{name} must be of shape [{', '.join(map(str, wanted))}], not {list(found)}")


def _check_values(name: str, tensor: Tensor) -> None:
    if name.endswith(".ids"):
        if tensor.dtype != torch.int64 or (tensor < 0).any():
            raise PackError(f"{name} must hold numbers of features, as int64")
    elif tensor.dtype not in FLOATS:
        raise PackError(f"{name} must hold floats, not {tensor.dtype}")
    elif not (tensor.abs() <= LARGEST).all():
        raise PackError(f"{name} must hold numbers from {-LARGEST:g} to {LARGEST:g}")
