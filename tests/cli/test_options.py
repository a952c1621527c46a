"""Options are declared once: what help says, and what the command line, YAML, Python and the published flags refuse."""

import contextlib
import io
import math
import re
from dataclasses import MISSING, fields
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.cli.main import COMMANDS
from lgsirens.cli.options import NAMES
from lgsirens.grid.coordinates import COORDINATES
from lgsirens.paper import flags
from lgsirens.system.config_file import config_yaml
from lgsirens.system.hardware import memory, memory_limit
from lgsirens.system.schema import bare, declared, from_text
from tests.command import run
from tests.small import KIND_OF_RANK

SIGNAL = lg.Signal.from_array(np.zeros((4, 4), dtype=np.uint8))
LIMITED = [name for name, rule in declared(lg.EncodeConfig).items() if (rule.least, rule.above) != (None, None)]
CHOSEN = [name for name, rule in declared(lg.EncodeConfig).items() if rule.choices]


def help_of(command):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    return " ".join(out.getvalue().split("options:")[1].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_the_help_is_a_field_with_the_same_default(command):
    declaring = {name: cls for cls in COMMANDS[command][1] for name in declared(cls)}
    ours = {NAMES.get(name, name): name for name in declaring}
    entries = re.split(r" --(?=[a-z_]+ )", help_of(command).removeprefix("-h, --help show this help message and exit"))
    shown = {entry.split()[0]: entry for entry in entries if entry}
    positional = {name for name, cls in declaring.items() if declared(cls)[name].positional}
    assert set(shown) == set(ours) - positional
    for flag, entry in shown.items():
        cls = declaring[ours[flag]]
        (field,) = (field for field in fields(cls) if field.name == ours[flag])
        rule, hint = declared(cls)[field.name], get_type_hints(cls)[field.name]
        assert rule.help in entry
        if field.default is not MISSING and not rule.shown:
            default = re.search(r"\(default: (.*)\)$", entry)[1]
            assert (None if default == "None" else from_text(hint, default)) == field.default


def test_the_default_of_max_memory_is_the_one_that_is_shown():
    shown = re.search(r"--max_memory .*?\(default: ([^)]*)\)", " ".join(help_of("encode").split()))[1]
    assert (shown, memory_limit(None)) == ("half of the machine's", memory() // 2)


def around(rule, kind):
    """Values on both sides of the limits of an option, and on them."""
    bounds = [bound for bound in (rule.least, rule.above, rule.most) if bound is not None]
    if kind is int:
        return st.one_of(*(st.integers(int(bound) - 3, int(bound) + 3) for bound in bounds))
    near = [value for b in bounds for value in (b, math.nextafter(b, -math.inf), math.nextafter(b, math.inf))]
    return st.sampled_from([float(value) for value in near]) | st.floats(-2, 2e6, width=32)


@st.composite
def choices(draw):
    """An option of an encoding, a value, and whether it may have it."""
    name = draw(st.sampled_from(LIMITED))
    rule, hint = declared(lg.EncodeConfig)[name], bare(get_type_hints(lg.EncodeConfig)[name])
    several = get_origin(hint) is tuple
    value = draw(around(rule, get_args(hint)[0] if several else hint))
    allowed = all(
        bound is None or (value >= bound if kind == "least" else value > bound if kind == "above" else value <= bound)
        for kind, bound in (("least", rule.least), ("above", rule.above), ("most", rule.most))
    )
    return name, (value, 4) if several else value, allowed


def words_of(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def answers(folder, name, value):
    """The option that the command line, YAML and Python say is wrong."""
    (folder / "run.yaml").write_text(config_yaml({name: list(value) if isinstance(value, tuple) else value}))
    found = []
    for words in (
        [f"--{name}", words_of(value) if not isinstance(value, str) else value],
        ["--config_path", "run.yaml"],
    ):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.chdir(folder):
            assert run("encode", "a.npy", "a.safetensors", *words) == 2
        assert err.getvalue().count("\n") == 1
        found.append(re.match(r"lgsirens: --(\w+) ", err.getvalue())[1])
    with pytest.raises(lg.ConfigError) as caught:
        lg.encode(SIGNAL, **{name: value})
    return {*found, caught.value.option}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "a.npy", SIGNAL.values)
    return folder


@given(choices())
def test_command_line_yaml_and_python_refuse_the_same_values(arrays, choice):
    name, value, allowed = choice
    other = {"local_width": "global_width", "global_width": "local_width"}.get(name)
    if allowed:
        config = lg.EncodeConfig.from_options({name: value} | ({other: 4} if other else {}))
        assert getattr(config, name) == value
    else:
        assert answers(arrays, name, value) == {name}


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("value", ["", "LG", "siren"])
def test_what_is_no_choice_is_refused_everywhere(arrays, name, value):
    assert answers(arrays, name, value) == {name}


@given(choices())
def test_the_published_flags_refuse_the_same_values(choice):
    name, value, allowed = choice
    flag = flags.NAMES.get(name, name)
    cls = flags.VideoFlags
    if flag not in declared(cls) or flag == "hidden_features":  # of all partitions together
        return
    value = list(value) if isinstance(value, tuple) else value
    words = [f"--{flag}", words_of(tuple(value) if isinstance(value, list) else value)]
    for given_ in ({flag: value}, flags.given_values(words)):
        if allowed:
            assert getattr(flags.build(cls, given_), flag) == value
        else:
            with pytest.raises(lg.ConfigError) as caught:
                flags.build(cls, given_)
            assert caught.value.option == flag


@st.composite
def scaled(draw):
    """The shape of a signal, and scales of its coordinates: one number, alone or in a list, or one per axis."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    number = st.floats(0.01, 100)
    scale = number | number.map(lambda s: (s,)) | st.tuples(*[number] * len(shape))
    coordinates = draw(st.sampled_from(COORDINATES))
    given = {"local_scale": draw(scale)} | ({"shared_scale": draw(scale)} if coordinates == "tile" else {})
    return shape, {"coordinates": coordinates, **given}


@settings(max_examples=20)
@given(scaled())
def test_scales_are_the_same_from_python_the_command_line_and_the_config_of_a_run(arrays, problem):
    shape, given_ = problem
    array, kind = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape), KIND_OF_RANK[len(shape)]
    np.save(arrays / "s.npy", array)
    inr = lg.encode(lg.Signal.from_array(array, kind), steps=1, local_width=4, global_width=4, **given_)
    for name in ("shared_scale", "local_scale"):
        if name in given_:
            numbers = np.broadcast_to(given_[name], len(shape)).tolist()
            assert getattr(inr.coordinates, name) == tuple(numbers)
            assert inr.config[name] == numbers
    # files of before hold one number
    (arrays / "before.yaml").write_text(config_yaml(inr.config | {n: v for n, v in given_.items() if type(v) is float}))
    (arrays / "run.yaml").write_text(config_yaml(inr.config))
    words = ["--steps", 1, "--local_width", 4, "--global_width", 4, "--kind", kind]
    words += [word for name, value in given_.items() for word in (f"--{name}", words_of(value))]
    for more in (words, ["--config_path", "run.yaml"], ["--config_path", "before.yaml"]):
        with contextlib.chdir(arrays), contextlib.redirect_stdout(io.StringIO()):
            assert run("encode", "s.npy", "s.safetensors", *more, "--quiet", "--overwrite") == 0
        again = lg.load(arrays / "s.safetensors")
        assert (again.coordinates, again.lineage) == (inr.coordinates, inr.lineage)


@pytest.mark.parametrize("name", ["every", "checkpoint_every"])
@pytest.mark.parametrize("steps", [0, -1, True, 1.5])
def test_a_log_is_checked_by_what_it_declares(tmp_path, name, steps):
    with pytest.raises(lg.ConfigError) as caught:
        lg.RunLog(tmp_path, **{name: steps})
    assert caught.value.option == name
