"""Many files -> many representations, by one process or by ranks: a manifest says what is done."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch

from lgsirens.errors import ConfigError, OtherRunError, OutputError, RunError, SignalError
from lgsirens.representation.file import load, save
from lgsirens.representation.representation import Representation
from lgsirens.signal import Signal
from lgsirens.system.console import Progress, counted, interruption, log, note
from lgsirens.system.hardware import memory_limit, release_memory
from lgsirens.system.output import make_folder
from lgsirens.system.schema import to_plain
from lgsirens.training.checkpoint import checkpoint_path, claimed
from lgsirens.training.config import EncodeConfig
from lgsirens.training.encode import batch_bytes, encode, encode_batch, in_batches
from lgsirens.training.groups import GROUP_BYTES
from lgsirens.training.job import FAILURES, Job
from lgsirens.training.manifest import FileRecord, Manifest, Part
from lgsirens.training.mosaic import mosaic
from lgsirens.training.ranks import ALONE, Ranks

PathLike = str | os.PathLike[str]

# Of the inputs that a rank takes at once.
_LARGEST_PIECE = 64
# Hidden: it stands for none of the inputs.
_SHARED = ".shared.safetensors"
# What a shared network brings to the files that are encoded with it.
_BROUGHT = {
    name: getattr(EncodeConfig(), name)
    for name in (
        *("mode", "partitions", "partition_size", "parameters", "local_width", "global_width", "hidden_layers"),
        *("agg_type", "overlaps", "coordinates", "shared_scale", "local_scale"),
    )
}


def encode_many(
    inputs: PathLike | Sequence[PathLike],
    out_folder: PathLike,
    config: EncodeConfig | None = None,
    *,
    share_network: bool = False,
    shared_from: Representation | None = None,
    reading: Mapping[str, Any] | None = None,
    device: str | torch.device = "auto",
    max_memory: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    ranks: Ranks = ALONE,
    read: Callable[..., Signal],
    find: Callable[[Path, Path], tuple[list[Path], int]],
    **options: Any,
) -> list[FileRecord]:
    """Encode many files, each into a file of its own: `a/b.png` into `OUT_FOLDER/a/b.png.safetensors`.

    A file that cannot be read or encoded is told in one line, and the others go on.

    Args:
        inputs: a folder, with its sub-folders, or files, whose outputs lie as they do below the folder of all.
        out_folder: of the outputs and of `manifest.jsonl`, which says what became of each input; made if need be.
        config: the options of each; keyword arguments named as the fields of `EncodeConfig` override them.
        share_network: one shared network for all, learnt first from tiles of many files; rows alone learn then, and
            all outputs have one origin.
        shared_from: or that of a representation.
        reading: keyword arguments of `read`, for all files.
        device: as `encode` takes it.
        max_memory: as `encode` takes it.
        resume: go on with the run that `out_folder` has; what is done is left alone where its input is as it was.
        overwrite: replace what `out_folder` has.
        progress: show a progress bar on standard error.
        ranks: who share the files.
        read: a file as a signal.
        find: the files within a folder that are signals, without those in another one, and how many others there are.

    Returns:
        What became of each input, in their order.

    Raises:
        ConfigError: options that cannot be, or other ones than those of the run to go on with.
        SignalError: there are no inputs.
        OutputError: `out_folder` has a run already, or one is under way there.
        RunError: the manifest or the shared network cannot be written, or its fit diverged.
        KeyboardInterrupt: Ctrl-C; the manifest has what is done, and a file that is fitted alone its checkpoint.
    """
    config = EncodeConfig.from_options({**to_plain(config or EncodeConfig()), **options})
    ranks.together(partial(memory_limit, max_memory))  # what it cannot be is told before anything is read
    reading, out = dict(reading or {}), Path(os.path.expanduser(out_folder))
    if share_network:
        _check_sharing(config, shared_from)
    described = {**to_plain(config), **to_plain(reading), "share_network": share_network}
    described["shared_from"] = None if shared_from is None else shared_from.origin
    with interruption() as stop, _claimed(out, ranks):
        manifest = ranks.together(lambda: Manifest(out, described, resume, overwrite))
        names = ranks.together(lambda: _named(inputs, out, find))
        ranks.together(manifest.settle if ranks.first else lambda: None)
        files = _Files(names, out, partial(read, **reading), manifest, overwrite)
        how: dict[str, Any] = {"device": device, "max_memory": max_memory}
        if share_network:
            learnt = files.shared(config, "value_range" in reading, ranks, resume, progress, **how)
            shared_from, config = learnt, replace(config, **_BROUGHT)
        how |= {"config": config, "shared_from": shared_from, "source": _source(reading)}
        left = ranks.of_first([name for name in names if not files.done(name)] if ranks.first else None)
        dealt = _dealt(left, ranks.size, in_batches(config, shared_from))
        with manifest.part(ranks.rank) as part, Progress("encode", "file", not (progress and ranks.first)) as bar:
            bar.start(len(names), len(names) - len(left))
            unfinished = False
            for number in ranks.deal(len(dealt)):
                try:
                    for done in files.encode(dealt[number], part, resume, stop, **how):
                        bar.advance(done)
                except KeyboardInterrupt:
                    unfinished = True
                    break
        for records in ranks.everyone(part.added):
            manifest.records |= records
        ranks.together(manifest.settle if ranks.first else lambda: None)
    if ranks.total(unfinished)[0]:
        raise KeyboardInterrupt
    return [manifest.records[name] for name in names]


class _Files:
    """The inputs of a run by name, and where their outputs go."""

    def __init__(
        self, names: dict[str, Path], out: Path, read: Callable[[Path], Signal], manifest: Manifest, overwrite: bool
    ) -> None:
        self._names, self._out, self._read, self._manifest, self._overwrite = names, out, read, manifest, overwrite
        self._said: set[str] = set()

    def done(self, name: str) -> bool:
        """Whether an input is encoded, as it is now."""
        record = self._manifest.records.get(name)
        if record is None or record.status != "done":
            return False
        try:
            found, made = os.stat(self._names[name]), os.stat(self._out / record.output)
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns, made.st_size) == (record.size, record.modified, record.bytes)

    def encode(self, names: Iterable[str], part: Part, resume: bool, stop: Event, **how: Any) -> Iterator[int]:
        """Encode inputs, with a shared network small ones of one shape in the same steps, and keep a record of each.
        Gives how many have just been done, or have failed; raises KeyboardInterrupt at Ctrl-C."""
        for jobs in self._batches((self._begun(name, part, resume) for name in names), **how):
            if stop.is_set():
                raise KeyboardInterrupt
            found, began = None, time.monotonic()
            if len(jobs) > 1:
                with suppress(*FAILURES), _said_once(self._said):  # then each by itself, which tells
                    found = encode_batch([job.signal for job in jobs], **how)
            seconds = (time.monotonic() - began) / len(jobs)
            for number, job in enumerate(jobs):
                if not job.failed:
                    with job.told(), _said_once(self._said):
                        job.write(job.fit(resume, **how) if found is None else found[number], seconds)
            release_memory()
            yield len(jobs)

    def _begun(self, name: str, part: Part, resume: bool) -> Job:
        output = f"{name}.safetensors"
        before = self._manifest.records.get(name, FileRecord(name, output, "failed"))
        job = Job(self._names[name], self._out / output, before, self._overwrite, part)
        with job.told(), _said_once(self._said):
            job.read(self._read, resume)
        return job

    def _batches(
        self,
        jobs: Iterable[Job],
        config: EncodeConfig,
        shared_from: Representation | None,
        max_memory: int | str | None,
        **how: Any,
    ) -> Iterator[list[Job]]:
        """Jobs to do together, as they come; those that have failed, that an earlier run has begun, or that take much
        by themselves."""
        room, size = min(GROUP_BYTES, memory_limit(max_memory) // 2), 0
        waiting: dict[tuple[int, ...], list[Job]] = {}
        for job in jobs:
            more = None
            if not (job.failed or job.stopped):
                with job.told():
                    more = batch_bytes(job.signal, config, shared_from)
            if more is None or more > room // 2:
                yield [job]
                continue
            waiting.setdefault(job.signal.shape, []).append(job)
            size += more
            if size > room:
                yield from waiting.values()
                waiting, size = {}, 0
        yield from waiting.values()

    def shared(
        self, config: EncodeConfig, common_range: bool, ranks: Ranks, resume: bool, progress: bool, **how: Any
    ) -> Representation:
        """What has the shared network, learnt now unless the run that goes on has learnt it."""
        path = self._out / _SHARED
        if not ranks.of_first(resume and path.exists()):
            paths = list(self._names.values())
            with _said_once(self._said):
                signal, tile = ranks.together(lambda: mosaic(paths, self._read, config, common_range))
            made = replace(config, partition_size=tile)
            keeper: dict[str, Any] = {"checkpoint": checkpoint_path(path), "resume": resume, "progress": progress}
            try:
                learnt = encode(signal, made, ranks=ranks, **keeper, **how)
            except OtherRunError:  # the files are others since
                learnt = encode(signal, made, ranks=ranks, **keeper | {"resume": False}, **how)
            if learnt.fit.stopped == "interrupted":
                raise KeyboardInterrupt
            ranks.together(partial(save, learnt, path, True) if ranks.first else lambda: None)
        if ranks.first:
            checkpoint_path(path).unlink(missing_ok=True)  # a run that was killed may have left it
        return ranks.together(lambda: load(path))  # type: ignore[no-any-return]


def _named(
    inputs: PathLike | Sequence[PathLike], out: Path, find: Callable[[Path, Path], tuple[list[Path], int]]
) -> dict[str, Path]:
    """The inputs, sorted, by their paths below the folder of all."""
    if isinstance(inputs, str | os.PathLike):
        folder = Path(os.path.expanduser(inputs))
        if os.path.realpath(folder) == os.path.realpath(out):
            raise ConfigError(f"{out}: is the folder of the inputs; choose another one for the outputs")
        paths, others = find(folder, out)
        if not paths:
            raise SignalError(f"{folder}: holds no signals, {counted(others, 'other file')}; name another folder")
        if others:
            note("%s: %s left out, no signals", folder, counted(others, "file"))
    else:
        paths = sorted({Path(os.path.abspath(os.path.expanduser(path))) for path in inputs})
        if not paths:
            raise SignalError("no inputs; name a folder or files")
        folder = Path(os.path.commonpath([path.parent for path in paths]))
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _check_sharing(config: EncodeConfig, shared_from: Representation | None) -> None:
    for name, wrong, message in (
        ("shared_from", shared_from is not None, "beside share_network; give one of them"),
        ("mode", config.mode != "lg", f"{config.mode}: has no shared network; take lg, or no share_network"),
        ("coordinates", config.seen != "tile", f"{config.seen}: belong to one signal; take tile, or no share_network"),
        ("partitions", config.partitions is not None, "differ from file to file; give partition_size instead"),
    ):
        if wrong:
            raise ConfigError(message, name)


def _dealt(names: list[str], ranks: int, batches: bool) -> list[list[str]]:
    """The inputs in the pieces that ranks take: one by one, or as many as make a batch where there are enough."""
    if ranks == 1:
        return [names]
    each = min(_LARGEST_PIECE, max(1, len(names) // (4 * ranks))) if batches else 1
    return [names[start : start + each] for start in range(0, len(names), each)]


def _source(reading: Mapping[str, Any]) -> dict[str, Any]:
    """What of a film was read, for the config of the result."""
    reduced = {name: to_plain(reading.get(name)) for name in ("frames", "max_side")}
    return reduced if any(reduced.values()) else {}


@contextmanager
def _claimed(out: Path, ranks: Ranks) -> Iterator[None]:
    """Make the folder of the outputs, and keep other runs out of it."""

    def make() -> None:
        try:
            make_folder(out)
        except FileExistsError as error:
            raise OutputError(f"{error.filename}: is a file; name a folder") from None
        except OSError as error:
            raise RunError(f"{out}: cannot be made: {error.strerror}; choose another folder") from error

    ranks.together(make)
    with claimed(out / "manifest") if ranks.first else nullcontext(True) as free:
        if not ranks.of_first(free):
            raise ranks.alike(OutputError(f"{out}: a run is under way there; wait for it, or choose another folder"))
        yield


@contextmanager
def _said_once(said: set[str]) -> Iterator[None]:
    """What is told of many files alike is told of the first one."""

    def new(record: logging.LogRecord) -> bool:
        fresh = record.msg not in said
        said.add(record.msg)
        return fresh

    log.addFilter(new)
    try:
        yield
    finally:
        log.removeFilter(new)
