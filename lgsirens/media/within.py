"""The signals within a folder and its sub-folders."""

import os
from pathlib import Path

from lgsirens.errors import SignalError
from lgsirens.media.formats import FORMATS, recognised
from lgsirens.system.console import note

_SUFFIXES = {suffix for form in FORMATS for suffix in form.suffixes} - {""}
_HEAD_BYTES = 4096


def signals_within(folder: Path, leaving_out: Path | None = None) -> tuple[list[Path], int]:
    """The files of a folder that hold signals, sub-folders included, sorted; and how many others there are.

    A file of a known suffix is taken for a signal, and any other by its content. Hidden files and folders are passed
    over; links are followed.

    Args:
        leaving_out: a folder that is passed over.

    Raises:
        SignalError: no such folder.
    """
    if not folder.is_dir():
        raise SignalError(f"{folder}: is no folder; name one that holds signals")
    found, others = [], 0
    seen = {os.path.realpath(leaving_out)} if leaving_out is not None else set()
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_say):
        real = os.path.realpath(where)
        if real in seen:  # links may go in circles
            folders.clear()
            continue
        seen.add(real)
        shown = [name for name in folders if not name.startswith(".")]
        arrays = [name for name in shown if Path(name).suffix.lower() in _SUFFIXES]  # some formats are folders
        found += [Path(where, name) for name in arrays]
        folders[:] = sorted(set(shown) - set(arrays))
        for name in names:
            path = Path(where, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in _SUFFIXES or _begins_as_signal(path):
                found.append(path)
            else:
                others += 1
    return sorted(found), others


def _begins_as_signal(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return recognised(file.read(_HEAD_BYTES)) is not None
    except OSError:
        return True  # it is named with what is wrong as it is read


def _say(error: OSError) -> None:
    note("%s: cannot be listed: %s; it is passed over", error.filename, error.strerror)
