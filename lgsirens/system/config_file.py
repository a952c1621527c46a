"""Options in a YAML file: `option: value`, one a line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgsirens.errors import ConfigError, require

# 5e-4 is a number, as in YAML 1.2; PyYAML wants 5.0e-4.
_FLOAT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def config_yaml(config: Mapping[str, Any]) -> str:
    """The options that make the run again, for `--config_path`."""
    dumper = _with_floats(_yaml().SafeDumper)  # quotes text that reads as a number
    return str(_yaml().dump(dict(config), Dumper=dumper, sort_keys=True, default_flow_style=None))


def read_settings(path: Path, example: str = "`info --config` prints an example") -> dict[str, Any]:
    """The options of a file by name; their types are left to be checked.

    Args:
        example: where the reader of an error finds a file that is right.

    Raises:
        ConfigError: it cannot be read, or is no YAML mapping.
        MissingDependencyError: pyyaml is not installed.
    """
    yaml = _yaml()
    try:
        text, loader = path.read_text(encoding="utf-8"), _with_floats(yaml.SafeLoader)
        settings = yaml.load(text, loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML ({' '.join(str(error).split())}); {example}") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"{path}: expected lines `option: value`; {example}")
    names = [key.value for key, _ in yaml.compose(text, loader).value]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: {max(names, key=names.count)} is given twice; leave one of them out")
    return settings


def _yaml() -> Any:
    return require("yaml", "a config in YAML", "cli")


def _with_floats(cls: Any) -> Any:
    """A loader or dumper that takes 5e-4 for a number."""
    extended: Any = type(cls.__name__, (cls,), {})
    extended.add_implicit_resolver(*_FLOAT)
    return extended
