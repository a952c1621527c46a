"""The table of fuzz targets, and the one thing that is asked of each: an answer, or an error of ours in one line, in
5 seconds and 1 GiB."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lgsirens.errors import LgsirensError
from trials.fuzz import checkpoints, media, representations, words
from trials.fuzz.mutation import Mutate, mutated_json, mutated_zip

SECONDS, BYTES = 5.0, 1 << 30


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        minutes: of CPU time, in a campaign of usual length.
        seeds: inputs to start from.
        run: gives an input to the code; it may write to the path, with a suffix.
        mutate: an input, the most bytes that may come of it, a source of chance, and libFuzzer's own mutation.
    """

    minutes: float
    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes, Path], None]
    mutate: Callable[[bytes, int, Random, Mutate], bytes] | None = None


TARGETS = {
    "representation": Target(15, representations.files, representations.read_file, representations.mutate_file),
    "manifest": Target(15, representations.manifests, representations.read_manifest, mutated_json),
    "checkpoint": Target(15, checkpoints.checkpoints, checkpoints.read, mutated_zip),
    "words": Target(3, words.words, words.read_words),
    "config": Target(3, words.configs, words.read_config),
    "media": Target(3, media.files, media.read_file, media.mutate_file),
}


class Finding(AssertionError):
    """What must not be."""


def attempt(name: str, content: bytes, path: Path) -> bool:
    """Run a target; returns whether the input was taken, not refused.

    Raises:
        Finding: an error in several lines, or too much time or memory.
        Exception: another than ours.
    """
    before, began, taken = _peak(), time.process_time(), True
    try:
        TARGETS[name].run(content, path)
    except LgsirensError as error:
        taken = False
        if len(str(error).splitlines()) != 1:
            raise Finding(f"several lines: {error}") from error
        # FFmpeg's own has a number: it refuses sizes beyond 2^31 before it asks for memory.
        if isinstance(cause := error.__cause__, MemoryError) and not hasattr(cause, "errno"):
            raise Finding(f"refused by chance, for want of memory: {error}") from cause
    seconds, grown = time.process_time() - began, _peak() - before
    if seconds > SECONDS:
        raise Finding(f"took {seconds:.1f} s")
    if grown > BYTES and len(content) < 1 << 20:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        raise Finding(f"took {grown >> 20} MiB for {len(content)} bytes")
    return taken


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
