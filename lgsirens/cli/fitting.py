"""The commands of `lgsirens` that fit: encode, extend and replace, with their checkpoints and logs."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from typing import Any

from lgsirens.cli.options import Edit, Encode, EncodeMany, Extend, Reading, Replace, part
from lgsirens.cli.ranks import started_ranks
from lgsirens.errors import ConfigError, OtherRunError
from lgsirens.monitoring.log import CHECKPOINT_SUFFIX, RunLog, check_folder
from lgsirens.representation.file import load, save
from lgsirens.representation.report import dry_run_text, edit_text, fitted_anew, summary
from lgsirens.representation.representation import Representation
from lgsirens.system.config_file import read_settings
from lgsirens.system.console import interruption, note
from lgsirens.system.hardware import use_threads
from lgsirens.system.output import check_output
from lgsirens.system.program import ended
from lgsirens.system.schema import declared, from_plain
from lgsirens.training.checkpoint import check_checkpoint, checkpoint_path, claimed
from lgsirens.training.config import EncodeConfig
from lgsirens.training.encode import dry_run, encode
from lgsirens.training.extend import extend, replace
from lgsirens.training.ranks import ALONE, Ranks
from lgsirens.training.refit import FitOptions

# Options of which one replaces the others of its line, wherever they were given.
_ALTERNATIVES = (("partitions", "partition_size"), ("parameters", "local_width", "global_width"))


def encode_command(asked: Encode) -> int:
    ranks = started_ranks(asked)
    asked = with_fields(asked, quiet=asked.quiet or not ranks.first)
    run_log, settings, shared_from = ranks.together(lambda: _prepared(asked))
    reading = from_plain(Reading, part(Reading, settings))
    chosen = {name: value for name, value in settings.items() if name not in declared(Reading)}
    config = ranks.together(lambda: EncodeConfig.from_options(chosen))
    signal = ranks.together(lambda: reading.read(asked.input, asked.quiet, asked.max_memory))
    if asked.dry_run:
        if ranks.first:
            print(dry_run_text(dry_run(signal, config, asked.device, asked.max_memory, shared_from)))
        return 0
    how: dict[str, Any] = {"log": run_log, "shared_from": shared_from, "source": reading.reduced(), "ranks": ranks}
    result, checkpoint = _saved(asked, partial(encode, signal, config, **how), ranks)
    return ended(result.fit.stopped, result.fit.steps, checkpoint if ranks.first else None)


def _prepared(asked: Encode) -> tuple[RunLog | None, dict[str, Any], Representation | None]:
    """The log asked for, the options of the run, and the file whose network is shared; all that may be wrong with these
    and with OUTPUT is found before the input is read."""
    _check_name(asked.output)
    run_log = _run_log(asked)
    if not asked.dry_run:
        check_result(asked.output, asked.overwrite or _resuming(asked), [*filter(None, [asked.shared_from])])
        if run_log is not None:
            check_folder(run_log, asked.resume, _resuming(asked))
    use_threads(asked.threads)
    settings = settings_of(asked)
    return run_log, settings, shared_network_of(asked.shared_from, settings.pop("shared_from", None))


def extend_command(asked: Extend) -> int:
    return _edit(asked, partial(extend, finetune=asked.finetune, allow_gap=asked.allow_gap))


def replace_command(asked: Replace) -> int:
    return _edit(asked, replace)


def _edit(asked: Extend | Replace, edit: Callable[..., Representation]) -> int:
    check_result(asked.output, asked.overwrite or _resuming(asked), [asked.file])
    use_threads(asked.threads)
    whole = load(asked.file)
    of_signal = {"frames": None, **part(Reading, asked.given)}
    signal = Reading.like(whole, **of_signal).read(asked.signal, asked.quiet, asked.max_memory)
    fit = partial(edit, whole, signal, asked.offset, **part(FitOptions, asked.given))
    edited, checkpoint = _saved(asked, fit, before=whole)
    if edited is whole:
        note("nothing to add: all of the signal lies where the file has partitions; %s is a copy", asked.output)
        return 0
    done = edited.history[-1]
    print(edit_text(done, fitted_anew(whole, edited)))
    return ended(done["stopped"], done["steps"], checkpoint)


def _resuming(asked: Encode | Edit) -> bool:
    return asked.resume and any(map(os.path.exists, _checkpoints(asked)))


def _checkpoints(asked: Encode | Edit) -> list[Path]:
    """Where a run may keep its state: the first, unless runs with the same OUTPUT are under way."""
    return [checkpoint_path(asked.output, number) for number in range(1, 10)]


def _saved(
    asked: Encode | Edit,
    fit: Callable[..., Representation],
    ranks: Ranks = ALONE,
    before: Representation | None = None,
) -> tuple[Representation, Path]:
    """What comes of a fit, saved and told by the first rank, and its checkpoint; a stopped run that gave another result
    than `before` is gone on with."""
    refused: OtherRunError | None = None
    for path in _checkpoints(asked):
        if refused is not None and not ranks.of_first(os.path.exists(path)):
            break
        # Ctrl-C while the result is measured and saved must not lose it.
        with interruption(), claimed(path) if ranks.first else nullcontext(True) as free:
            if not ranks.of_first(free):
                note("%s: is of a run that is under way with the same OUTPUT", path)
                continue
            ranks.together(partial(check_checkpoint, path, asked.resume))
            resuming = ranks.of_first(asked.resume and os.path.exists(path))
            how = {"device": asked.device, "max_memory": asked.max_memory, "resume": asked.resume}
            try:
                result = fit(checkpoint=path, progress=not asked.quiet, **how)
            except OtherRunError as error:
                refused = refused or error
                continue
            if ranks.first:
                save_and_tell(result, asked.output, asked.overwrite or (resuming and result is not before))
            return result, path
    raise refused or ranks.alike(ConfigError(f"{asked.output}: nine runs write it already; choose another OUTPUT"))


def save_and_tell(representation: Representation, output: Path, overwrite: bool) -> None:
    """Save a result and print one line on it."""
    save(representation, output, overwrite)
    print(summary(output, representation))


def settings_of(asked: Encode | EncodeMany) -> dict[str, Any]:
    """Options of the run: those of the config file, overridden by those of the command line."""
    given = part(EncodeConfig, asked.given) | part(Reading, asked.given)
    if asked.config_path is None:
        return given
    settings = read_settings(asked.config_path)
    replaced = {name for group in _ALTERNATIVES if given.keys() & group for name in group}
    return {name: value for name, value in settings.items() if name not in replaced} | given


def shared_network_of(path: Path | None, origin: Any) -> Representation | None:
    """The file whose network is shared; a config that a run has left names that by its origin."""
    shared_from = None if path is None else load(path)
    if origin is not None and (shared_from is None or shared_from.origin != origin):
        raise ConfigError(f"must be a file of origin {origin}, as the config says; name one", "shared_from")
    return shared_from


def _run_log(asked: Encode) -> RunLog | None:
    """The log asked for."""
    given = {name: value for name, value in part(RunLog, asked.given).items() if name != "overwrite"}
    if "folder" not in given:
        if given:
            raise ConfigError("is part of a log; give log_dir too", next(iter(given)))
        return None
    run_log = RunLog(**given, overwrite=asked.overwrite)
    if os.path.realpath(run_log.final) == os.path.realpath(asked.output):
        raise ConfigError(f"{asked.output}: the log keeps the result there itself; choose another OUTPUT")
    return run_log


def check_result(output: Path, overwrite: bool, inputs: Sequence[str | Path] = ()) -> None:
    """Raise ConfigError or OutputError unless a representation may be written there, which is none of the inputs."""
    _check_name(output)
    for path in inputs:
        if os.path.exists(path) and os.path.exists(output) and os.path.samefile(path, output):
            raise ConfigError(f"{output}: is the input, which never changes; choose another OUTPUT")
    check_output(output, overwrite)


def _check_name(output: Path) -> None:
    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: a representation is a .safetensors file; name OUTPUT so")
    if output.name.endswith(CHECKPOINT_SUFFIX):
        raise ConfigError(f"{output}: *{CHECKPOINT_SUFFIX} is where runs keep their state; choose another OUTPUT")
