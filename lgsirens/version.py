"""The version of the package, also written into every file."""

__version__ = "0.1.0"
