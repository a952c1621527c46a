"""What is kept of a run while it goes on: its folder, and what is written there when."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lgsirens.atomic import check_output, replacing
from lgsirens.errors import OutputError, RunError
from lgsirens.fileformat import save
from lgsirens.fit import FitState
from lgsirens.report import config_yaml
from lgsirens.representation import Representation
from lgsirens.runlog import RunLog, note

# What a run leaves in its folder, and what a run that replaces it deletes. Files of anybody else stay.
_OWN_FILES = ("events.out.tfevents.*", "config.yaml", "checkpoints/model_step_*.safetensors", "model_final.safetensors")


class Watcher:
    """Writes the log of one run. Its calls change nothing that the fit uses.

    Args:
        log: where, what and how often.
        config: the options of the run.
        snapshot: a representation of the present weights.
        resuming: the run goes on from a checkpoint, and so does the log.

    Raises:
        OutputError: as `check_folder`; the folder cannot be made.
        RunError: the folder is not writable.
        MissingDependencyError: pyyaml is not installed.
    """

    def __init__(
        self,
        log: RunLog,
        config: Mapping[str, Any],
        snapshot: Callable[[FitState], Representation],
        resuming: bool,
    ) -> None:
        self._log, self._snapshot = log, snapshot
        text = config_yaml(config)
        check_folder(log, resuming)
        path = log.folder / "config.yaml"
        if resuming and path.exists() and path.read_text(encoding="utf-8") != text:
            raise OutputError(f"{path}: the run that is logged there has other options; choose another folder")
        _prepare(log, resuming)
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def __call__(self, state: FitState, error: float, rate: float) -> None:
        """See one step: the state after it, the error before it, the learning rate it took."""
        if self._log.checkpoint_every is not None and state.step % self._log.checkpoint_every == 0:
            path = self._log.folder / "checkpoints" / f"model_step_{state.step}.safetensors"
            try:
                path.parent.mkdir(exist_ok=True)
                save(self._snapshot(state), path, overwrite=True)
            except (RunError, OutputError, OSError) as failure:
                note("the run goes on without what was to be logged at step %d: %s", state.step, failure)

    def finish(self, representation: Representation) -> None:
        """Keep the result."""
        save(representation, self._log.final, overwrite=True)


def check_folder(log: RunLog, resuming: bool) -> None:
    """Two runs are never mixed in one folder.

    Raises:
        OutputError: there is a run in the folder already, neither resumed nor to be replaced.
    """
    if not (resuming or log.overwrite) and any(_own_files(log.folder)):
        raise OutputError(
            f"{log.folder}: a run is logged there already; choose another folder, or replace it with --overwrite "
            "(overwrite=True)"
        )


def _prepare(log: RunLog, resuming: bool) -> None:
    try:
        log.folder.mkdir(parents=True, exist_ok=True)
        if not resuming:
            for path in _own_files(log.folder):
                path.unlink()
    except (OSError, ValueError) as error:
        raise OutputError(f"{log.folder}: no log can be kept there ({error}); choose another folder") from None
    check_output(log.folder / "config.yaml", overwrite=True)


def _own_files(folder: Path) -> Iterator[Path]:
    for pattern in _OWN_FILES:
        yield from folder.glob(pattern)
