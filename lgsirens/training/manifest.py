"""What a run over many files has done so far: JSON lines in the folder of its outputs.

`manifest.jsonl` begins with a line on the run; each further line is of one input. While files are encoded every rank
adds lines to a part of its own, `manifest-RANK.jsonl`, which no other rank writes. When the run ends, or the next one
begins, the first rank puts the parts into `manifest.jsonl`, replacing it as a whole, and deletes them.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgsirens.errors import ConfigError, FileFormatError, OutputError, RunError
from lgsirens.system.output import replacing, settle
from lgsirens.system.program import __version__
from lgsirens.system.schema import from_plain, option, to_plain

_NAME, _PARTS = "manifest.jsonl", "manifest-*.jsonl"
_VERSION = 1


@dataclass(frozen=True)
class FileRecord:
    """What became of one input.

    Attributes:
        input: its path below the folder of the inputs.
        output: its path below the folder of the outputs.
        status: "done", "failed", or "started": under way, or interrupted.
        size: bytes of the input when it was read.
        modified: when the input had been changed last, in nanoseconds.
        psnr: dB; None if it is exact.
        bytes: of the output that is there, if this run, or one that it goes on with, has written one.
        seconds: of reading, fitting and writing.
        error: why it failed, in one line.
    """

    input: str
    output: str
    status: str = option(choices=("done", "failed", "started"))
    size: int | None = None
    modified: int | None = None
    psnr: float | None = None
    bytes: int | None = None
    seconds: float | None = None
    error: str | None = None


class Manifest:
    """The records of a folder, by input.

    Args:
        folder: of the outputs.
        options: of the run, plain.
        resume: go on with the run that the folder has.
        overwrite: begin anew where the folder has a run.

    Raises:
        OutputError: the folder has a run, which is to be neither gone on with nor replaced.
        ConfigError: it is one with other options.
        FileFormatError: the manifest is damaged.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
        self._folder, self._options = folder, json.loads(json.dumps(options))
        self.records: dict[str, FileRecord] = {}
        there = (folder / _NAME).exists()
        if there and not (resume or overwrite):
            raise OutputError(f"{folder}: holds a run already; resume it, overwrite it or choose another folder")
        if there and resume:
            self._check(self._read(folder / _NAME))
            for part in sorted(folder.glob(_PARTS)):
                self._take(part, _lines(part))

    def settle(self) -> None:
        """Write all records, those in parts too, as one file, and delete the parts."""
        parts = sorted(self._folder.glob(_PARTS))
        head = {"lgsirens_manifest": _VERSION, "version": __version__, "options": self._options}
        lines = [head, *(to_plain(self.records[name]) for name in sorted(self.records))]
        with replacing(self._folder / _NAME, overwrite=True) as temporary:
            temporary.write_bytes(b"".join(map(_line, lines)))
        for part in parts:
            part.unlink(missing_ok=True)

    @contextmanager
    def part(self, rank: int) -> Iterator["Part"]:
        """The part of a rank, to add to."""
        path = self._folder / _PARTS.replace("*", str(rank))
        with _told(path):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        with suppress(OSError):  # some platforms open no folder
            settle(self._folder)
        try:
            yield Part(path, file)
        finally:
            os.close(file)

    def _read(self, path: Path) -> Mapping[str, Any]:
        """Take the records of a whole manifest; returns its first line."""
        head, *lines = [*_lines(path)] or [None]
        if not isinstance(head, dict) or head.get("lgsirens_manifest") != _VERSION:
            raise FileFormatError(f"{path}: is no manifest of this version; overwrite it or choose another folder")
        self._take(path, lines)
        return head

    def _take(self, path: Path, lines: Iterable[Any]) -> None:
        try:
            records = [from_plain(FileRecord, line) for line in lines]
        except ConfigError as error:
            raise FileFormatError(f"{path}: damaged: {error}; overwrite it or choose another folder") from None
        self.records |= {record.input: record for record in records}

    def _check(self, head: Mapping[str, Any]) -> None:
        before = head.get("options")
        before = before if isinstance(before, dict) else {}
        for name in sorted(before.keys() | self._options.keys()):
            if (was := before.get(name)) != (now := self._options.get(name)):
                what = f"{self._folder} was begun with {json.dumps(was)}, not {json.dumps(now)}"
                raise ConfigError(f"cannot change: {what}; give the same, or overwrite", name)


class Part:
    """A file of records that grows line by line.

    Attributes:
        added: the records, by input.
    """

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file
        self.added: dict[str, FileRecord] = {}

    def add(self, record: FileRecord) -> None:
        """Keep a record; whoever reads meanwhile sees whole lines, but for the last one perhaps.

        Of one that is begun it waits for the disk: an output without a record would be taken for somebody else's.
        """
        self.added[record.input] = record
        with _told(self._path):
            os.write(self._file, _line(to_plain(record)))
            if record.status == "started":
                settle(self._path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}; free space or choose another folder") from error


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _lines(path: Path) -> Iterator[Any]:
    """What the lines of a file say; a last line that is not whole was being written when its process was killed."""
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            yield json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: damaged: {error}; overwrite it or choose another folder") from error
