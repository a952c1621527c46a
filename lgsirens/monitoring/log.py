"""The log of a run: where it is kept and what of it; which run a folder holds, how far it is, and how another one comes
by the folder."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lgsirens.errors import ConfigError, OutputError
from lgsirens.system.output import make_folder, replacing, sweep
from lgsirens.system.schema import check, option

CHECKPOINT_SUFFIX = ".checkpoint.safetensors"

# How far a run is. One that was killed, or ended in an error, stays at RUNNING.
RUNNING, STOPPED, FINISHED = "running", "stopped", "finished"

_CONFIG = "config.yaml"
# Its first two lines; whoever finds them finds a run of ours.
_HEADER = "# options of a run of lgsirens\n# {key}: {state}\n"
_HEADER_PATTERN = re.compile(rf"# options of a run of lgsirens\n# ([0-9a-f]+): ({RUNNING}|{STOPPED}|{FINISHED})\n")

# What a run leaves beside its config and its result, and what a run that replaces it deletes. Files of anybody else
# stay, and so does what is not sent to Weights & Biases yet.
_LEFT = re.compile(
    rf"events\.out\.tfevents\..*|model_final{re.escape(CHECKPOINT_SUFFIX)}"
    r"|checkpoints/model_step_\d+\.safetensors|pictures/step_\d+\.png"
)
_SHOWN = {RUNNING: "an unfinished", STOPPED: "a stopped", FINISHED: "a finished"}


@dataclass
class FitState:
    """Where a fit stands; together with weights, optimiser and generator it is all that a resumed run needs.

    Attributes:
        step: steps taken.
        seconds: that they took.
        error: the last mean squared error that was measured on [-1, 1]: that before the last step, or that which met
            the target.
        rate: learning rate of the last step.
        stopped: why it ended; empty while it goes on.
    """

    step: int = 0
    seconds: float = 0.0
    error: float = math.nan
    rate: float = math.nan
    stopped: str = ""


@dataclass(frozen=True)
class RunLog:
    """Where an encoding is logged, and what of it: TensorBoard events, pictures, representations on the way, the
    config, the result.

    Attributes:
        folder: one run; it is made if it is not there.
        every: steps between summaries; there is one more at the end.
        checkpoint_every: steps between representations in `checkpoints/`; None: none.
        name: of the run at Weights & Biases; the folder's when empty.
        overwrite: replace an earlier run in the folder; its result stays until there is a new one.
        texts: what else to keep beside the config, by file name.

    Raises:
        ConfigError: a number of steps below 1, or a folder without a name.
    """

    folder: Path = option(metavar="DIR", help="log the run there: TensorBoard, pictures, config, result")
    every: int = option(200, least=1, metavar="N", help="steps between summaries")
    checkpoint_every: int | None = option(None, least=1, metavar="N", help="steps between representations kept")
    show_grads: bool = option(False, help="draw gradient and Laplacian of images too")
    use_wandb: bool = option(False, help="tell Weights & Biases too (offline without a key)")
    name: str = ""
    overwrite: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not os.fspath(self.folder):
            raise ConfigError(f"{self.folder!r}: name the folder of the log", "folder")
        object.__setattr__(self, "folder", Path(os.path.expanduser(self.folder)))
        check(self)

    @property
    def final(self) -> Path:
        """The result of the run."""
        return self.folder / "model_final.safetensors"


def state_of(folder: Path) -> str | None:
    """How far the run in a folder is; None if there is none."""
    return _standing(folder)[1]


def check_folder(log: RunLog, resume: bool, resuming: bool) -> None:
    """Two runs are never mixed in one folder, nor is anything replaced that is none.

    Args:
        resume: go on with the run in the folder; one that was killed before it had kept any weights starts again.
        resuming: there is a checkpoint to go on with.

    Raises:
        OutputError: there is a run in the folder already, neither resumed nor to be replaced, or there are files of
            the same names that are none of ours.
    """
    with _possible(log.folder):
        left = _left(log.folder)
    state = state_of(log.folder)
    if state is None:
        if left or any(os.path.exists(log.folder / name) for name in (_CONFIG, log.final.name, *log.texts)):
            raise OutputError(f"{log.folder}: holds events, models or options of others; choose another folder")
        return
    kept = any(path.suffix == ".safetensors" for path in left)
    if log.overwrite or resuming or (resume and state == RUNNING and not kept):
        return
    gone = ", but no checkpoint" if resume and state != FINISHED else ""
    more = "" if resume or state == FINISHED else "go on with it by resume and the same options, "
    raise OutputError(
        f"{log.folder}: {_SHOWN[state]} run is logged there already{gone}; {more}choose another folder or overwrite"
    )


def prepare_folder(log: RunLog, resuming: bool, key: str, config: str) -> None:
    """Make the folder, free of an earlier run that this one does not go on with, and write the config there.

    Args:
        key: tells the run, its input and its options, from others; hexadecimal.
        config: the options as YAML.

    Raises:
        OutputError: the folder cannot be made, or belongs to a run of another input or other options.
        RunError: the folder is not writable.
    """
    folder = log.folder
    earlier, _, _ = _standing(folder)
    if earlier not in (None, key) and (resuming or not log.overwrite):
        raise OutputError(
            f"{folder}: logs another input or other options, see its config.yaml; give those or choose another folder"
        )
    with _possible(folder):
        make_folder(folder)
        _write(folder / _CONFIG, _HEADER.format(key=key, state=RUNNING) + config)
        if not resuming:
            for path in _left(folder):
                path.unlink()
            link = folder / "wandb" / "latest-run"
            if earlier is not None and link.is_symlink():  # the run that it names stays, but this is another one
                link.unlink()
        for place in ("", "checkpoints", "pictures"):
            sweep(folder / place)
    for name, text in log.texts.items():
        if not (resuming and (folder / name).exists()):
            _write(folder / name, text)


def keep_state(folder: Path, state: str) -> None:
    """Say in the config how far the run is.

    Raises:
        OutputError, RunError: it cannot be written.
    """
    key, _, config = _standing(folder)
    if key is not None:
        _write(folder / _CONFIG, _HEADER.format(key=key, state=state) + config)


def _write(path: Path, text: str) -> None:
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _standing(folder: Path) -> tuple[str | None, str | None, str]:
    """Key, state and config of the run in a folder; None and None if there is none."""
    with suppress(OSError, ValueError):
        text = (folder / _CONFIG).read_text(encoding="utf-8")
        if found := _HEADER_PATTERN.match(text):
            return found[1], found[2], text[found.end() :]
    return None, None, ""


def _left(folder: Path) -> list[Path]:
    """The files of a run in a folder, but its config and its result."""
    paths = [path for pattern in ("*", "checkpoints/*", "pictures/*") for path in folder.glob(pattern)]
    return [path for path in paths if _LEFT.fullmatch(path.relative_to(folder).as_posix()) and path.is_file()]


@contextmanager
def _possible(folder: Path) -> Iterator[None]:
    """Errors of the system as one of ours."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder}: no log can be kept there ({reason}); choose another folder") from None
