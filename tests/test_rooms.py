"""Law 12: the rooms import downwards only, as the README draws them; optional packages come in by one door."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lgsirens"


def drawn():
    """The README's drawing: room -> what it has arrows to, other rooms or a single file of one, such as `grid.box`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (house,) = re.findall(r"^## The house\n+```\nlgsirens/\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rooms = {}
    for line in house.splitlines():
        room, below = re.fullmatch(r"  (\w+) +.*?(?: -> ([\w.]+(?:, [\w.]+)*))?", line).groups()
        rooms[room] = below.split(", ") if below else []
    return rooms


def reachable(arrows, room):
    """What a room may import: what it has an arrow to, and whatever that may import."""
    below = set(arrows[room])
    for other in arrows[room]:
        below |= reachable(arrows, other.partition(".")[0])
    return below


def modules(path):
    """What a file imports of the package, late or for type checking too, as `room.file.name` or as much as is said."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("lgsirens.") for name in names if name.partition(".")[0] == "lgsirens")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in ("__init__", "__main__")]
EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def test_the_drawing_has_every_room_and_no_other():
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert set(drawn()) == folders | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}


def test_no_arrow_goes_round_and_media_is_for_those_who_read_files():
    """A single file that others may import stands below the rest of its room: it imports none of that."""
    arrows = drawn()
    single = {name for below in arrows.values() for name in below if "." in name}
    assert single == {"grid.box"}
    assert not [name for name in modules(PACKAGE / "grid" / "box.py") if name.startswith("grid.")]
    assert not [room for room in arrows if {room, f"{room}.box"} & reachable(arrows, room)]
    assert {room for room in arrows if "media" in reachable(arrows, room)} == {"cli", "paper"}


@EVERY_FILE
def test_a_room_imports_only_what_lies_below(path):
    room = room_of(path)
    allowed = reachable(drawn(), room) | {room}
    for name in modules(path):
        first, *more = name.split(".")
        assert first in allowed or ".".join([first, *more[:1]]) in allowed, f"{path} imports lgsirens.{name}"


def test_a_room_says_what_it_is_and_offers_nothing():
    """What it has is imported from its files, so that an import says where a thing lives."""
    for path in PACKAGE.glob("*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert [type(statement) for statement in body] == [ast.Expr], path


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
)
def test_files_that_are_named_are_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:lgsirens|tests|benchmarks|docs|examples)/[\w/]+\.\w+", text))
    assert not [path for path in named if not (ROOT / path).exists()]
