"""What there is to say of a representation: its figures, and how it compares with the original."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import SignalError
from lgsirens.grid.box import Box, box_of_shape, box_shape, box_size, contains, format_box, intersect, shifted
from lgsirens.grid.lattice import Ids
from lgsirens.lazy import part_of
from lgsirens.representation.decode import Decoding
from lgsirens.representation.file import FORMAT_VERSION, sizes
from lgsirens.representation.measure import measure
from lgsirens.representation.metrics import psnr_of_sum, recorded, ssim
from lgsirens.representation.representation import Representation
from lgsirens.representation.rows import row_chunks
from lgsirens.signal import Signal
from lgsirens.system.console import counted, times
from lgsirens.system.hardware import format_bytes
from lgsirens.system.schema import to_plain

_WORST = 5
_LISTED = 8  # partitions named in a line


def describe(representation: Representation, check: bool = True) -> dict[str, Any]:
    """The figures of a representation as plain data; with `check` reads and checks every row.

    `shape` counts the samples of the window; `window` and `extent` are `[start, stop]` per dimension; bytes are those
    of the file; `bits_per_sample` is file bits over sample positions of the window.
    """
    for _ in row_chunks(representation.rows) if check else ():
        pass
    figures = sizes(representation)
    signal, model = representation.signal, representation.model
    return {
        "kind": signal.kind,
        "shape": list(representation.shape),
        "window": to_plain(representation.window),
        "extent": to_plain(representation.extent),
        "channels": signal.channels,
        "sample_type": signal.dtype,
        "value_range": list(signal.value_range),
        "sampling_rate": None if signal.rate is None else float(signal.rate),
        "spacing": to_plain(signal.spacing),
        "colour": to_plain(signal.colour),
        "mode": model.mode,
        "local_width": model.local_width,
        "global_width": model.global_width,
        "partitions": len(representation.lattice),
        "tile": list(representation.lattice.tile),
        "overlaps": list(representation.lattice.halo),
        "parameters": representation.parameters,
        "bytes": figures,
        "bits_per_sample": 8 * figures["file"] / box_size(representation.window),
        "fit": to_plain(representation.fit),
        "origin": representation.origin,
        "history": list(representation.history),
        "format_version": FORMAT_VERSION,
    }


def summary(path: Path, representation: Representation) -> str:
    """One line on a file that was written."""
    signal, count = representation.signal, representation.parameters["total"]
    size = format_bytes(sizes(representation)["file"])
    return (
        f"{path}: {signal.kind} {times(representation.shape)}, {counted(signal.channels, 'channel')}, "
        f"{representation.model.mode}, {counted(len(representation.lattice), 'partition')}, {count:,} parameters, "
        f"{size}, {_first_reached(to_plain(representation.fit), representation.history)}"
    )


def describe_text(facts: dict[str, Any]) -> str:
    """`describe` for people."""
    return _table(describe_lines(facts))


def describe_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of `describe_text`, each a name and what there is to say."""
    size, fit, lines = facts["bytes"], facts["fit"], _lines(facts)
    lowest, highest = facts["value_range"]
    apart = f", {' x '.join(f'{step:.5g}' for step in facts['spacing'])} apart" if facts["spacing"] else ""
    colour = f", colour {'/'.join(map(str, facts['colour']))} of ITU-T H.273" if facts["colour"] else ""
    lines = {
        "signal": f"{facts['kind']}, {lines['signal']}, {facts['sample_type']}, values {lowest:g} to {highest:g}"
        f"{apart}{colour}",
        "window": f"{format_box(facts['window'])} of {format_box(facts['extent'])}",
        "model": f"{facts['mode']}, {lines['model']}",
        "parameters": lines["parameters"],
        "bytes": f"{lines['bytes']}: {size['local']:,} local, {size['shared']:,} shared, {size['index']:,} index, "
        f"{size['header']:,} header; {facts['bits_per_sample']:.2f} bits per sample",
        "fit": f"{_first_reached(fit, facts['history'])} on {fit['device']} ({fit['stopped']})",
        "format": f"version {facts['format_version']}, origin {facts['origin'][:12]}",
    }
    return [*lines.items(), *((str(entry["action"]), _history_text(entry)) for entry in facts["history"])]


def dry_run_text(facts: dict[str, Any]) -> str:
    """`encode.dry_run` for people."""
    memory = f"about {format_bytes(facts['memory'])} beside PyTorch itself"
    seconds = f"{'at most' if facts['at_most'] else 'about'} {facts['seconds']:.0f} s"
    return _table({**_lines(facts), "time": seconds, "memory": memory}.items())


def edit_text(entry: dict[str, Any], anew: Iterable[Iterable[int]] = ()) -> str:
    """What an edit that fits has done, from its line of history.

    Args:
        anew: ids of the old partitions that it has fitted anew, if they are to be listed.
    """
    names = [",".join(map(str, name)) for name in anew]
    listed = f" ({'; '.join(names[:_LISTED])}{'; ...' if len(names) > _LISTED else ''})" if names else ""
    added, reached = counted(entry["added"], "partition"), _reached(entry, " there")
    text = f"{added} added, {entry['refitted']} fitted anew{listed}: {reached}"
    if "moved" in entry:
        likeness, largest = _decibels(entry["moved"]["psnr"]), entry["moved"]["largest"]
        text += f"; the old region moved: {likeness} against what it was, at most by {largest:.4g}"
    return text


def fitted_anew(old: Representation, new: Representation) -> Ids:
    """Ids `[n, D]` of the partitions of `old` whose rows the last edit of `new` has fitted."""
    last = new.row_edit == len(new.history) - 1
    return np.asarray(new.ids[last & (old.lattice.find(new.ids) >= 0)])


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    """What is said of a file that is there and of one that would be."""
    count, size, wide = facts["parameters"], facts["bytes"]["file"], facts["global_width"]
    rate = f", {facts['sampling_rate']:.6g} per second" if facts["sampling_rate"] else ""
    widths = f"L = {facts['local_width']}" + (f", G = {wide}" if wide else "")
    return {
        "signal": f"{times(facts['shape'])} samples{rate}, {counted(facts['channels'], 'channel')}",
        "model": f"{counted(facts['partitions'], 'partition')} of {times(facts['tile'])} samples, {widths}",
        "parameters": f"{count['total']:,}: {count['local']:,} local ({count['per_partition']:,} a partition), "
        f"{count['shared']:,} shared",
        "bytes": f"{size:,} ({format_bytes(size)})",
    }


def _history_text(entry: dict[str, Any]) -> str:
    facts = [f"{entry['date']} by {entry['version']}", f"window {format_box(entry['window'])}"]
    facts += [counted(entry[f"{noun}s"], noun) for noun in ("partition", "piece") if f"{noun}s" in entry]
    return ", ".join(facts) + (f"; {edit_text(entry)}" if "refitted" in entry else "")


def _reached(fit: dict[str, Any], where: str) -> str:
    """How a fit ended; `where` its PSNR was measured, if that is not all of the signal."""
    unknown = fit["psnr"] is None and (fit["stopped"] == "imported" or not fit.get("measured", True))
    quality = "not measured" if unknown else _decibels(fit["psnr"])
    return f"{quality}{where} after {counted(fit['steps'], 'step')} in {fit['seconds']:.1f} s"


def _first_reached(fit: dict[str, Any], history: Sequence[Any]) -> str:
    """How the fit of the encoding ended; after an edit it says less of the file."""
    return _reached(fit, " (of the first encoding)" if len(history) > 1 else "")


def _decibels(psnr: float | None) -> str:
    return "exact" if psnr is None else f"{psnr:.2f} dB"


def _table(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<11} {text}" for name, text in lines)


def compare(representation: Representation, original: Signal, device: str = "auto") -> dict[str, Any]:
    """PSNR (dB) and SSIM of the window against the original, overall and of the five worst partitions.

    Args:
        original: the signal that was encoded, or just its part in the window.

    Raises:
        SignalError: the original has another size, type or number of channels.
    """
    window, reference = representation.window, _cut(representation, original)
    places = representation.lattice.meeting(window)
    if not len(places):
        raise SignalError("no sample is left to compare; choose a window that holds a partition")
    errors, _ = measure(representation, reference, window, places, device, "auto")
    samples = representation.lattice.select(places).samples_of_each(window)
    worst = places[np.argsort(-errors / samples, kind="stable")[:_WORST]]

    def facts(place: int) -> dict[str, Any]:
        box, number = intersect(representation.lattice.box(place), window), int(np.searchsorted(places, place))
        return {
            "partition": representation.ids[place].tolist(),
            "region": format_box(box),
            "psnr": recorded(psnr_of_sum(reference, float(errors[number]), int(samples[number]))),
            "ssim": ssim(_region(reference, window, box), Decoding(representation, box, device=device).by_region()),
        }

    # SSIM looks at neighbourhoods: where partitions are missing it would measure the holes.
    complete = samples.sum() == box_size(window)
    return {
        "psnr": recorded(psnr_of_sum(reference, float(errors.sum()), int(samples.sum()))),
        "ssim": ssim(reference, Decoding(representation, device=device).by_region()) if complete else None,
        "worst": [facts(place) for place in worst.tolist()],
    }


def compare_text(facts: dict[str, Any]) -> str:
    """`compare` for people."""
    parts = {"against": {"region": "whole window", **facts}}
    parts |= {f"worst {','.join(map(str, part['partition']))}": part for part in facts["worst"]}
    lines = {}
    for name, part in parts.items():
        similarity = "-" if part["ssim"] is None else f"{part['ssim']:.4f}"
        lines[name] = f"{part['region']:<24} PSNR {_decibels(part['psnr']):<10} SSIM {similarity}"
    return _table(lines.items())


def _cut(representation: Representation, original: Signal) -> Signal:
    """The part of the original that lies in the window."""
    signal, window, first = representation.signal, representation.window, representation.coordinates.size
    reference = replace(original, value_range=signal.value_range)
    boxes = [window, representation.extent]
    if not any(entry["action"] == "move" for entry in representation.history):  # or the first signal lies elsewhere
        boxes.append(box_of_shape(first))
    if (original.channels, original.dtype) == (signal.channels, signal.dtype):
        for box in boxes:
            if original.shape == box_shape(box) and contains(box, window):
                return _region(reference, box, window)
    given = f"{times(original.shape)}, {counted(original.channels, 'channel')}, {original.dtype}"
    held = f"{times(representation.shape)} of {times(first)}, {counted(signal.channels, 'channel')}, {signal.dtype}"
    raise SignalError(f"the original is {given}, the file {held}; give the signal that was encoded")


def _region(signal: Signal, box: Box, region: Box) -> Signal:
    """The part of a signal whose samples fill `box`."""
    at = shifted(region, [-start for start, _ in box])
    return replace(signal, values=part_of(signal.values, at), mask=None)
