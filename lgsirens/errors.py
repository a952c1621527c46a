"""The exceptions of lgsirens: one tree, and nothing else leaves the package for what a user can cause.

Every message is one line that names the input, the reason and the remedy. `exit_code` is what the command
line returns: 2 for wrong use or bad input, 1 for a failure at run time.
"""

import importlib
from typing import Any


class LgsirensError(Exception):
    """Base of all errors of this package.

    Args:
        message: made one line. With an option it goes on after the option's name: `("0: must be at least 1", "steps")`.
        option: the option that it is about, as Python spells it.

    Attributes:
        told: another process of the run says it.
    """

    exit_code = 2
    told = False

    def __init__(self, message: str, option: str | None = None) -> None:
        whole = message if option is None else f"{option} {message}"
        super().__init__(" ".join(whole.splitlines()))  # names in it, of files and in them, may have several lines
        self.message, self.option = message, option


class ConfigError(LgsirensError):
    """An option or argument that cannot be, alone or together with the others."""


class SignalError(LgsirensError):
    """A signal, or a file said to hold one, that cannot be read, encoded or written."""


class RegionError(LgsirensError):
    """A region, size or set of partitions that the representation does not have."""


class FileFormatError(LgsirensError):
    """A `.safetensors` file that is damaged, or that is not an lgsirens representation."""


class OtherRunError(FileFormatError):
    """A checkpoint of another run."""


class MissingDependencyError(LgsirensError):
    """An optional package that the request needs; the message names the extra that installs it."""


class OutputError(LgsirensError):
    """An output that may not be written: it exists, or its folder does not."""


class RunError(LgsirensError):
    """A failure at run time that is nobody's wrong use: a full disk, a folder that is not writable."""

    exit_code = 1


def require(module: str, purpose: str, extra: str) -> Any:
    """Import an optional package.

    Args:
        purpose: what needs it, for the message.
        extra: of this package, which installs it.

    Raises:
        MissingDependencyError: it is not there, or the library that it wraps is not.
    """
    try:
        found = importlib.import_module(module)
        if found.__file__ is None:  # any folder of that name passes for a package; wandb makes one in each run's folder
            raise ImportError(f"{module} is a mere folder")
        return found
    except (ImportError, OSError) as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(f"{purpose} needs {package}: pip install 'lgsirens[{extra}]'") from error
