"""The signals that the published commands encode."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lgsirens.errors import ConfigError, SignalError
from lgsirens.media import examples
from lgsirens.media.files import read
from lgsirens.media.formats import recognised
from lgsirens.media.frames import Frames
from lgsirens.paper.flags import AudioFlags, Flags, ImageFlags, VideoFlags
from lgsirens.signal import Array, Signal, to_sample_type
from lgsirens.system.console import note

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow converts RGB to gray


def read_signal(flags: Flags) -> Signal:
    """The signal that the flags name, reduced and converted as they say.

    Raises:
        SignalError: no such file, or none of that kind.
        ConfigError: a film that is not there, flags out of range.
        MissingDependencyError: an optional package is needed.
    """
    readers: dict[str, Callable[[Any], Signal]] = {"image": _read_image, "audio": _read_audio, "video": _read_video}
    return readers[flags.kind](flags)


def as_published(signal: Signal, channels: int, name: str) -> Signal:
    """The signal as the published code encodes it with so many channels: images as gray or RGB, sounds as the mean of
    their channels. `name` it in what is said of it."""
    if signal.kind == "image" and channels in (1, 3):
        return _with_channels(signal, channels, name)
    if signal.kind != "audio" or channels != 1 or signal.channels == 1:
        return signal
    mean = np.asarray(signal.values).mean(axis=-1, keepdims=True, dtype=np.float64)
    return Signal.from_array(mean, "audio", None, signal.sampling_rate, signal.dtype)


def describes_sound(values: dict[str, Any]) -> bool:
    """Whether flags of `train_img.py` describe a sound, as the published commands for audio do; an audio file given as
    `dataset_path` is then moved to `wav_path`."""
    path, grid = str(values.get("dataset_path", "")), values.get("downsample")
    three = isinstance(grid, list) and len(grid) == 3 and "dataset" not in values
    absent = path not in ("", "cameraman") and not os.path.exists(path)
    sound = _is_sound(path) or (three and absent)  # a sound that is not there is told when it is read
    if not (sound or (three and not path) or "wav_path" in values):
        return False
    if sound and "wav_path" not in values:
        values["wav_path"] = values.pop("dataset_path")
    note("these flags describe a sound: it is encoded as train_audio.py does")
    return True


def _is_sound(path: str) -> bool:
    """False where there is no file to look into; that is told when it is read."""
    head = b""
    with suppress(OSError, ValueError), open(path, "rb") as file:
        head = file.read(4096)
    form = recognised(head)
    return form is not None and form.kinds == ("audio",)


def reading(flags: Flags) -> dict[str, object]:
    """How the film was read, in the words of our own options; empty if it was read whole."""
    if not isinstance(flags, VideoFlags) or (flags.frames is None and flags.max_side is None):
        return {}
    return {"frames": _frames(flags), "max_side": flags.max_side}


def _read_image(flags: ImageFlags) -> Signal:
    own = flags.dataset_path == "cameraman"
    signal = examples.camera() if own else read(flags.dataset_path)
    if signal.kind != "image":
        script = f"train_{signal.kind}.py" if signal.kind in ("audio", "video") else "lgsirens encode"
        raise SignalError(f"{flags.dataset_path}: is of kind {signal.kind}; use {script} or name an image")
    channels = flags.image_channels or (1 if own else 3)
    hint = "" if flags.image_channels else "; --image_channels 1 saves two of three channels"
    signal = _with_channels(signal, channels, flags.dataset_path, hint)
    return _reduced(signal, flags.image_resolution_factor)


def _with_channels(signal: Signal, channels: int, name: str, hint: str = "") -> Signal:
    """An image as gray (1) or RGB (3)."""
    values = np.asarray(signal.values)
    if values.shape[-1] in (2, 4):
        note("%s: its alpha channel is left out", name)
        values = values[..., :-1]
    if values.shape[-1] == channels:
        return replace(signal, values=values)
    if channels == 1:
        note("%s: RGB is taken as gray", name)
        return replace(signal, values=to_sample_type(values.astype(np.float64) @ _LUMA[:, None], str(values.dtype)))
    note("%s: gray is taken as RGB%s", name, hint)
    return replace(signal, values=np.repeat(values, 3, axis=-1))


def _reduced(signal: Signal, factor: float) -> Signal:
    """The image at `1 / factor` of its size, rounded down; Pillow's bilinear filter looks at all that it reduces."""
    if factor == 1:
        return signal
    height, width = (int(n // max(factor, 1)) for n in signal.shape)
    if factor < 1 or min(height, width) < 1:
        raise ConfigError(f"{factor:g}: must be from 1 to the image's size {signal.shape}", "image_resolution_factor")

    def reduced(channel: Array) -> Array:
        return np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))

    channels = [reduced(signal.values[..., c].astype(np.float32)) for c in range(signal.channels)]
    return replace(signal, values=to_sample_type(np.stack(channels, axis=-1), str(signal.values.dtype)))


def _read_audio(flags: AudioFlags) -> Signal:
    path = flags.wav_path or _data_file("gt_bach.wav")
    if path is not None:
        return read(path, "audio")
    note("no data/gt_bach.wav (it comes with github.com/vsitzmann/siren): encoding the synthesised prelude")
    return examples.prelude()


def _read_video(flags: VideoFlags) -> Signal:
    frames = _frames(flags)
    if flags.dataset in ("bikes", "bunny"):
        return getattr(examples, flags.dataset)(frames, flags.max_side)  # type: ignore[no-any-return]
    path = _data_file("cat_video.mp4") if flags.dataset == "cat" else flags.dataset
    if path is None:
        origin = "the SIREN project has it (the data link of github.com/vsitzmann/siren)"
        raise SignalError(f"data/cat_video.mp4: is not there; {origin}; put it there, or name any film: --dataset FILM")
    return read(path, "video", frames=frames, max_side=flags.max_side)


def _data_file(name: str) -> Path | None:
    """A file that a user has put into `data/`, in or beside the working directory or in the checkout."""
    folders = (Path("data"), Path("..", "data"), Path(__file__).resolve().parents[2] / "data")
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def parse_frames(text: str) -> tuple[int | None, int | None]:
    """The first frame and the one after the last of 0:50 (raises ValueError); an end may be left out."""
    start, stop = (int(end) if end.strip() else None for end in text.split(":"))
    return start, stop


def _frames(flags: VideoFlags) -> Frames:
    try:
        return parse_frames(flags.frames or ":")
    except ValueError:
        raise ConfigError(f"{flags.frames!r}: expected a range of frames such as 0:50", "frames") from None
