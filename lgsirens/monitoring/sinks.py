"""Where figures of a run go: TensorBoard and Weights & Biases, told the same in the same way.

What fails inside the two packages is for the caller to survive: a log is not worth a run.
"""

import html
import io
import os
import socket
import tempfile
import time
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lgsirens.errors import require
from lgsirens.monitoring.drawing import Pixels, png
from lgsirens.system.console import note
from lgsirens.system.output import settle

_SECONDS_FOR_THE_NETWORK = 20.0
_EVENTS = "events.out.tfevents."


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
            file.setparams((self.samples.shape[1], 2, self.rate, 0, "NONE", ""))
            file.writeframes(np.rint(self.samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        return buffer.getvalue()


class TensorBoard:
    """An event file, written here and not by a thread of PyTorch's writer, which tells of a full disk by a traceback.

    Args:
        folder: of the run.
        first_step: what earlier files of the folder say of this step and later ones no longer counts.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._events = require("tensorboard.compat.proto.event_pb2", "a log", "tensorboard")
        self._summaries = require(
            "torch.utils.tensorboard.summary", "a log", "tensorboard"
        )  # which stands on tensorboard
        records = require("tensorboard.summary.writer.record_writer", "a log", "tensorboard")
        self._path = folder / f"{_EVENTS}{_next_second(folder):010}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = self._path.open("xb")
        self._records = records.RecordWriter(self._file)
        self._write(first_step, file_version="brain.Event:2")
        self._write(first_step, session_log=self._events.SessionLog(status=self._events.SessionLog.START))
        settle(folder)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summaries.scalar(name, value))
        self._file.flush()  # so that a viewer sees the whole summary
        settle(self._path)  # before the state of the run that goes on after it

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        # PyTorch's `image` would pack it three times as long.
        size = dict(zip(("height", "width", "colorspace"), pixels.shape, strict=True))
        self._add(step, tag=name, image={**size, "encoded_image_string": png(pixels)})

    def audio(self, name: str, clip: Clip, step: int) -> None:
        # PyTorch's `audio` knows one channel only.
        size = dict(zip(("length_frames", "num_channels"), clip.samples.shape, strict=True))
        packed = {"encoded_audio_string": clip.wav(), "content_type": "audio/wav", "sample_rate": clip.rate}
        self._add(step, tag=name, audio=size | packed)

    def text(self, name: str, text: str, step: int) -> None:
        # It is shown as Markdown, where indented text stays as it is.
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        self._write(step, summary=self._summaries.text(name, indented))

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, **value: Any) -> None:
        self._write(step, summary={"value": [value]})

    def _write(self, step: int, **what: Any) -> None:
        event = self._events.Event(wall_time=time.time(), step=step, **what)
        self._records.write(event.SerializeToString())


class WeightsAndBiases:
    """A run at Weights & Biases, or kept in the folder for `wandb sync` where there is no key or no network.

    Args:
        folder: of the run; everything goes into its `wandb/`.
        name: shown at Weights & Biases.
        config: the options of the run.
        resuming: go on with the last run in the folder.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], resuming: bool) -> None:
        self._wandb = require("wandb", "Weights & Biases", "wandb")
        # Before anything else, so that nothing is printed.
        self._wandb.setup(self._wandb.Settings(silent=True))
        settings = self._wandb.Settings(
            silent=True,
            console="off",  # standard output is the result's
            reinit="create_new",  # a run of the caller's own goes on
            init_timeout=_SECONDS_FOR_THE_NETWORK,
            finish_timeout=_SECONDS_FOR_THE_NETWORK,
            x_disable_stats=True,
        )
        self._options: dict[str, Any] = {"project": "lgsirens", "dir": str(folder), "name": name, "settings": settings}
        self._options |= {"config": dict(config)}
        if resuming and (last := _last_run(folder)):
            self._options |= {"id": last, "resume": "allow"}
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


# What takes the figures of a run; another one has the same methods. Images are `[H, W, 3]`.
Sink = TensorBoard | WeightsAndBiases


def _next_second(folder: Path) -> int:
    """The second to name an event file by: TensorBoard reads them in the order of their names, and a run may be gone on
    with within a second, or after the clock was set back."""
    there = [path.name.removeprefix(_EVENTS).partition(".")[0] for path in folder.glob(f"{_EVENTS}*")]
    return max([round(time.time()), *(int(second) + 1 for second in there if second.isdecimal() and len(second) <= 10)])


def _last_run(folder: Path) -> str:
    """The id of the last Weights & Biases run in a folder; empty if there is none."""
    latest = folder / "wandb" / "latest-run"  # a link to (offline-)run-DATE-ID
    return latest.resolve().name.rpartition("-")[2] if latest.exists() else ""
