"""The fuzz targets of `make fuzz`, a little: what they start from, what was found, and some mutations of these."""

import time
import warnings
from pathlib import Path
from random import Random

import pytest

from trials.fuzz import targets
from trials.fuzz.targets import TARGETS, Finding, Target, attempt

FOUND = sorted(path for path in (Path(__file__).parent / "data" / "fuzz").glob("*/*"))


@pytest.fixture(autouse=True)
def _as_a_user_has_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def raw(content, size):
    """A few bytes set, cut out or put in."""
    random, data = Random(content), bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(data) + 1)
        data[place : place + random.randrange(3)] = random.randbytes(random.randrange(3))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_most_of_what_a_target_starts_from_is_taken(name, tmp_path):
    taken = [attempt(name, content, tmp_path / "a") for content in TARGETS[name].seeds()]
    assert sum(taken) >= len(taken) / 2


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_is_refused_in_one_line(path, tmp_path):
    assert not attempt(path.parent.name, path.read_bytes(), tmp_path / "a")


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_taken_or_refused(name, tmp_path):
    random, target = Random(0), TARGETS[name]
    for _ in range(60):
        content = random.choice(target.seeds())
        mutated = raw(content, 1 << 16) if target.mutate is None else target.mutate(content, 1 << 16, random, raw)
        attempt(name, mutated, tmp_path / "a")


def _takes_time(content, path):
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass


def _fails(content, path):
    raise KeyError("a")


def _takes_memory(content, path):
    bytearray(5 << 28)[::4096] = bytes(len(range(0, 5 << 28, 4096)))


WRONG = {
    "time": (_takes_time, "took 0.2 s"),
    "memory": (_takes_memory, "MiB for 0 bytes"),
    "another error": (_fails, "a"),
}


@pytest.mark.parametrize(("run", "what"), WRONG.values(), ids=WRONG)
def test_what_must_not_be_is_found(monkeypatch, tmp_path, run, what):
    monkeypatch.setitem(TARGETS, "wrong", Target(1, list, run))
    monkeypatch.setattr(targets, "SECONDS", 0.1 if run is _takes_time else 60)
    with pytest.raises((Finding, KeyError), match=what):
        attempt("wrong", b"", tmp_path / "a")
