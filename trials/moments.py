"""What happens to real runs at random moments: processes of their own, from the start of Python on."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trials.commands import SECONDS, Ended

_PROGRAM = "import sys; from trials.commands import in_small; in_small(); "
_PROGRAM += "from lgsirens_start import main; code = main(); "
_PROGRAM += (
    "print('peak', *(line.split()[1] for line in open('/proc/self/status') if line[:6] in ('VmPeak', 'VmHWM:'))); "
)
_PROGRAM += "sys.exit(code)"
_CGROUPS = Path("/sys/fs/cgroup/memory")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Undisturbed:
    """What a run takes that nothing happens to: seconds, address space and memory, in bytes; of which its imports."""

    seconds: float
    space: int
    memory: int
    imports: "Undisturbed | None" = None


def start(words: list[str], folder: Path, before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    """A real run."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(_ROOT)},
        preexec_fn=before,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a run."""
    said = process.communicate(timeout=SECONDS)[1]
    return Ended(process.returncode, said)


def measured(words: list[str], folder: Path) -> Undisturbed:
    """Run undisturbed."""
    began = time.monotonic()
    process = start(words, folder)
    out, said = process.communicate(timeout=SECONDS)
    assert process.returncode in (0, 2), said
    space, memory = (1024 * int(number) for number in out.split("peak ")[-1].split()[:2])
    return Undisturbed(time.monotonic() - began, space, memory)


def killed(words: list[str], folder: Path, usual: Undisturbed, chosen: random.Random) -> Ended:
    """SIGKILL at a moment, mostly after the imports."""
    process = start(words, folder)
    time.sleep(_moment(usual, chosen))
    process.kill()
    return ended(process)


def stopped(words: list[str], folder: Path, usual: Undisturbed, chosen: random.Random) -> Ended:
    """SIGSTOP at a moment, and SIGCONT when the same command has run beside it."""
    process = start(words, folder)
    time.sleep(_moment(usual, chosen))
    process.send_signal(signal.SIGSTOP)
    other = ended(start(words, folder))
    assert other.code in (0, 2), other
    process.send_signal(signal.SIGCONT)
    return ended(process)


def out_of_memory(words: list[str], folder: Path, usual: Undisturbed, chosen: random.Random) -> Ended:
    """A cgroup with less memory than the run takes: the kernel kills it."""
    assert usual.imports is not None
    group = _CGROUPS / "lgsirens-trial"
    group.mkdir(exist_ok=True)
    try:
        limit = int(chosen.uniform(0.25, 0.7) * usual.memory)  # a part of which is libraries, read again when needed
        (group / "memory.limit_in_bytes").write_text(str(limit))
        return ended(start(words, folder, lambda: (group / "cgroup.procs").write_text(str(os.getpid()))))
    finally:
        time.sleep(0.05)
        group.rmdir()


def little_space(words: list[str], folder: Path, usual: Undisturbed, chosen: random.Random) -> Ended:
    """`ulimit -v`, between what the imports take and what the run takes."""
    assert usual.imports is not None
    limit = chosen.randint(*sorted((usual.imports.space, usual.space)))
    return ended(start(words, folder, lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))))


def small_files(words: list[str], folder: Path, usual: Undisturbed, chosen: random.Random) -> Ended:
    """`ulimit -f`."""
    limit = int(2 ** chosen.uniform(8, 18))
    return ended(start(words, folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))


def full_disk(words: list[str], folder: Path, usual: Undisturbed, chosen: random.Random) -> Ended:
    """A small file system, which is as large as one likes afterwards."""
    left = 4096 * int(2 ** chosen.uniform(0, 6))
    with _tmpfs(folder, left):
        return ended(start(words, folder))


HAPPENINGS = {
    "kill -9": killed,
    "SIGSTOP and SIGCONT": stopped,
    "out-of-memory kill": out_of_memory,
    "ulimit -v": little_space,
    "ulimit -f": small_files,
    "small file system": full_disk,
}


def possible(name: str) -> bool:
    """Whether this user on this machine can let it happen."""
    if name == "out-of-memory kill":
        return os.access(_CGROUPS, os.W_OK) and (_CGROUPS / "memory.limit_in_bytes").exists()
    return name != "small file system" or os.geteuid() == 0


def _moment(usual: Undisturbed, chosen: random.Random) -> float:
    assert usual.imports is not None
    return usual.imports.seconds * 0.9 + chosen.random() * (usual.seconds - usual.imports.seconds * 0.9)


@contextmanager
def _tmpfs(folder: Path, left: int) -> Iterator[None]:
    """The folder in memory, with so many bytes left; its files come back to the disk at the end."""
    with tempfile.TemporaryDirectory() as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        used = sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
        size = (used + left + 4096) // 1024
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], check=True)
        try:
            shutil.copytree(aside, folder, dirs_exist_ok=True)
            yield
            shutil.rmtree(aside)
            shutil.copytree(folder, aside, symlinks=True)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)
        shutil.copytree(aside, folder)
        Path(aside).mkdir(exist_ok=True)
