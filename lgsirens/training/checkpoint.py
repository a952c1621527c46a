"""Where a fit stands, and the file that keeps it, so that a run which was stopped can go on."""

import fcntl
import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lgsirens.errors import ConfigError, FileFormatError, OtherRunError, OutputError, RunError
from lgsirens.monitoring.log import CHECKPOINT_SUFFIX, FitState
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.system.console import note
from lgsirens.system.output import replacing, sweep
from lgsirens.training.adam import Optimizer
from lgsirens.training.ranks import ALONE, Ranks
from lgsirens.training.rest import Rest

RECORD = "lgsirens_checkpoint"
FORM = 2  # of what checkpoints hold, in the keys of runs
_ROW_ERRORS = "row_errors"


class BestWeights:
    """The weights with the lowest error so far.

    Args:
        model: whose weights to remember.
        apart: rows learn alone, and each keeps its own best weights, whatever becomes of the others.

    Attributes:
        errors: float64, `[P]` if `apart`, else `[1]`.
    """

    def __init__(self, model: SirenPerPartition, apart: bool = False) -> None:
        self.apart, number = apart, len(model.local) if apart else 1
        self.errors = torch.full((number,), math.inf, dtype=torch.float64, device=model.local.device)
        self._weights = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        self.weights = [weight.clone() for weight in self._weights]

    @property
    def kept_as(self) -> str:
        """The name of the errors in a checkpoint."""
        return _ROW_ERRORS if self.apart else "errors"

    def see(self, errors: torch.Tensor) -> None:
        """Remember the present weights where their errors, as `self.errors`, are the lowest."""
        better = errors < self.errors
        self.errors = torch.where(better, errors, self.errors)
        _copy(self.weights, self._weights, better)

    def keep(self, last_errors: torch.Tensor) -> None:
        """Put the best weights back, but where the last ones are better."""
        _copy(self._weights, self.weights, self.errors < last_errors)


def _copy(to: list[torch.Tensor], these: list[torch.Tensor], where: torch.Tensor) -> None:
    """Copy weights, or only some of their rows."""
    if where.all():
        torch._foreach_copy_(to, these)
    elif where.any():
        to[0][where] = these[0][where]


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit keeps its state, and what it must belong to. Whoever has saved the result deletes the file.

    Attributes:
        path: a safetensors file, written about every 30 seconds, between two steps.
        key: hash of the signal and the config.
        resume: go on from the file if it is there.
        ranks: of the fit; the first one writes what all have, another number of them may go on.
        own: of the fit's rows, this rank's; None: all.
    """

    path: Path
    key: str
    resume: bool = False
    ranks: Ranks = ALONE
    own: slice | None = None

    @classmethod
    def at(
        cls,
        path: str | os.PathLike[str] | None,
        key: str,
        resume: bool,
        ranks: Ranks = ALONE,
        own: slice | None = None,
    ) -> "Checkpoint | None":
        """The checkpoint of a run, None for one that keeps none (raises ConfigError if `path` is no path)."""
        if not isinstance(path, str | os.PathLike | None):
            raise ConfigError(f"checkpoint {path!r} is no path; name a file, or leave it out")
        return None if path is None else cls(Path(os.path.expanduser(path)), key, resume, ranks, own)

    @property
    def goes_on(self) -> bool:
        """Whether there is a run to go on with."""
        return self.resume and os.path.exists(self.path)

    def save(
        self,
        model: SirenPerPartition,
        optimizer: Optimizer | torch.optim.Optimizer,
        generator: torch.Generator,
        state: FitState,
        best: BestWeights | None,
        rest: Rest | None,
    ) -> None:
        """Keep where a fit stands; where that cannot be written, say so and let the fit go on."""
        kept = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": self.ranks.gathered(generator.get_state()[None]),
            "best": None if best is None else {best.kept_as: best.errors, "weights": best.weights},
            "rest": None if rest is None else {"awake": rest.awake, "errors": rest.errors},
            "state": {name: value for name, value in vars(state).items() if name != "stopped"},
        }
        kept = _by_row(kept, self.ranks.gathered)
        if not self.ranks.first:
            return
        tensors: dict[str, torch.Tensor] = {}
        record = {"key": self.key} | {name: _flat(value, name, tensors) for name, value in kept.items()}
        record["crc32"] = _checksum(record, tensors)
        try:
            with replacing(self.path, overwrite=True) as temporary:
                # Not `save_file`, which writes a file of its own beside it, and leaves that if it is killed.
                temporary.write_bytes(save(tensors, {RECORD: json.dumps(record)}))
        except (RunError, OutputError, SafetensorError) as error:
            # Hours of work are worth more than their checkpoint.
            note("the run goes on without a checkpoint: %s", error)

    def load(
        self,
        model: SirenPerPartition,
        optimizer: Optimizer | torch.optim.Optimizer,
        generator: torch.Generator,
        best: BestWeights | None,
        rest: Rest | None,
    ) -> FitState:
        """Put a fit where the file says it stood; without a file it stands at its first step.

        Raises:
            FileFormatError: the file is damaged or belongs to another run.
        """
        if not self.ranks.of_first(os.path.exists(self.path)):
            if self.ranks.first:
                note("%s: no checkpoint; starting at the first step", self.path)
            return FitState()
        kept = _by_row(self.ranks.together(self.read), lambda rows: rows[self.own or slice(None)])
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        generators = kept["generator"]
        # A copy: of a view PyTorch reads what lies further behind.
        generator.set_state(generators[self.ranks.rank % len(generators)].clone())
        if best is not None:
            best.errors.copy_(kept["best"][best.kept_as])
            torch._foreach_copy_(best.weights, kept["best"]["weights"])
        if rest is not None:
            rest.awake.copy_(kept["rest"]["awake"])
            rest.errors.copy_(kept["rest"]["errors"])
        return FitState(**kept["state"])

    def read(self) -> dict[str, Any]:
        """What the file holds, nested as it was kept.

        Raises:
            FileFormatError: the file is damaged.
            OtherRunError: it belongs to another run.
        """
        try:
            with safe_open(self.path, "pt") as file:
                record: dict[str, Any] = json.loads(file.metadata()[RECORD])
                if "crc32" not in record:  # of finished rows
                    raise self.of_other_run()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if record.pop("crc32") != _checksum(record, tensors):
                raise ValueError("its CRC-32 differs")
            key = record.pop("key")
            kept = {name: _nested(value, tensors) for name, value in record.items()}
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{self.path}: damaged checkpoint ({error}); delete it and start again") from error
        if key != self.key:
            raise self.of_other_run()
        return kept

    def of_other_run(self) -> OtherRunError:
        """What is wrong with a file that another run keeps."""
        reason = "belongs to another input, other options or another processor"
        return OtherRunError(f"{self.path}: {reason}; give those, or no resume")


def checkpoint_path(output: Path, number: int = 1) -> Path:
    """Beside the output, for one of several runs at once; a name too long for the suffix is cut and told apart by its
    hash."""
    stem = os.fsencode(output.stem)
    if len(stem) > 200:
        stem = stem[:180] + b"-" + hashlib.sha256(stem).hexdigest()[:12].encode()
    several = "" if number == 1 else f"-{number}"
    return output.with_name(f"{stem.decode(errors='ignore')}{several}{CHECKPOINT_SUFFIX}")


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether no other run that is alive keeps its state at `path`; none will until the end of the block.

    The lock is the system's: it goes with the process, however that ends. Where there are none (some network file
    systems) every run takes the path for its own.
    """
    lock, descriptor, free = path.with_name(f".{path.name}.lock"), None, True
    with suppress(OSError):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(os.fstat(descriptor), os.stat(lock))  # it may have been deleted meanwhile
        except BlockingIOError:
            free = False
    try:
        if free:
            sweep(path.parent, path)
        yield free
    finally:
        if descriptor is not None:
            if free:
                with suppress(OSError):  # while it is held: once it is free, it may be that of another run
                    os.unlink(lock)
            os.close(descriptor)


def check_checkpoint(path: Path, resume: bool) -> None:
    """Only a checkpoint of ours may be replaced and, at the end, deleted.

    Raises:
        OutputError: something else is at the path.
    """
    if not os.path.lexists(path):
        return
    found = False
    with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        found = RECORD in (file.metadata() or {})
    if not found:
        raise OutputError(f"{path}: the run keeps its state there, but this is no checkpoint, or damaged; move it away")
    if not resume:
        note("%s: a stopped run left its checkpoint; this run replaces it (resume goes on from it)", path)


def _by_row(kept: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """The same with `change` made to all that is kept for each row, of weights, optimiser and rest."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(each) for name, each in value.items()}
        if isinstance(value, list):
            return [changed(each) for each in value]
        return change(value) if isinstance(value, torch.Tensor) and value.ndim else value

    model, optimizer, best = kept["model"], kept["optimizer"], kept["best"]
    state = optimizer["state"]  # of each parameter; the rows are the first
    state = {**state, 0: changed(state[0])} if isinstance(state, dict) else [changed(state[0]), *state[1:]]
    if best is not None:
        first, *others = best["weights"]
        errors = {name: change(each) for name, each in best.items() if name == _ROW_ERRORS}
        best = {**best, **errors, "weights": [change(first), *others]}
    rows = {"model": {**model, "local": change(model["local"])}, "rest": changed(kept["rest"])}
    return kept | rows | {"optimizer": {**optimizer, "state": state}, "best": best}


def _flat(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A nested value as JSON holds it; its tensors go to `tensors`, named by their path."""
    if isinstance(value, torch.Tensor):
        # A copy: it may be a view of another tensor, which the container refuses.
        tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _flat(each, f"{path}[{key!r}]", tensors)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        items = [_flat(each, f"{path}[{place}]", tensors) for place, each in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    return value


def _nested(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_flat`."""
    match value:
        case {"tensor": path}:
            return tensors[path]
        case {"dict": items}:
            return {key: _nested(each, tensors) for key, each in items}
        case {"list": items}:
            return [_nested(each, tensors) for each in items]
        case {"tuple": items}:
            return tuple(_nested(each, tensors) for each in items)
    return value


def _checksum(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> int:
    """CRC-32 of all that a checkpoint says: its record, and names, types, shapes and bytes of its tensors."""
    names = sorted(tensors)
    described = [(name, str(tensors[name].dtype), list(tensors[name].shape)) for name in names]
    crc = zlib.crc32(json.dumps([record, described], sort_keys=True).encode())
    for name in names:
        crc = zlib.crc32(tensors[name].numpy().tobytes(), crc)
    return crc
