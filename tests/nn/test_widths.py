import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsirens.errors import ConfigError
from lgsirens.nn.siren import ModelConfig, parameter_counts
from lgsirens.nn.widths import default_widths, widths_for_budget
from lgsirens.signal import KINDS


def local_count(config, partitions, width):
    """P * K, written out."""
    d, c, hidden = config.dimensions, config.channels, config.hidden_layers
    return partitions * ((d + 1) * width + hidden * (width + 1) * width + (width + 1) * c)


def shared_count(config, local, wide):
    """The shared network, written out."""
    if config.mode != "lg":
        return 0
    d, hidden = config.dimensions, config.hidden_layers
    aggregations = (local + wide + 1) * local if config.agg_type == "fc" else (hidden + 1) * (wide + 1) * local
    return (d + 1) * wide + hidden * (wide + 1) * wide + aggregations


def widths_by_trial(config, partitions, budget):
    """The rule of the design by plain search, in whole numbers; None if the budget holds nothing."""
    if config.mode != "lg":
        width = 0
        while local_count(config, partitions, width + 1) <= budget:
            width += 1
        return (width, 0) if width else None
    found = None
    local = 1
    while 10 * local_count(config, partitions, local) <= 9 * budget:
        for wide in range(96, 0, -1):
            if local_count(config, partitions, local) + shared_count(config, local, wide) <= budget:
                found = local, wide
                break
        local += 1
    return found


def smallest_budget(config, partitions):
    """What the refusal of a budget names."""
    with pytest.raises(ConfigError) as caught:
        widths_for_budget(config, partitions, 0)
    return int(re.search(r"at least (\d+)", str(caught.value))[1])


@st.composite
def configs(draw):
    mode = draw(st.sampled_from(["lg", "lc", "mlp"]))
    config = ModelConfig(
        mode,
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        0,
        hidden_layers=draw(st.integers(1, 4)),
        agg_type=draw(st.sampled_from(["fc", "fc_and_add"])),
    )
    return config, 1 if mode == "mlp" else draw(st.integers(1, 400))


@given(configs(), st.integers(1, 30), st.integers(1, 30))
def test_parameters_counts_every_weight(config_and_partitions, local, wide):
    config, partitions = config_and_partitions
    config = replace(config, local_width=local, global_width=wide if config.mode == "lg" else 0)
    expected = local_count(config, partitions, local), shared_count(config, local, wide)
    assert parameter_counts(config, partitions) == expected


@settings(max_examples=150)
@given(configs(), st.integers(0, 60_000))
def test_widths_follow_the_rule_of_the_design(config_and_partitions, more):
    config, partitions = config_and_partitions
    budget = smallest_budget(config, partitions) + more
    found = widths_for_budget(config, partitions, budget)
    assert (found.local_width, found.global_width) == widths_by_trial(config, partitions, budget)
    assert replace(found, local_width=0, global_width=0) == config
    assert sum(parameter_counts(found, partitions)) <= budget


@given(configs())
def test_the_smallest_budget_holds_a_network_and_one_less_holds_none(config_and_partitions):
    config, partitions = config_and_partitions
    smallest = smallest_budget(config, partitions)
    assert widths_by_trial(config, partitions, smallest) is not None
    assert widths_by_trial(config, partitions, smallest - 1) is None
    assert widths_for_budget(config, partitions, smallest).local_width >= 1
    for budget in (smallest - 1, 0, -5):
        with pytest.raises(ConfigError, match=f"give at least {smallest}[^0-9]") as caught:
            widths_for_budget(config, partitions, budget)
        assert str(budget) in re.findall(r"-?\d+", str(caught.value))


def test_a_local_network_that_leaves_no_room_for_a_shared_one_gives_way():
    config = ModelConfig("lg", 2, 1, 0)
    narrow = widths_for_budget(config, 1, 200)
    widest = max(width for width in range(1, 99) if 10 * local_count(config, 1, width) <= 9 * 200)
    assert narrow.local_width < widest
    assert (narrow.local_width, narrow.global_width) == widths_by_trial(config, 1, 200)


def test_the_global_width_ends_at_96():
    found = widths_for_budget(ModelConfig("lg", 2, 3, 0), 4, 10_000_000)
    assert found.global_width == 96


IMAGE = {"dimensions": 2, "partitions": 256}
AUDIO = {"dimensions": 1, "partitions": 32}
VIDEO = {"dimensions": 3, "partitions": 320}


@pytest.mark.parametrize(
    ("command", "mode", "channels", "local", "wide", "total", "parts"),
    [
        (IMAGE, "lg", 1, 14, 84, 198_930, (175_872, 23_058)),
        (IMAGE, "lc", 1, 15, 0, 199_936, None),
        (IMAGE, "mlp", 1, 256, 0, 198_401, None),
        (IMAGE, "lg", 3, 14, 84, 206_610, (183_552, 23_058)),
        (IMAGE, "lc", 3, 15, 0, 208_128, None),
        (IMAGE, "mlp", 3, 256, 0, 198_915, None),
        (AUDIO, "lg", 1, 42, 72, 198_182, (177_440, 20_742)),
        (AUDIO, "lc", 1, 45, 0, 203_072, None),
        (AUDIO, "mlp", 1, 256, 0, 198_145, None),
        (VIDEO, "lg", 3, 55, 180, 3_192_400, None),
        (VIDEO, "lc", 3, 56, 0, 3_190_720, None),
        (VIDEO, "mlp", 3, 1030, 0, 3_193_003, None),
    ],
)
def test_the_published_commands_have_their_published_counts(command, mode, channels, local, wide, total, parts):
    config = ModelConfig(mode, command["dimensions"], channels, local, wide)
    counts = parameter_counts(config, 1 if mode == "mlp" else command["partitions"])
    assert sum(counts) == total
    assert counts == (parts or (total - counts[1], counts[1]))


def test_a_gray_picture_of_512_in_tiles_of_32_gets_the_published_local_width():
    per_sample = KINDS["image"].parameters_per_sample
    assert default_widths(ModelConfig("lg", 2, 1, 0), 256, 512 * 512, per_sample).local_width == 14


@settings(max_examples=50)
@given(configs(), st.integers(1, 60_000))
def test_the_default_budget_is_kept_unless_it_would_leave_a_width_below_8(config_and_partitions, samples):
    config, partitions = config_and_partitions
    found = default_widths(config, partitions, samples, 0.75)
    assert found.local_width >= 8
    by_rule = widths_by_trial(config, partitions, int(samples * 0.75))
    if by_rule and by_rule[0] >= 8 and (config.mode != "lg" or by_rule[1] >= 8):
        assert (found.local_width, found.global_width) == by_rule


@pytest.mark.parametrize("side", [1, 16, 32, 40, 64, 96, 128, 256])
def test_the_default_gives_a_shared_network_of_width_8_at_least(side):
    tiles = (-(-side // 32)) ** 2
    found = default_widths(ModelConfig("lg", 2, 3, 0), tiles, side * side, KINDS["image"].parameters_per_sample)
    assert min(found.local_width, found.global_width) >= 8
