"""The words of a published command, and the file of its `--config_path`, to flags: strictly, where Pyrallis, the
configuration library of the published code, converts what it can. Pyrallis prints the help.
"""

import difflib
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, List, TypeVar, get_args

from lgsirens.errors import ConfigError, MissingDependencyError
from lgsirens.paper.flags import AudioFlags, Flags, ImageFlags, VideoFlags, check_values
from lgsirens.system.config_file import read_settings
from lgsirens.system.schema import convert

F = TypeVar("F", bound=Flags)

_SCRIPTS: tuple[type[Flags], ...] = (ImageFlags, AudioFlags, VideoFlags)
_TYPES: dict[str, Any] = {f.name: f.type for cls in _SCRIPTS for f in fields(cls)}
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text, in quotes if it has blanks or reads as a number",
    List[int]: "whole numbers such as [16,16]",
    List[List[int]]: "lists of whole numbers such as [[0,7,7]]",
}


def given_values(argv: Sequence[str]) -> dict[str, Any]:
    """What a command line and the file of its `--config_path` give, by name; the command line overrides the file, a
    later flag an earlier one.

    Raises:
        ConfigError: a word that is no flag, a name that no script has, a file that cannot be read.
    """
    found: dict[str, Any] = {}
    for name, words in _split(argv):
        found[name] = " ".join(words) if name == "config_path" else _from_words(name, words)
    path = found.pop("config_path", None)
    settings = {} if path is None else read_settings(Path(path), "configs/ has examples")
    for name in settings:
        _check_name(name, f"{path}: ")
    return settings | found


def build(cls: type[F], values: Mapping[str, Any]) -> F:
    """Flags of one script from values by name.

    Raises:
        ConfigError: a flag that the script does not have, or a value of another type or out of range.
    """
    names = {field.name for field in fields(cls)}
    for name in values:
        if name not in names:
            owners = " and ".join(other.kind for other in _SCRIPTS if name in {f.name for f in fields(other)})
            raise ConfigError(f"--{name}: is a flag for kind {owners}, this is {cls.kind}; leave it out")
    flags = cls(**{name: _typed(name, value) for name, value in values.items()})
    check_values(flags)
    return flags


def print_help(cls: type[Flags]) -> None:
    """Every flag with its default.

    Raises:
        MissingDependencyError: Pyrallis is not installed.
    """
    try:
        pyrallis: Any = importlib.import_module("pyrallis")
    except ImportError:
        raise MissingDependencyError("--help needs Pyrallis: pip install 'lgsirens[scripts]'") from None
    with suppress(SystemExit):  # how argparse ends a help text
        pyrallis.parse(config_class=cls, args=["--help"])


def _split(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The flags in order, each with the words that follow it."""
    entries: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name != "config_path":
                _check_name(name, "--")
            entries.append((name, [value] if equals else []))
        elif not entries:
            raise ConfigError(f"{word!r}: is no flag; see --help")
        else:
            entries[-1][1].append(word)
    return entries


def _check_name(name: str, before: str) -> None:
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, 1)
        remedy = f"did you mean {near[0]}?" if near else "see --help"
        raise ConfigError(f"{before}{name}: is no flag; {remedy}")


def _from_words(name: str, words: list[str]) -> Any:
    """The value that the words after a flag spell; what is spelled wrong stays text, which no other type takes."""
    hint = _bare(_TYPES[name])
    if hint is bool and not words:
        return True
    text = " ".join(words)
    if not text or (hint is str and len(words) > 1):
        raise ConfigError(f"--{name} {text}: expected {_EXPECTED[hint]}")
    if hint is not _TYPES[name] and text.lower() in ("none", "null"):
        return None
    if hint is str:
        return text
    if hint is List[int] and not text.startswith("["):
        text = "[" + ",".join(re.split(r"\s*,\s*|\s+", text)) + "]"  # 16,16 and 16 16
    try:
        if hint is float and "_" not in text:
            return float(text)
        return json.loads(text.lower() if hint is bool else text)
    except (ValueError, RecursionError):
        return text


def _typed(name: str, value: Any) -> Any:
    try:
        return convert(_TYPES[name], value, name)
    except ValueError:
        shown = " ".join(str(value).split())
        raise ConfigError(f"--{name} {shown[:80]}: expected {_EXPECTED[_bare(_TYPES[name])]}") from None


def _bare(hint: Any) -> Any:
    """X of Optional[X]."""
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    return inner[0] if type(None) in get_args(hint) else hint
