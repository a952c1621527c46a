"""How many samples one evaluation of a model takes at a time, and the working memory that this needs."""

from lgsirens.errors import ConfigError
from lgsirens.nn.siren import ModelConfig
from lgsirens.system.hardware import format_bytes

MIB = 1 << 20
DEFAULT_LIMIT = 1 << 30

# Near the last-level cache: larger blocks are not faster on a CPU (docs/lab-notes.md), smaller ones pay overhead.
_EVALUATION_BYTES = 32 * MIB
_TRAINING_BYTES = 64 * MIB
# An accelerator wants fewer, larger calls, and so does a CPU where the shared network is evaluated once for all rows:
# a sample then costs so little that the overhead of a call weighs.
_ACCELERATOR_FACTOR = 16
_TILE_FACTOR = 4
_LARGEST_CALL = 16_384
# Matrix products want to be so wide.
_LEAST_COLUMNS = 64
# The fused kernel keeps nothing of a block but its samples. What the rows share is evaluated once a block, so it wants
# many rows, too.
_FUSED_SAMPLES = 1 << 20
_FUSED_COLUMNS = 4096


def evaluation_bytes(config: ModelConfig) -> int:
    """Working memory of one sample when a model is only evaluated: what is alive at once."""
    return 4 * (3 * config.global_width + 5 * config.local_width + 2 * config.dimensions + 2 * config.channels)


def training_bytes(config: ModelConfig, samples: int, columns: int, fused: bool = False) -> int:
    """Working memory of a block of so many samples in a training step: every pre-activation and activation is kept, but
    by a fused kernel.

    Args:
        columns: samples of each of its rows, if all rows see the same coordinates: those of the shared network are kept
            once for all rows. Else all samples.
    """
    if fused:
        return 4 * samples * (config.channels + 2 * config.dimensions + 2)
    depths = config.hidden_layers + 1
    local = depths * (6 if config.mode == "lg" else 2) * config.local_width
    shared = depths * 2 * config.global_width
    return 4 * (samples * (local + 4 * config.channels + 2 * config.dimensions) + columns * shared)


def evaluation_samples(config: ModelConfig) -> int:
    """Samples of one evaluation call; depends on the model alone, so that results do not depend on the request."""
    return min(_LARGEST_CALL, _power_of_two(_EVALUATION_BYTES // evaluation_bytes(config)))


def training_samples(config: ModelConfig, accelerated: bool, limit: int, alike: int, fused: bool = False) -> int:
    """Samples of one block of a training step.

    Args:
        accelerated: the device is no CPU.
        limit: bytes that the block may use.
        alike: how many partitions see the same coordinates.
        fused: by the kernel that works in the cache.

    Raises:
        ConfigError: the limit is below what 16 samples need.
    """

    def needed(samples: int) -> int:
        return training_bytes(config, samples, training_columns(samples, alike, fused), fused)

    if limit < needed(16):
        raise ConfigError(f"{format_bytes(limit)}: is below one step; give at least {needed(16)} bytes", "max_memory")
    factor, samples = _ACCELERATOR_FACTOR if accelerated else _TILE_FACTOR if alike > 1 else 1, 16
    most = _FUSED_SAMPLES if fused else _LARGEST_CALL * factor
    while samples < most and needed(2 * samples) <= min(limit, _TRAINING_BYTES * factor):
        samples *= 2
    return samples


def training_columns(samples: int, alike: int, fused: bool = False) -> int:
    """Samples of each row in a block of so many: few where `alike` partitions see the same, because what they share is
    then evaluated once for all rows."""
    return samples // max(1, min(alike, samples // (_FUSED_COLUMNS if fused else _LEAST_COLUMNS)))


def _power_of_two(count: int) -> int:
    return 1 << max(0, count.bit_length() - 1)
