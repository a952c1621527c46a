"""The exceptions of lgsirens: one tree, and nothing else leaves the package for what a user can cause.

Every message is one line that names the input, the reason and the remedy. `exit_code` is what the command
line returns: 2 for wrong use or bad input, 1 for a failure at run time.
"""


class LgsirensError(Exception):
    """Base of all errors of this package."""

    exit_code = 2


class ConfigError(LgsirensError):
    """An option or argument that cannot be, alone or together with the others."""


class SignalError(LgsirensError):
    """A signal, or a file said to hold one, that cannot be read, encoded or written."""


class RegionError(LgsirensError):
    """A region, size or set of partitions that the representation does not have."""


class FileFormatError(LgsirensError):
    """A `.safetensors` file that is damaged, or that is not an lgsirens representation."""


class MissingDependencyError(LgsirensError):
    """An optional package that the request needs; the message names the extra that installs it."""


class OutputError(LgsirensError):
    """An output that may not be written: it exists, or its folder does not."""


class RunError(LgsirensError):
    """A failure at run time that is nobody's wrong use: a full disk, a folder that is not writable."""

    exit_code = 1
