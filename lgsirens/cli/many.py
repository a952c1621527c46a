"""The command `lgsirens encode-many`."""

import statistics
import time
from collections.abc import Sequence

from lgsirens.cli.fitting import settings_of, shared_network_of
from lgsirens.cli.options import EncodeMany, Reading, part
from lgsirens.cli.ranks import started_ranks
from lgsirens.media.files import read
from lgsirens.media.within import signals_within
from lgsirens.system.console import counted
from lgsirens.system.hardware import format_bytes, use_threads
from lgsirens.system.schema import declared, from_plain, to_plain
from lgsirens.training.config import EncodeConfig
from lgsirens.training.manifest import FileRecord
from lgsirens.training.many import encode_many


def encode_many_command(asked: EncodeMany) -> int:
    ranks = started_ranks(asked)
    use_threads(asked.threads)
    settings = ranks.together(lambda: settings_of(asked))
    shared_from = ranks.together(lambda: shared_network_of(asked.shared_from, settings.pop("shared_from", None)))
    given = to_plain(from_plain(Reading, part(Reading, settings)))
    chosen = {name: value for name, value in settings.items() if name not in declared(Reading)}
    began = time.monotonic()
    records = encode_many(
        asked.input,
        asked.output,
        ranks.together(lambda: EncodeConfig.from_options(chosen)),
        share_network=asked.share_network,
        shared_from=shared_from,
        reading={name: value for name, value in given.items() if value is not None},
        device=asked.device,
        max_memory=asked.max_memory,
        resume=asked.resume,
        overwrite=asked.overwrite,
        progress=not asked.quiet,
        ranks=ranks,
        read=read,
        find=signals_within,
    )
    if ranks.first:
        print(f"{asked.output}: {_summary(records, time.monotonic() - began)}")
    return 1 if any(record.status == "failed" for record in records) else 0


def _summary(records: Sequence[FileRecord], seconds: float) -> str:
    """What became of the files, in one line."""
    done = [record for record in records if record.status == "done"]
    size = format_bytes(sum(record.bytes or 0 for record in done))
    figures = [record.psnr for record in done if record.psnr is not None]
    quality = f", {statistics.mean(figures):.2f} dB on average" if figures else ""
    failed = f", {len(records) - len(done)} failed (manifest.jsonl says why)" if len(done) < len(records) else ""
    return f"{counted(len(done), 'file')} encoded{failed}, {size}{quality}, {seconds:.1f} s"
