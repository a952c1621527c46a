"""Options in a YAML file: `option: value`, one a line."""

import re
from pathlib import Path
from typing import Any

from lgsirens.errors import ConfigError
from lgsirens.report import yaml_module


def read_settings(path: Path, example: str = "`info --config` prints an example") -> dict[str, Any]:
    """The options of a file by name; their types are left to be checked.

    Args:
        example: where the reader of an error finds a file that is right.

    Raises:
        ConfigError: it cannot be read, or is no YAML mapping.
        MissingDependencyError: pyyaml is not installed.
    """
    yaml = yaml_module()
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _loader(yaml))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML ({' '.join(str(error).split())}); {example}") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"{path}: expected lines `option: value`; {example}")
    return settings


def _loader(yaml: Any) -> Any:
    """A safe loader that takes 5e-4 for a number, as YAML 1.2 does; PyYAML wants 5.0e-4."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
    return Loader
