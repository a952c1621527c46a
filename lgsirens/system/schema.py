"""Plain data (JSON, YAML) to frozen dataclasses and back, strictly: no silent conversion, no unknown key."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T")


def from_plain(cls: type[T], data: Any, where: str = "") -> T:
    """Build a dataclass from a mapping.

    Fields may be int, float, str, bool, None, lists, tuples, `dict[str, Any]`, dataclasses, and unions with None. An
    integer passes for a float; nothing else is converted.

    Raises:
        ValueError: names the field, what was found and what was expected.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where or cls.__name__} is {data!r}, expected a mapping")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ValueError(f"{where}{key} is not known; known are {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = convert(hints[name], data[name], f"{where}{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}{name} is missing")
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


def convert(hint: Any, value: Any, where: str) -> Any:
    """A value of the type that a hint names, as `from_plain` converts fields; `where` it stands, for the message.

    Raises:
        ValueError: it is of another type, or a float that is not finite.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = (arg for arg in args if arg is not type(None))
        return convert(inner, value, where)
    if origin is list:
        return list(_convert_tuple((args[0], ...), value, where))
    if origin is tuple:
        return _convert_tuple(args, value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, f"{where}.")
    if origin is dict or hint is dict:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            item = args[1] if args else Any
            return {key: convert(item, entry, f"{where}.{key}") for key, entry in value.items()}
        raise ValueError(f"{where} is {value!r}, expected a mapping")
    return value if hint is Any else _convert_scalar(hint, value, where)


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {value!r}, expected a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(convert(args[0], item, where) for item in value)
    if len(value) != len(args):
        raise ValueError(f"{where} has {len(value)} entries, expected {len(args)}")
    return tuple(convert(arg, item, where) for arg, item in zip(args, value, strict=True))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{where} is out of range") from None
    if type(value) is not hint:
        raise ValueError(f"{where} is {value!r}, expected {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where} is {value!r}, expected a finite number")
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
        return _javascript_number(value)
    return json.dumps(value, ensure_ascii=False)


def _javascript_number(value: float) -> str:
    """Number::toString of ECMA-262; Python finds the same shortest digits, but places the point otherwise."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    if 0 < point <= 21:
        text = text.ljust(point, "0")
        text = f"{text[:point]}.{text[point:]}".rstrip(".")
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        text = f"{text[0]}.{text[1:]}".rstrip(".") + f"e{point - 1:+d}"
    return f"{'-' * sign}{text}"
