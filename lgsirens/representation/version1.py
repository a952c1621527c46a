"""What files of format version 1 say, in the words of version 2.

Version 1 knew one kind of coordinates, kept the ids of fitted partitions in its history instead of an entry for each
row, and had no lineage.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of version 2 with the same meaning, its history as it is (`row_edits` wants it).

    Raises:
        KeyError, TypeError, ValueError: it is no manifest of version 1.
    """
    frame, axes = dict(manifest["frame"]), len(manifest["tile"])
    size, scale, local = (frame.pop(name) for name in ("size", "scale", "local_scale"))
    if frame:
        raise ValueError(f"frame has unknown parts, {', '.join(frame)}")
    coordinates = {
        "kind": "signal",
        "size": size,
        "shared_scale": [scale] * axes,
        "local_scale": None if local is None else [local] * axes,
    }
    rest = {name: value for name, value in manifest.items() if name != "frame"}
    return {**rest, "coordinates": coordinates, "codec": "float32", "lineage": manifest["origin"]}


def row_edits(
    history: tuple[dict[str, Any], ...], ids: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`row_edit` and `row_blank` of a representation."""
    place = {tuple(name): number for number, name in enumerate(ids.tolist())}
    edit, blank = np.zeros(len(ids), dtype=np.int32), np.zeros(len(ids), dtype=np.int32)
    for number, entry in enumerate(history):
        unknown = {tuple(name) for name in entry.get("blank", ())}
        for name in map(tuple, [*entry.get("added", ()), *entry.get("refitted", ())]):
            if name in place:
                at = place[name]
                edit[at], blank[at] = number, (blank[at] or number + 1) if name in unknown else 0
    return edit, blank


def counted(history: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """The history with numbers of partitions in place of their ids."""
    listed = ("added", "refitted", "blank")
    return tuple({key: len(value) if key in listed else value for key, value in entry.items()} for entry in history)
