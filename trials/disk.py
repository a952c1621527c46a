"""What a power cut may leave: calls that changed a folder, replayed on a disk that may lose what was not waited for."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trials.faults import Call

Tree = dict[str, "bytes | Tree"]


class Disk:
    """Files and folders by number. A name in a folder is a change of the folder, not of the file.

    Attributes:
        files: number -> content.
        folders: number -> name -> number; 0 is the folder that is watched.
    """

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}
        self.folders: dict[int, dict[str, int]] = {0: {}}

    def tree(self, number: int = 0) -> Tree:
        """What is seen by its names."""
        entries = self.folders[number].items()
        return {name: self.tree(of) if of in self.folders else bytes(self.files.get(of, b"")) for name, of in entries}


@dataclass(frozen=True)
class Change:
    """A change of one file or folder, or (`make` is None) the wait until all of its changes are on the disk."""

    of: int
    make: Callable[[Disk, float], None] | None
    said: str


class Recording:
    """The changes that a command makes in a folder.

    Args:
        folder: as it is before; a resolved path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._start, self._now, self._next = folder, Disk(), Disk(), 1
        self._known = {folder.stat().st_ino: 0}  # inode -> number
        self.changes: list[Change] = []
        for path in sorted(folder.rglob("*")):
            number = self._known[path.stat().st_ino] = self._new()
            parent = self._number(path.parent)
            for disk in (self._start, self._now):
                if path.is_dir():
                    disk.folders[number] = {}
                else:
                    disk.files[number] = bytearray(path.read_bytes())
                disk.folders[parent][path.name] = number

    def replay(self, calls: Iterable[Call]) -> None:
        """Make the changes of the calls that were recorded since."""
        for call in calls:
            for change in self._changes(call):
                self.changes.append(change)
                if change.make is not None:
                    change.make(self._now, 1.0)

    @property
    def finished(self) -> Tree:
        """All that was done."""
        return self._now.tree()

    def after(self, calls: int, chosen: random.Random, keep: float, torn: float = 0.0) -> Tree:
        """What is left if the power fails after so many changes.

        Args:
            keep: the share of what was not waited for that is kept all the same.
            torn: of that, the share of writes that are kept by half.
        """
        done, disk, waited = self.changes[:calls], self._copy(), set()
        certain = []
        for change in reversed(done):
            if change.make is None:
                waited.add(change.of)
            certain.append(change.of in waited)
        for change, kept in zip(done, reversed(certain), strict=True):
            if change.make is not None and (kept or chosen.random() < keep):
                change.make(disk, 1.0 if kept or chosen.random() >= torn else 0.5)
        return disk.tree()

    def _copy(self) -> Disk:
        disk = Disk()
        disk.files = {number: bytearray(content) for number, content in self._start.files.items()}
        disk.folders = {number: dict(names) for number, names in self._start.folders.items()}
        return disk

    def _new(self) -> int:
        self._next += 1
        return self._next - 1

    def _number(self, path: Path) -> int:
        """Of a folder or file, by its present name."""
        number = 0
        for name in path.relative_to(self._folder).parts:
            number = self._now.folders[number][name]
        return number

    def _changes(self, call: Call) -> Iterator[Change]:
        path, said = Path(call.path), str(call)
        if call.what in ("create", "mkdir"):
            number = self._known[call.inode] = self._new()  # inodes are used again
            if call.what == "mkdir":
                self._start.folders[number] = {}  # a folder is one from the first, though it may have no name
                self._now.folders[number] = {}
            yield Change(self._number(path.parent), _named(self._number(path.parent), path.name, number), said)
        elif call.what in ("write", "size"):
            number = self._known[call.inode]
            yield Change(number, _written(number, call.offset, call.data if call.what == "write" else None), said)
        elif call.what == "fsync":
            yield Change(self._known[call.inode], None, said)
        elif call.what == "unlink":
            yield Change(self._number(path.parent), _named(self._number(path.parent), path.name, None), said)
        elif call.what in ("rename", "swap", "link"):
            other = Path(call.other)
            folder, number = self._number(path.parent), self._number(path)
            assert path.parent == other.parent
            left = {"rename": None, "link": number}.get(call.what)
            left = self._number(other) if call.what == "swap" else left
            yield Change(folder, _moved(folder, {path.name: left, other.name: number}), said)


def _named(folder: int, name: str, number: int | None) -> Callable[[Disk, float], None]:
    return _moved(folder, {name: number})


def _moved(folder: int, names: dict[str, int | None]) -> Callable[[Disk, float], None]:
    def make(disk: Disk, part: float) -> None:
        entries = disk.folders.setdefault(folder, {})
        for name, number in names.items():
            entries.pop(name, None)
            if number is not None:
                entries[name] = number

    return make


def _written(number: int, offset: int, data: bytes | None) -> Callable[[Disk, float], None]:
    def make(disk: Disk, part: float) -> None:
        content = disk.files.setdefault(number, bytearray())
        end = offset if data is None else offset + int(len(data) * part)
        content.extend(bytes(max(0, end - len(content))))
        if data is None:
            del content[offset:]
        else:
            content[offset:end] = data[: end - offset]

    return make
