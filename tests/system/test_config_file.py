"""Options in YAML: what is written is read back, and what is read is what is written."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, strategies

import lgsirens as lg
from lgsirens.system.config_file import config_yaml, read_settings

VALUES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.floats(allow_nan=False),
    strategies.text(strategies.characters(codec="utf-8", exclude_categories=["Cs"])),
    strategies.from_regex(r"[-+]?[0-9._eExX]{1,6}", fullmatch=True),
    strategies.lists(strategies.integers()),
)


@given(VALUES)
@example("1e5")
@example("0010")
@example("12e03")
@example(5e-4)
@example(1e-7)
def test_every_value_comes_back(value):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.yaml")
        path.write_text(config_yaml({"option": value}), encoding="utf-8", newline="")
        (found,) = read_settings(path).values()
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(("text", "named"), [("a: 1\nb: 2\na: 1\n", "a is given twice"), ("- 1", "option: value")])
def test_what_is_no_list_of_options_is_refused(tmp_path, text, named):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(lg.ConfigError, match=named):
        read_settings(tmp_path / "a.yaml")
