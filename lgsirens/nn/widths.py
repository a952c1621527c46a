"""From a parameter budget to the widths of a model (docs/conventions.md)."""

import bisect
import math
from collections.abc import Callable
from dataclasses import replace

from lgsirens.errors import ConfigError
from lgsirens.nn.siren import LARGEST_WIDTH, ModelConfig, parameter_counts
from lgsirens.system.console import counted

LOCAL_SHARE = 0.9
LARGEST_GLOBAL_WIDTH = 96
SMALLEST_DEFAULT_WIDTH = 8


def widths_for_budget(
    config: ModelConfig,
    partitions: int,
    budget: int,
    least_global: int = 1,
    local_share: float = LOCAL_SHARE,
    largest_global: int = LARGEST_GLOBAL_WIDTH,
) -> ModelConfig:
    """`config` with the largest widths that a budget given by the user holds.

    "lg": the largest L with `P*K <= local_share * budget` that leaves room for G = `least_global`, then the largest G,
    up to `largest_global`, that fits in what is left. "lc" and "mlp": the largest L.

    Raises:
        ConfigError: the budget holds no network on this many partitions; names the smallest that does.
    """
    smallest = _needed(config, partitions, 1, 1, local_share)
    if budget < smallest:
        held = f"cannot hold {counted(partitions, 'partition')} in mode {config.mode}"
        raise ConfigError(f"{budget}: {held}; give at least {smallest}, or fewer partitions", "parameters")
    if config.mode != "lg":
        return _with_local(config, _largest(lambda width: sum(_total(config, partitions, width, 0)), budget))
    local = _largest(lambda width: _needed(config, partitions, width, least_global, local_share), budget)
    shared = _largest(lambda width: sum(_total(config, partitions, local, width)), budget, largest_global)
    return _with_local(config, local, shared)


def default_widths(config: ModelConfig, partitions: int, samples: int, parameters_per_sample: float) -> ModelConfig:
    """`config` with the widths of our own default budget: that of the kind of signal, no width below 8.

    Where 8 exceeds the budget (small signals, many partitions) the budget grows to what 8 needs.

    Args:
        samples: sample positions of the signal.
        parameters_per_sample: budget for each of them.
    """
    budget, least = int(samples * parameters_per_sample), SMALLEST_DEFAULT_WIDTH
    return widths_for_budget(config, partitions, max(budget, _needed(config, partitions, least, least)), least)


def _needed(
    config: ModelConfig, partitions: int, local_width: int, global_width: int, local_share: float = LOCAL_SHARE
) -> int:
    """The smallest budget that gives these widths; G counts in mode "lg" alone."""
    if config.mode != "lg":
        return sum(_total(config, partitions, local_width, 0))
    local, shared = _total(config, partitions, local_width, global_width)
    return max(local + shared, math.ceil(local / local_share))


def _with_local(config: ModelConfig, local_width: int, global_width: int = 0) -> ModelConfig:
    return replace(config, local_width=local_width, global_width=global_width)


def _total(config: ModelConfig, partitions: int, local_width: int, global_width: int) -> tuple[int, int]:
    return parameter_counts(_with_local(config, local_width, global_width), partitions)


def _largest(size: Callable[[int], int], limit: int, highest: int = LARGEST_WIDTH) -> int:
    """The largest width, at least 1, whose (increasing) size is within the limit."""
    return max(1, bisect.bisect_right(range(1, highest + 1), limit, key=size))
