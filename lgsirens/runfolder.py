"""The folder of a run: what is there, whose it is, and how another run comes by it."""

import os
from collections.abc import Iterator
from pathlib import Path

from lgsirens.atomic import abandoned, replacing
from lgsirens.checkpoint import CHECKPOINT_SUFFIX
from lgsirens.errors import LgsirensError, OutputError
from lgsirens.fileformat import load
from lgsirens.report import CONFIG_MARK, config_yaml
from lgsirens.representation import Representation
from lgsirens.runlog import RunLog

# What a run leaves in its folder, and what a run that replaces it deletes, its result last: when there is a new one.
# Files of anybody else stay, and so does what is not sent to Weights & Biases yet.
_OWN_FILES = (
    *("events.out.tfevents.*", "config.yaml", f"model_final{CHECKPOINT_SUFFIX}"),
    *("checkpoints/model_step_*.safetensors", "pictures/step_*.png"),
)


def check_folder(log: RunLog, resume: bool, resuming: bool) -> None:
    """Two runs are never mixed in one folder, nor is anything replaced that is none.

    Args:
        resume: go on with the run in the folder; one that was killed before it had a checkpoint starts again.
        resuming: it has a checkpoint.

    Raises:
        OutputError: there is a run in the folder already, neither resumed nor to be replaced, or there are files of
            the same names that are none of ours.
    """
    try:
        if not os.path.exists(log.final) and not any(_own_files(log.folder)):
            return
    except (OSError, ValueError) as error:
        raise _no_log(log, error) from None
    if not _is_run(log.folder):
        raise OutputError(f"{log.folder}: holds events, models or a config.yaml of others; choose another folder")
    result = _result(log.folder)
    if resuming or log.overwrite or (resume and result is None):
        return
    finished = is_finished(log.folder)
    raise OutputError(
        f"{log.folder}: {'a finished' if finished else 'a'} run is logged there already; choose another folder, or "
        "replace it with --overwrite (overwrite=True)"
        + ("" if finished or resume else ", or go on with it by --resume, where it left a checkpoint")
    )


def is_finished(folder: Path) -> bool:
    """Whether a run has ended there by itself."""
    result = _result(folder)
    return result is not None and result.fit.stopped != "interrupted"


def _result(folder: Path) -> Representation | None:
    """The result of the run in a folder; that of an earlier one, which it was to replace, is none."""
    try:
        result = load(RunLog(folder).final)
        config = (folder / "config.yaml").read_text(encoding="utf-8")
    except (LgsirensError, OSError, ValueError):
        return None
    return result if config_yaml(result.config) == config else None


def prepare_folder(log: RunLog, resuming: bool, config: str) -> None:
    """Make the folder, free of an earlier run that this one does not go on with, and write the config there.

    Raises:
        OutputError: the folder cannot be made or belongs to a run of other options.
        RunError: the folder is not writable.
    """
    path, ours = log.folder / "config.yaml", _is_run(log.folder)
    try:
        if ours and (resuming or not log.overwrite) and path.read_text(encoding="utf-8") != config:
            lines = set(path.read_text(encoding="utf-8").splitlines()) ^ set(config.splitlines())
            raise OutputError(
                f"{path}: the run that is logged there has other options ({', '.join(sorted(lines)[:3])}); give those, "
                "or choose another folder"
            )
        log.folder.mkdir(parents=True, exist_ok=True)
        if not resuming:
            for old in _own_files(log.folder):
                if old != path:  # without it the folder would be nobody's, if this run were killed now
                    old.unlink()
            link = log.folder / "wandb" / "latest-run"
            if ours and link.is_symlink():  # the run that it names stays, but this is another one
                link.unlink()
        for name in (*_OWN_FILES, log.final.name, *log.texts):
            for old in abandoned(log.folder / name):
                old.unlink()
    except (OSError, ValueError) as error:
        raise _no_log(log, error) from None
    for name, text in {path.name: config, **log.texts}.items():
        if not (resuming and (log.folder / name).exists()):
            with replacing(log.folder / name, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")


def _no_log(log: RunLog, error: OSError | ValueError) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(f"{log.folder}: no log can be kept there ({reason}); choose another folder")


def _own_files(folder: Path) -> Iterator[Path]:
    for pattern in _OWN_FILES:
        yield from folder.glob(pattern)


def _is_run(folder: Path) -> bool:
    """Whether the config of a run of ours is there."""
    try:
        with (folder / "config.yaml").open("rb") as file:
            return file.readline(len(CONFIG_MARK)) == CONFIG_MARK.encode()
    except (OSError, ValueError):
        return False
