"""The main job from end to end: encode a photograph, crop it, decode both. `make demo` runs this.

Writes into out/: the two representations, the decoded pictures, and overview.png.
"""

import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

import lgsirens as lg
from lgsirens.media import examples

mpl.use("Agg")
from matplotlib import pyplot as plt

OUT = Path("out")
STEPS = 225
REGION = "96:224,176:304"  # the photographer's head and the camera


def main() -> None:
    OUT.mkdir(exist_ok=True)
    photograph = examples.camera()
    inr = lg.encode(photograph, partitions=(16, 16), steps=STEPS, progress=True)
    face = inr.crop(REGION)
    inr.save(OUT / "camera.safetensors", overwrite=True)
    face.save(OUT / "face.safetensors", overwrite=True)

    whole, whole_seconds = timed_decode(OUT / "camera.safetensors")
    cropped, cropped_seconds = timed_decode(OUT / "face.safetensors")
    enlarged = lg.load(OUT / "face.safetensors").decode(scale=4)
    lg.write(OUT / "original.png", photograph, overwrite=True)
    lg.write(OUT / "camera.png", whole, overwrite=True)
    lg.write(OUT / "face.png", cropped, overwrite=True)
    lg.write(OUT / "face_x4.png", enlarged, overwrite=True)

    (top, bottom), (left, right) = face.window
    part = lg.Signal.from_array(photograph.values[top:bottom, left:right])
    assert np.array_equal(cropped.values, whole.values[top:bottom, left:right]), "a crop must not change a bit"
    draw(photograph, whole, enlarged, inr, face)
    table(
        ("camera", inr, lg.psnr(photograph, whole), f"{inr.fit.seconds:.1f}", whole_seconds),
        ("face", face, lg.psnr(part, cropped), "0 (crop)", cropped_seconds),
    )


def timed_decode(path: Path) -> tuple[lg.Signal, float]:
    began = time.monotonic()
    return lg.load(path).decode(), time.monotonic() - began


def draw(
    photograph: lg.Signal, whole: lg.Signal, enlarged: lg.Signal, inr: lg.Representation, face: lg.Representation
) -> None:
    """Original, reconstruction, error map with the partition borders, and the crop."""
    figure, axes = plt.subplots(1, 4, figsize=(20, 5.6), layout="constrained")
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255}
    (top, bottom), (left, right) = face.window
    axes[0].imshow(photograph.values[..., 0], **gray)
    axes[0].set_title("original, 512x512")
    axes[1].imshow(whole.values[..., 0], **gray)
    axes[1].add_patch(
        plt.Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec="tab:red", lw=2)
    )
    axes[1].set_title(f"decoded: {inr.fit.psnr:.1f} dB, {inr.parameters['total']:,} parameters")
    error = np.abs(whole.values[..., 0] - photograph.values[..., 0])
    drawn = axes[2].imshow(error, cmap="magma", vmin=0, vmax=np.quantile(error, 0.995))
    for axis_line, size, length in (
        (axes[2].axhline, inr.lattice.tile[0], 512),
        (axes[2].axvline, inr.lattice.tile[1], 512),
    ):
        for border in range(size, length, size):
            axis_line(border - 0.5, color="white", lw=0.3, alpha=0.6)
    figure.colorbar(drawn, ax=axes[2], shrink=0.8, label="absolute error")
    axes[2].set_title(f"error and the borders of {len(inr.lattice)} partitions")
    axes[3].imshow(enlarged.values[..., 0], **gray, extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5))
    axes[3].set_title(f"the crop, decoded at scale 4: {face.parameters['total']:,} parameters")
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(OUT / "overview.png", dpi=80)


def table(*rows: tuple[str, lg.Representation, float, str, float]) -> None:
    """The figures before and after the crop."""
    heads = (
        ("samples", 9),
        ("partitions", 12),
        ("parameters", 12),
        ("bytes", 10),
        ("PSNR", 11),
        ("fit, s", 10),
        ("decode, s", 11),
    )
    print(" " * 8 + "".join(f"{head:>{width}}" for head, width in heads))
    for name, shown, quality, fit_seconds, decode_seconds in rows:
        size = (OUT / f"{name}.safetensors").stat().st_size
        print(
            f"{name:<8}{'x'.join(map(str, shown.shape)):>9}{len(shown.lattice):>12,}{shown.parameters['total']:>12,}"
            f"{size:>10,}{quality:>8.2f} dB{fit_seconds:>10}{decode_seconds:>11.2f}"
        )
    print(f"\nThe crop's samples are the same bits as before. Pictures: {OUT}/overview.png and beside it.")


if __name__ == "__main__":
    main()
