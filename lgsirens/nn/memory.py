"""How many samples one evaluation of a model takes at a time, and the working memory that this needs."""

from lgsirens.errors import ConfigError
from lgsirens.nn.siren import ModelConfig
from lgsirens.system.hardware import format_bytes

MIB = 1 << 20
DEFAULT_LIMIT = 1 << 30

# Near the last-level cache: larger blocks are not faster on a CPU (docs/lab-notes.md), smaller ones pay overhead.
_EVALUATION_BYTES = 32 * MIB
_TRAINING_BYTES = 64 * MIB
# An accelerator wants fewer, larger calls.
_ACCELERATOR_FACTOR = 16
_LARGEST_CALL = 16_384


def evaluation_bytes(config: ModelConfig) -> int:
    """Working memory of one sample when a model is only evaluated: what is alive at once."""
    return 4 * (3 * config.global_width + 5 * config.local_width + 2 * config.dimensions + 2 * config.channels)


def training_bytes(config: ModelConfig) -> int:
    """Working memory of one sample in a training step: every pre-activation and activation is kept."""
    per_depth = 2 * config.global_width + (6 if config.mode == "lg" else 2) * config.local_width
    return 4 * ((config.hidden_layers + 1) * per_depth + 4 * config.channels + 2 * config.dimensions)


def evaluation_samples(config: ModelConfig) -> int:
    """Samples of one evaluation call; depends on the model alone, so that results do not depend on the request."""
    return min(_LARGEST_CALL, _power_of_two(_EVALUATION_BYTES // evaluation_bytes(config)))


def training_samples(config: ModelConfig, accelerated: bool, limit: int) -> int:
    """Samples of one block of a training step.

    Args:
        accelerated: the device is no CPU.
        limit: bytes that the block may use.

    Raises:
        ConfigError: the limit is below what 16 samples need.
    """
    each = training_bytes(config)
    if limit < 16 * each:
        raise ConfigError(f"{format_bytes(limit)}: is below one step; give at least {16 * each} bytes", "max_memory")
    factor = _ACCELERATOR_FACTOR if accelerated else 1
    wanted = min(_LARGEST_CALL * factor, _power_of_two(_TRAINING_BYTES * factor // each))
    return max(16, min(wanted, _power_of_two(limit // each)))


def _power_of_two(count: int) -> int:
    return 1 << max(0, count.bit_length() - 1)
