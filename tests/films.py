"""Small films for tests."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.signal import Signal

NTSC = Fraction(30000, 1001)


def noise(shape: tuple[int, ...], dtype: str = "uint8", rate: Fraction | None = Fraction(25)) -> Signal:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return Signal.from_array(values, "video", sampling_rate=rate)


def smooth(count: int = 6, height: int = 32, width: int = 48) -> Signal:
    """Colours that H.264 keeps well, each frame brighter than the one before."""
    t, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    values = np.stack([40 + 20 * t + x, 60 + 15 * t + y, 200 - 10 * t - x], axis=-1)
    return Signal.from_array(values.astype(np.uint8), "video", sampling_rate=NTSC)


def film(
    path: Path, count: int = 6, times: list[int] | None = None, sound: bool = False, codec: str = "libx264"
) -> Path:
    """A film made with PyAV alone: frame i is gray of level 20 * i, at `times` in 1/90 s (default: 30 frames/s)."""
    clock = Fraction(1, 90 if times else 30)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=30, options={"bf": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.time_base = clock
        track = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for index in range(count):
            gray = np.full((16, 32), 20 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, "gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = (times[index] if times else index), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 48000, 0
            container.mux(track.encode(silence))
            container.mux(track.encode(None))
    return path


def levels(signal: Signal) -> list[int]:
    return [round(float(frame.mean()) / 20) for frame in signal.values]


def refusal(path: Path, **options) -> str:
    with pytest.raises(SignalError) as caught:
        files.read(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "; " in message
    assert "\n" not in message
    return message
