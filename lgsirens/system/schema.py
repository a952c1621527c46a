"""Plain data (JSON, YAML) and words of a command line to dataclasses and back, strictly: no silent conversion, no
unknown key, no value outside of the range that its field declares.

A field made by `option` says all there is to say of it; the command line, its help and every check read it there.
"""

import dataclasses
import json
import math
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, TypeVar

from lgsirens.errors import ConfigError

T = TypeVar("T")

_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "least": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "at most"),
    "below": (operator.lt, "below"),
}
_TYPES = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a file name"}


class FieldError(ConfigError, ValueError):
    """A field, its `option`, and what is wrong with its value. In a file it is a ValueError like any other."""


@dataclasses.dataclass(frozen=True)
class Option:
    """What a field declares beside its type and its default.

    Attributes:
        help: one phrase.
        name: of the option; that of the field, or of the option that it is `like`.
        least, above, most, below: limits of a number, or of each number of a list.
        choices: the values that there are.
        shown: the default in words, where its value does not tell; a None most often means something.
        metavar: how help names the value.
        positional: on a command line it stands without its name.
        parse: text to value, where the type does not tell; raises ValueError.
    """

    help: str = ""
    name: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    shown: str = ""
    metavar: str | None = None
    positional: bool = False
    parse: Callable[[str], Any] | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise FieldError if a value (None passes) is none of the choices or beyond a limit."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            known = ", ".join(map(str, self.choices))
            raise FieldError(f"{shortened(value)}: is unknown; choose one of {known}", name)
        entries = value if isinstance(value, list | tuple) else (value,)
        for limit, (holds, words) in _LIMITS.items():
            bound = getattr(self, limit)
            if bound is not None and not all(holds(entry, bound) for entry in entries):
                raise FieldError(f"{','.join(map(shortened, entries))}: must be {words} {bound}", name)

    def text(self, default: Any) -> str:
        """The help with the default."""
        if default is dataclasses.MISSING:
            return self.help
        return f"{self.help} (default: {self.shown or default})"


def option(default: Any = dataclasses.MISSING, like: Option | None = None, **declared: Any) -> Any:
    """A field of a dataclass with what it declares; `like` another one, where it is not said again."""
    base = dataclasses.replace(like or Option(), shown="")
    return dataclasses.field(default=default, metadata={"option": dataclasses.replace(base, **declared)})


def declared(cls: Any) -> dict[str, Option]:
    """What the fields of a dataclass declare; those that declare nothing are left out."""
    rules = {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}
    return {name: dataclasses.replace(rule, name=rule.name or name) for name, rule in rules.items()}


def check(instance: Any) -> None:
    """Raise ConfigError if a field that declares anything is of another type or out of its range."""
    hints = typing.get_type_hints(type(instance))
    for name, rule in declared(instance).items():
        rule.check(name, convert(hints[name], getattr(instance, name), name))


def from_plain(cls: type[T], data: Any, where: str = "") -> T:
    """Build a dataclass from a mapping.

    Fields may be int, float, str, bool, None, paths, lists, tuples, `dict[str, Any]`, dataclasses, and unions with
    None. An integer passes for a float; nothing else is converted.

    Raises:
        FieldError: names the field, what was found and what was expected.
    """
    if not isinstance(data, Mapping):
        raise FieldError(f"is {shortened(data)}, expected a mapping", where or cls.__name__)
    hints, rules = typing.get_type_hints(cls), declared(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise FieldError(f"is not known; known are {', '.join(fields)}", f"{where}{key}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = convert(hints[name], data[name], f"{where}{name}")
            if name in rules:
                rules[name].check(f"{where}{name}", values[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise FieldError("is missing", f"{where}{name}")
    return cls(**values)


def to_plain(value: Any) -> Any:
    """Dataclasses to dicts and tuples to lists, recursively."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_text(hint: Any, text: str) -> Any:
    """A value of the type that a hint names, as words of a command line spell it: 16,16 and 16 16 are lists too.

    Raises:
        ValueError, RecursionError: they spell none.
    """
    kind = bare(hint)
    if kind in (str, Path):
        if kind is Path and not text:  # which Path takes for the current folder
            raise ValueError
        return Path(os.path.expanduser(text)) if kind is Path else text  # quoted, a shell leaves ~ as it is
    text = text.strip()
    if typing.get_origin(kind) in (list, tuple) and not text.startswith("["):
        entry = typing.get_args(kind)[0]
        return convert(kind, [from_text(entry, part) for part in re.split(r"\s*,\s*|\s+", text)], "")
    if "_" in text:  # 1_000 is Python's
        raise ValueError
    if kind in (int, float):
        return convert(kind, kind(text), "")
    return convert(kind, json.loads(text.lower()), "")


def bare(hint: Any) -> Any:
    """X of `X | None`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Union, types.UnionType) else hint


def expected(hint: Any) -> str:
    """A type in words."""
    return _TYPES.get(bare(hint), "a list")


def convert(hint: Any, value: Any, where: str) -> Any:
    """A value of the type that a hint names, as `from_plain` converts fields; `where` it stands, for the message.

    Raises:
        FieldError: it is of another type, or a float that is not finite.
    """
    if bare(hint) is not hint:
        return None if value is None else convert(bare(hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, f"{where}.")
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise FieldError(f"is {shortened(value)}, expected a list", where)
        entries = args if origin is tuple and args[-1] is not Ellipsis else args[:1] * len(value)
        if len(value) != len(entries):
            raise FieldError(f"has {len(value)} entries, expected {len(entries)}", where)
        return origin(convert(entry, item, where) for entry, item in zip(entries, value, strict=True))
    if origin is dict:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: convert(args[1], entry, f"{where}.{key}") for key, entry in value.items()}
        raise FieldError(f"is {shortened(value)}, expected a mapping", where)
    return value if hint is Any else _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise FieldError("is out of range", where) from None
    if not (isinstance(value, Path) if hint is Path else type(value) is hint):
        raise FieldError(f"is {shortened(value)}, expected {_TYPES[hint]}", where)
    if hint is float and not math.isfinite(value):
        raise FieldError(f"is {value!r}, expected a finite number", where)
    return value


def canonical_json(value: Any) -> str:
    """Plain data as the one JSON text that every program can write again (RFC 8785): keys sorted, no blanks, numbers as
    JavaScript prints them.

    >>> canonical_json({"b": 1e21, "a": [1.0, 0.5, None]})
    '{"a":[1,0.5,null],"b":1e+21}'

    Raises:
        ValueError: a number is not finite, a key is no text, or a text is no Unicode.
    """
    if isinstance(value, dict):
        # JavaScript compares UTF-16 code units.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical_json(key)}:{canonical_json(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical_json, value)) + "]"
    if isinstance(value, float):
        return _javascript_number(float(value))  # the float of NumPy prints itself otherwise
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    return text


def _javascript_number(value: float) -> str:
    """Number::toString of ECMA-262; Python finds the same shortest digits, but places the point otherwise."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    number = Decimal(repr(value)).normalize()
    power = number.adjusted()
    if value == 0:
        return "0"
    return f"{number:f}" if -7 < power < 21 else f"{number.scaleb(-power):f}e{power:+d}"
