"""Command-line options out of a dataclass: a field's docstring is its help."""

import argparse
import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from itertools import product
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from .common import Parser
from .values import boolean

T = TypeVar("T")


def add_fields(
    parser: Parser, options: type[Any], skip: Sequence[str] = (), several: Sequence[str] = ()
) -> None:
    """Give a parser ``--name`` for each field of a dataclass of numbers, words, flags and tuples.

    Those named in ``several``, numbers or words, take more than one value: :func:`every_combination`.
    """
    hints, helps = get_type_hints(options), dict(_docstrings(options))
    for field in fields(options):
        if field.name in skip:
            continue
        assert field.default is not MISSING, "options have defaults"
        form = _form(hints[field.name], field.default)
        shown: dict[str, Any] = {} if form.get("action") else {"default": field.default}
        if field.name in several:
            form, shown = {**form, "nargs": "+"}, {"default": [field.default]}
        parser.add_argument(f"--{field.name}", help=helps.get(field.name, ""), **form, **shown)


def from_fields(args: argparse.Namespace, options: type[T]) -> T:
    """The dataclass that parsed arguments describe."""
    values = {field.name: getattr(args, field.name) for field in fields(options)}  # type: ignore[arg-type]
    return options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def every_combination(args: argparse.Namespace, options: type[T], several: Sequence[str]) -> list[T]:
    """The dataclass for each combination of the values that the fields in ``several`` were given."""
    given = [getattr(args, name) for name in several]
    one_each = [
        argparse.Namespace(**{**vars(args), **dict(zip(several, v, strict=True))}) for v in product(*given)
    ]
    return [from_fields(one, options) for one in one_each]


def check_choices(options: Any) -> None:
    """ConfigError if a field of a dataclass has none of the values that its Literal lists."""
    for name, hint in get_type_hints(type(options)).items():
        value, choices = getattr(options, name), get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _form(hint: Any, default: Any) -> dict[str, Any]:
    if hint is bool:  # what is on unless it is asked for takes True or False
        return {"type": boolean} if default else {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": get_args(hint)[0], "nargs": "+"}
    if isinstance(hint, UnionType):  # of a type with None, which argparse leaves as it is
        return {"type": get_args(hint)[0]}
    return {"type": hint}


def _docstrings(options: type[Any]) -> Iterator[tuple[str, str]]:
    """Each field with the string below it; Python keeps that in the source only."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = ast.literal_eval(below.value) if isinstance(below, ast.Expr) else ""
            yield field.target.id, " ".join(text.split()).replace("%", "%%")
