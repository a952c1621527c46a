"""One process of a campaign: libFuzzer's loop around one target. What it finds it writes down, and goes on."""

import argparse
import json
import os
import re
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

import atheris
import torch
from torch._weights_only_unpickler import Unpickler

with atheris.instrument_imports(include=["lgsirens", "PIL", "tifffile", "yaml", "zipfile"]):
    from lgsirens.system.console import log
    from trials.fuzz.targets import TARGETS, Finding, attempt

Unpickler.load = atheris.instrument_func(Unpickler.load)

_ROOM = 6 << 30  # of address space, beyond what importing takes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    log.setLevel("ERROR")
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM,) * 2)
    state = _State(asked)
    state.tell()
    target = TARGETS[asked.name]
    options = [
        *("fuzz", str(asked.folder / "corpus"), f"-seed={asked.seed + 1}", "-max_len=65536", "-len_control=0"),
        *(f"-artifact_prefix={asked.folder}/native/", "-timeout=60", "-report_slow_units=1000", "-rss_limit_mb=8000"),
    ]
    mutator = {} if target.mutate is None else {"custom_mutator": state.mutate}
    atheris.Setup(options, state.one, **mutator)
    atheris.Fuzz()


class _State:
    """What a process has done so far."""

    def __init__(self, asked: Any) -> None:
        self.name, self.folder, self.limit = asked.name, asked.folder, asked.seconds
        self.path = asked.folder / "input"
        self.runs = self.taken = 0
        self.began = time.process_time()

    def one(self, content: bytes) -> None:
        """One run; ends the process when its time is over, whose loop has no other end."""
        self.runs += 1
        try:
            self.taken += attempt(self.name, content, self.path)
        except Exception as error:
            self._keep(content, error)
        if self.runs % 64 == 0 and self.tell() > self.limit:
            os._exit(0)

    def tell(self) -> float:
        """Write down what was done; returns seconds of CPU time."""
        spent = time.process_time() - self.began
        counts = {"runs": self.runs, "taken": self.taken, "seconds": spent}
        (self.folder / "counts.json").write_text(json.dumps(counts))
        return spent

    def mutate(self, content: bytes, size: int, seed: int) -> bytes:
        mutate = TARGETS[self.name].mutate
        assert mutate is not None
        return mutate(content, size, Random(seed), atheris.Mutate)[:size]

    def _keep(self, content: bytes, error: Exception) -> None:
        """The smallest input of each finding: of one type of error at one place."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/lgsirens/" in frame.filename] or frames
        where = "_".join(f"{Path(frame.filename).stem}.{frame.name}" for frame in (own[-1], frames[-1]))
        what = f"Finding {str(error).partition(':')[0]}" if isinstance(error, Finding) else type(error).__name__
        kept = self.folder / "findings" / re.sub(r"\W+|\d+", "_", f"{what} {where}")
        if not kept.exists() or len(content) < kept.stat().st_size:
            kept.write_bytes(content)
            kept.with_name(f"{kept.name}.txt").write_text(
                "".join(traceback.format_exception(error)), errors="backslashreplace"
            )


if __name__ == "__main__":
    sys.exit(main())
