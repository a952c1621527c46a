"""What there is to say of a representation: its figures, and how it compares with the original."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import SignalError
from lgsirens.grid.box import Box, box_of_shape, box_shape, box_size, contains, format_box, intersect, is_empty
from lgsirens.representation.decode import decode
from lgsirens.representation.file import FORMAT_VERSION, sizes
from lgsirens.representation.metrics import psnr, recorded, ssim
from lgsirens.representation.representation import Representation
from lgsirens.representation.rows import row_chunks
from lgsirens.signal import Signal
from lgsirens.system.console import counted, times
from lgsirens.system.hardware import format_bytes
from lgsirens.system.schema import to_plain

_WORST = 5
_LISTED = 8  # partitions named in a line


def describe(representation: Representation) -> dict[str, Any]:
    """The figures of a representation as plain data; reads and checks every row.

    `shape` counts the samples of the window; `window` and `extent` are `[start, stop]` per dimension; bytes are those
    of the file; `bits_per_sample` is file bits over sample positions of the window.
    """
    for _ in row_chunks(representation.rows):
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
    fit = representation.fit
    whole = " (of the first encoding)" if len(representation.history) > 1 else ""
    return (
        f"{path}: {representation.signal.kind} {times(representation.shape)}, "
        f"{counted(representation.signal.channels, 'channel')}, {representation.model.mode}, "
        f"{counted(len(representation.lattice), 'partition')}, "
        f"{representation.parameters['total']:,} parameters, {format_bytes(sizes(representation)['file'])}, "
        f"{_quality(fit.psnr, fit.stopped)}{whole} after {counted(fit.steps, 'step')} in {fit.seconds:.1f} s"
    )


def describe_text(facts: dict[str, Any]) -> str:
    """`describe` for people."""
    count, size, fit = facts["parameters"], facts["bytes"], facts["fit"]
    quality = _quality(fit["psnr"], fit["stopped"])
    widths = f"L = {facts['local_width']}" + (f", G = {facts['global_width']}" if facts["global_width"] else "")
    whole = ", of the first encoding" if len(facts["history"]) > 1 else ""
    rate = "" if facts["sampling_rate"] is None else f", {facts['sampling_rate']:.6g} per second"
    lines = {
        "signal": f"{facts['kind']}, {times(facts['shape'])} samples{rate}, {counted(facts['channels'], 'channel')}, "
        f"{facts['sample_type']}, values {facts['value_range'][0]:g} to {facts['value_range'][1]:g}",
        "window": f"{format_box(facts['window'])} of {format_box(facts['extent'])}",
        "model": f"{facts['mode']}, {counted(facts['partitions'], 'partition')} of {times(facts['tile'])} samples, "
        f"{widths}",
        "parameters": f"{count['total']:,}: {count['local']:,} local ({count['per_partition']:,} a partition), "
        f"{count['shared']:,} shared",
        "bytes": f"{size['file']:,} ({format_bytes(size['file'])}): {size['local']:,} local, {size['shared']:,} "
        f"shared, {size['index']:,} index, {size['header']:,} header; {facts['bits_per_sample']:.2f} bits per sample",
        "fit": f"{quality} after {counted(fit['steps'], 'step')}, {fit['seconds']:.1f} s on {fit['device']} "
        f"({fit['stopped']}){whole}",
        "format": f"version {facts['format_version']}, origin {facts['origin'][:12]}",
    }
    history = [(str(entry["action"]), _history_text(entry)) for entry in facts["history"]]
    return "\n".join(f"{name:<11} {text}" for name, text in [*lines.items(), *history])


def _history_text(entry: dict[str, Any]) -> str:
    facts = [f"{entry['date']} by {entry['version']}", f"window {format_box(entry['window'])}"]
    if "partitions" in entry:
        facts.append(counted(entry["partitions"], "partition"))
    if "pieces" in entry:
        facts.append(counted(entry["pieces"], "piece"))
    return ", ".join(facts) + (f"; {edit_text(entry)}" if "refitted" in entry else "")


def edit_text(entry: dict[str, Any], anew: Iterable[Sequence[int]] = ()) -> str:
    """What an edit that fits has done, from its line of history.

    Args:
        anew: ids of the old partitions that it has fitted anew, if they are to be listed.
    """
    names = [",".join(map(str, name)) for name in anew]
    listed = f" ({'; '.join(names[:_LISTED])}{'; ...' if len(names) > _LISTED else ''})" if names else ""
    reached = _quality(entry["psnr"], entry["stopped"])
    text = (
        f"{counted(entry['added'], 'partition')} added, {entry['refitted']} fitted anew{listed}: {reached} there after "
        f"{counted(entry['steps'], 'step')} in {entry['seconds']:.1f} s"
    )
    if "moved" in entry:
        psnr_against, largest = entry["moved"]["psnr"], entry["moved"]["largest"]
        kept = _quality(psnr_against, entry["stopped"])
        text += f"; the old region moved: {kept} against what it was, at most by {largest:.4g}"
    return text


def fitted_anew(old: Representation, new: Representation) -> list[list[int]]:
    """Ids of the partitions of `old` whose rows the last edit of `new` has fitted."""
    last = new.row_edit == len(new.history) - 1
    ids: list[list[int]] = new.ids[last & (old.lattice.find(new.ids) >= 0)].tolist()
    return ids


def compare(representation: Representation, original: Signal, device: str = "auto") -> dict[str, Any]:
    """PSNR (dB) and SSIM of the window against the original, overall and of the five worst partitions.

    Args:
        original: the signal that was encoded, or just its part in the window.

    Raises:
        SignalError: the original has another size or number of channels.
    """
    window = representation.window
    reference = _cut(representation, original)
    decoded = decode(representation, device=device)
    where = decoded.mask
    worst = []
    for place in range(len(representation.lattice)):
        box = intersect(representation.lattice.box(place), window)
        if not is_empty(box):
            parts = _region(reference, window, box), _region(decoded, window, box)
            worst.append((psnr(*parts), place, box, parts))
    worst.sort(key=lambda entry: entry[:2])
    return {
        "psnr": recorded(psnr(reference, decoded, where)),
        # SSIM looks at neighbourhoods: where partitions are missing it would measure the holes.
        "ssim": ssim(reference, decoded) if where is None else None,
        "worst": [
            {
                "partition": to_plain(tuple(int(k) for k in representation.lattice.ids[place])),
                "region": format_box(box),
                "psnr": recorded(value),
                "ssim": ssim(*parts),
            }
            for value, place, box, parts in worst[:_WORST]
        ],
    }


def compare_text(facts: dict[str, Any]) -> str:
    """`compare` for people."""

    def row(name: str, region: str, values: dict[str, Any]) -> str:
        quality = "exact" if values["psnr"] is None else f"{values['psnr']:.2f} dB"
        similarity = "-" if values["ssim"] is None else f"{values['ssim']:.4f}"
        return f"{name:<11} {region:<24} PSNR {quality:<10} SSIM {similarity}"

    lines = [row("against", "whole window", facts)]
    return "\n".join(
        lines + [row("worst " + ",".join(map(str, w["partition"])), w["region"], w) for w in facts["worst"]]
    )


def dry_run_text(facts: dict[str, Any]) -> str:
    """`encode.dry_run` for people."""
    count, size = facts["parameters"], facts["bytes"]
    widths = f"L = {facts['local_width']}" + (f", G = {facts['global_width']}" if facts["global_width"] else "")
    return "\n".join(
        (
            f"signal      {times(facts['shape'])} samples, {counted(facts['channels'], 'channel')}",
            f"model       {counted(facts['partitions'], 'partition')} of {times(facts['tile'])} samples, {widths}",
            f"parameters  {count['total']:,}: {count['local']:,} local, {count['shared']:,} shared",
            f"bytes       {size['file']:,} ({format_bytes(size['file'])})",
            f"time        about {facts['seconds']:.0f} s",
            f"memory      about {format_bytes(facts['memory'])} beside PyTorch itself",
        )
    )


def _quality(value: float | None, stopped: str) -> str:
    """The PSNR of a fit in words."""
    if value is None:
        return "not measured" if stopped == "imported" else "exact"
    return f"{value:.2f} dB"


def _cut(representation: Representation, original: Signal) -> Signal:
    """The part of the original that lies in the window."""
    window = representation.window
    if original.channels != representation.signal.channels:
        raise SignalError(
            f"the original has {counted(original.channels, 'channel')}, the file {representation.signal.channels}; "
            "give its own"
        )
    if original.dtype != representation.signal.dtype:
        raise SignalError(
            f"the original has samples of type {original.dtype}, the file of type {representation.signal.dtype}; "
            "give the signal that was encoded"
        )
    reference = replace(original, value_range=representation.signal.value_range)
    if original.shape == box_shape(window):
        return reference
    for box in (representation.extent, box_of_shape(representation.coordinates.size)):
        if original.shape == box_shape(box) and contains(box, window):
            return _region(reference, box, window)
    raise SignalError(
        f"the original has {times(original.shape)} samples, the file holds {times(box_shape(window))} of "
        f"{times(representation.coordinates.size)}; give the signal that was encoded"
    )


def _region(signal: Signal, box: Box, region: Box) -> Signal:
    """The part of a signal whose samples fill `box`."""
    cut = tuple(slice(start - low, stop - low) for (start, stop), (low, _) in zip(region, box, strict=True))
    return replace(signal, values=np.ascontiguousarray(signal.values[cut]), mask=None)
