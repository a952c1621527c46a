"""lgsirens: images, sounds, films and volumes as neural networks that can be cut, grown and read in pieces.

import lgsirens as lg

inr = lg.encode(lg.read("photo.png"), partitions=(16, 16), parameters=200_000, steps=1000)
inr.crop("100:300, 50:200").save("face.safetensors")
wider = inr.extend(lg.read("panorama.png"), offset=(0, -128))  # the old samples stay as they are, to the bit
lg.write("face.png", lg.load("face.safetensors").decode(scale=2))
pixels = lg.open("https://host/panorama.safetensors")[100:300, 50:200]  # an array; only these rows are fetched
values = inr(positions)  # [M, D] positions -> [M, C] values, differentiable in the positions
"""

import sys
from functools import partial as _partial
from functools import update_wrapper as _update_wrapper

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("lgsirens", "-mlgsirens"):
    import lgsirens_start  # `python -m lgsirens` imports this file before it runs __main__.py

    lgsirens_start.end_at_once()

from lgsirens.access.array import LazyArray
from lgsirens.access.array import open_array as open
from lgsirens.access.notebook import notebook_html as _notebook_html
from lgsirens.access.rows import RowDataset
from lgsirens.errors import (
    ConfigError,
    FileFormatError,
    LgsirensError,
    MissingDependencyError,
    OutputError,
    RegionError,
    RunError,
    SignalError,
)
from lgsirens.media.files import read, write
from lgsirens.media.within import signals_within as _signals_within
from lgsirens.monitoring.log import RunLog
from lgsirens.nn.siren import LocalGlobalSiren, ModelConfig, Siren, SirenPerPartition
from lgsirens.representation.decode import decode
from lgsirens.representation.edit import crop, merge, move
from lgsirens.representation.evaluate import evaluate
from lgsirens.representation.file import load, save
from lgsirens.representation.metrics import psnr, seam_ratio, ssim
from lgsirens.representation.representation import Representation
from lgsirens.signal import Signal
from lgsirens.system.program import __version__
from lgsirens.training.config import EncodeConfig
from lgsirens.training.encode import encode
from lgsirens.training.extend import extend, replace
from lgsirens.training.many import encode_many as _encode_many
from lgsirens.training.ranks import Ranks, ranks_of_environment
from lgsirens.training.refit import FitOptions

# Files are read by the room of media, of which the fits know nothing.
encode_many = _update_wrapper(_partial(_encode_many, read=read, find=_signals_within), _encode_many)

Representation.crop = crop
Representation.decode = decode
Representation.extend = extend
Representation.merge = merge
Representation.move = move
Representation.replace = replace
Representation.save = save
Representation.__call__ = evaluate
Representation._repr_html_ = _notebook_html

__all__ = [
    "ConfigError",
    "EncodeConfig",
    "FileFormatError",
    "FitOptions",
    "LazyArray",
    "LgsirensError",
    "LocalGlobalSiren",
    "MissingDependencyError",
    "ModelConfig",
    "OutputError",
    "Ranks",
    "RegionError",
    "Representation",
    "RowDataset",
    "RunError",
    "RunLog",
    "Signal",
    "SignalError",
    "Siren",
    "SirenPerPartition",
    "__version__",
    "crop",
    "decode",
    "encode",
    "encode_many",
    "evaluate",
    "extend",
    "load",
    "merge",
    "move",
    "open",
    "psnr",
    "ranks_of_environment",
    "read",
    "replace",
    "save",
    "seam_ratio",
    "ssim",
    "write",
]
