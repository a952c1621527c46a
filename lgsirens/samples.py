"""Real signals that need no download."""

from lgsirens.errors import MissingDependencyError
from lgsirens.signal import Signal


def camera() -> Signal:
    """scikit-image's `camera`: 512x512, gray, 8 bit."""
    return _picture("camera")


def astronaut() -> Signal:
    """scikit-image's `astronaut`: 512x512, RGB, 8 bit."""
    return _picture("astronaut")


def _picture(name: str) -> Signal:
    try:
        from skimage import data
    except ImportError:
        raise MissingDependencyError(
            f"the sample {name} comes with scikit-image: pip install 'lgsirens[samples]'"
        ) from None
    return Signal.from_array(getattr(data, name)(), "image")
