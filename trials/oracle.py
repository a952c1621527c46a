"""What must be true of a folder after whatever happened to a command: one answer for all trials."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.small import without_times
from trials.commands import Command, Ended, call, run

logging.getLogger("tensorboard").setLevel(logging.ERROR)

_TIMES = ("seconds", "modified", "bytes")  # the last for the digits of the others
OURS = "lgsirens: "  # how each line of an error begins


class Broken(Exception):
    """A promise that does not hold."""


def content(path: Path) -> Any:
    """What a file or a folder holds, but for what a clock wrote: equal where law 8 wants it to be."""
    if path.is_dir():
        return {name.name: content(name) for name in sorted(path.iterdir()) if not name.name.startswith("events.")}
    if path.name.endswith(".safetensors") and ".checkpoint." not in path.name:
        return without_times(path)
    if path.name == "manifest.jsonl":
        lines = map(json.loads, path.read_bytes().splitlines())
        return [{name: value for name, value in line.items() if name not in _TIMES} for line in lines]
    return path.read_bytes()


def summarised(folder: Path) -> list[int] | None:
    """The steps that TensorBoard shows of a log."""
    if not list(folder.glob("logs/run/events.*")):
        return None
    accumulator = EventAccumulator(str(folder / "logs" / "run")).Reload()
    return [event.step for event in accumulator.Scalars("train/loss")]


def hidden(folder: Path) -> list[str]:
    """Temporary files and locks; what an `encode-many` keeps is none."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.startswith(".shared.")]


def check_outputs(command: Command, folder: Path, before: Path, reference: Path) -> None:
    """Each output is absent, as it was before, or whole.

    Raises:
        Broken: it is something else.
    """
    for name in command.outputs:
        path, old, whole = (where / name for where in (folder, before, reference))
        if not path.exists():
            require(not old.exists(), f"{name} was there and is gone")
            continue
        try:
            found = content(path)
        except Exception as error:
            raise Broken(f"{name} is damaged: {error!r}") from error
        same = found == content(whole) or (old.exists() and found == content(old))
        require(same or name.endswith("config.yaml"), f"{name} is neither whole nor what it was")


def check_ended(command: Command, ended: Ended, folder: Path, reference: Path) -> None:
    """A command that was not killed has done its work, or says in one line why not, and leaves nothing behind.

    Raises:
        Broken: otherwise.
    """
    require(ended.code in (0, 1, 2), f"it ended with {ended.code}: {ended.said}")
    require("Traceback" not in ended.said, ended.said)
    if ended.code:
        # Packages may add lines of their own: zarr does where it cannot start a thread.
        told = any(line.startswith(OURS) for line in ended.said.splitlines())
        require(told, f"it does not say why it failed: {ended.said}")
        return
    for name in command.outputs[:1]:
        require((folder / name).exists(), f"it ended with 0, and {name} is missing")
        require(content(folder / name) == content(reference / name), f"it ended with 0, and {name} differs")


def check_same(folder: Path, reference: Path) -> None:
    """The folder is as if nothing had happened.

    Raises:
        Broken: it is not.
    """
    require(not hidden(folder), f"left behind: {hidden(folder)}")
    found, wanted = content(folder), content(reference)
    if found != wanted:
        differing = sorted(set(_flat(found)) ^ set(_flat(wanted))) or [
            name for name, value in _flat(found).items() if value != _flat(wanted)[name]
        ]
        raise Broken(f"differs from a run that nothing happened to: {differing}")
    require(summarised(folder) == summarised(reference), f"the log has {summarised(folder)}")


def check_next_run(command: Command, folder: Path, reference: Path) -> None:
    """The next run, with `--resume` where the command fits, ends as if nothing had happened, and clears what is left.

    Raises:
        Broken: it does not.
    """
    if command.resumes and (folder / "logs").exists():
        time.sleep(1.01 - time.time() % 1)  # TensorBoard orders event files by their second
    ended = run([*command.argv, "--resume"] if command.resumes else command.argv, folder)
    # "no checkpoint": there was no room for it; weights that a log has kept are replaced only when that is asked for.
    if ended.code == 2 and any(words in ended.said for words in ("exists already", "a finished run", "no checkpoint")):
        ended = run([*command.argv, "--overwrite"], folder)
    require(ended.code == 0, f"the next run ended with {ended.code}: {ended.said}")
    check_same(folder, reference)


def check_whole(path: Path) -> None:
    """A representation loads, its rows' checksums hold, and it decodes.

    Raises:
        Broken: it does not.
    """
    found = call(_decoded, path)
    require(not isinstance(found, Exception), f"{path.name}: {found!r}")


def _decoded(path: Path) -> tuple[int, ...]:
    import lgsirens as lg

    return tuple(lg.load(path).decode().values.shape)


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Broken(what)


def emptied(folder: Path) -> Path:
    """A path where nothing is."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {at: value for key, each in tree.items() for at, value in _flat(each, f"{name}/{key}").items()} | {name: "/"}
