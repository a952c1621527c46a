"""Where figures of a run go: TensorBoard and Weights & Biases, told the same in the same way.

Both packages are optional and imported late. What fails inside them is for the caller to survive: a log is not worth
a run.
"""

import html
import io
import tempfile
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lgsirens.errors import MissingDependencyError
from lgsirens.monitoring.drawing import png
from lgsirens.system.console import note

Pixels = NDArray[np.uint8]

_SECONDS_FOR_THE_NETWORK = 20.0


@dataclass(frozen=True)
class Clip:
    """A sound to play.

    Attributes:
        samples: `[S, C]` in [-1, 1], one or two channels.
        rate: samples per second.
    """

    samples: NDArray[Any]
    rate: int

    def wav(self) -> bytes:
        """A WAV file of 16 bits."""
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(self.samples.shape[1])
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(np.rint(self.samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        return buffer.getvalue()


class Sink(Protocol):
    """What takes the figures of a run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        """`pixels`: `[H, W, 3]`."""
        ...

    def audio(self, name: str, clip: Clip, step: int) -> None: ...

    def text(self, name: str, text: str, step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """An event file.

    Args:
        folder: of the run.
        first_step: what earlier files of the folder say of this step and later ones no longer counts.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard.writer import SummaryWriter

        # Untyped in some releases of PyTorch.
        self._writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # so that a viewer sees the whole summary

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width, channels = pixels.shape
        # `add_image` would pack it three times as long.
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png(pixels))
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def audio(self, name: str, clip: Clip, step: int) -> None:
        # `add_audio` knows one channel only.
        from tensorboard.compat.proto.summary_pb2 import Summary

        audio = Summary.Audio(
            sample_rate=clip.rate,
            num_channels=clip.samples.shape[1],
            length_frames=len(clip.samples),
            encoded_audio_string=clip.wav(),
            content_type="audio/wav",
        )
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, audio=audio)]), step)

    def text(self, name: str, text: str, step: int) -> None:
        # It is shown as Markdown, where indented text stays as it is.
        self._writer.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()), step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases, or kept in the folder for `wandb sync` where there is no key or no network.

    Args:
        folder: of the run; everything goes into its `wandb/`.
        name: shown at Weights & Biases.
        config: the options of the run.
        resuming: go on with the last run in the folder.

    Raises:
        MissingDependencyError: wandb is not installed.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], resuming: bool) -> None:
        self._wandb = require_wandb()
        # Before anything else, so that nothing is printed.
        self._wandb.setup(self._wandb.Settings(silent=True))
        last = _last_run(folder) if resuming else ""
        self._options = {
            "project": "lgsirens",
            "dir": str(folder),
            "name": name,
            "config": dict(config),
            **({"id": last, "resume": "allow"} if last else {}),
            "settings": self._wandb.Settings(
                silent=True,
                console="off",  # standard output is the result's
                reinit="create_new",  # a run of the caller's own goes on
                init_timeout=_SECONDS_FOR_THE_NETWORK,
                finish_timeout=_SECONDS_FOR_THE_NETWORK,
                x_disable_stats=True,
            ),
        }
        self._run = self._start()

    def _start(self) -> Any:
        if self._wandb.setup().settings.mode != "online":  # the user's own choice
            return self._wandb.init(**self._options)
        try:
            if self._wandb.login(prompt=False):
                return self._wandb.init(**self._options)
            reason = "no API key"
        except Exception as error:  # of many kinds: key, network, service
            reason = str(error).split("\n")[0].rstrip(".")
        run = self._wandb.init(mode="offline", **self._options)
        note("Weights & Biases: %s; logged offline, `wandb sync %s` sends it", reason, Path(run.dir).parent)
        return run

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step, commit=True)  # told last; else the step waits for the next one

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        self._run.log({name: self._wandb.Image(Image.fromarray(pixels))}, step=step)

    def audio(self, name: str, clip: Clip, step: int) -> None:
        # From a file, because an array would need soundfile.
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(clip.wav())
            file.flush()
            self._run.log({name: self._wandb.Audio(file.name, clip.rate)}, step=step)

    def text(self, name: str, text: str, step: int) -> None:
        self._run.log({name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def close(self) -> None:
        self._run.finish()


def require_tensorboard() -> None:
    """Raise MissingDependencyError if tensorboard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise MissingDependencyError("a log needs tensorboard: pip install 'lgsirens[tensorboard]'") from None


def require_wandb() -> Any:
    """The package wandb, or MissingDependencyError."""
    try:
        import wandb

        wandb.init  # noqa: B018 (a folder of that name passes for a package)
    except (ImportError, AttributeError):
        raise MissingDependencyError("Weights & Biases needs wandb: pip install 'lgsirens[wandb]'") from None
    return wandb


def _last_run(folder: Path) -> str:
    """The id of the last Weights & Biases run in a folder; empty if there is none."""
    latest = folder / "wandb" / "latest-run"  # a link to (offline-)run-DATE-ID
    return latest.resolve().name.rpartition("-")[2] if latest.exists() else ""
