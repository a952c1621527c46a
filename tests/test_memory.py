import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lgsirens.errors import ConfigError
from lgsirens.memory import (
    evaluation_bytes,
    evaluation_samples,
    format_bytes,
    parse_bytes,
    training_bytes,
    training_samples,
)
from lgsirens.model import ModelConfig


@st.composite
def models(draw):
    mode = draw(st.sampled_from(["lg", "lc", "mlp"]))
    wide = draw(st.integers(1, 2000)) if mode == "lg" else 0
    return ModelConfig(mode, draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 2000)), wide)


@given(st.integers(0, 2**53))
def test_a_whole_number_is_itself(count):
    assert parse_bytes(str(count)) == count
    assert parse_bytes(f"{count}B") == count


@given(st.integers(0, 1000), st.sampled_from("kKmMgGtT"), st.sampled_from(["", "b", "B"]), st.sampled_from(" \t"))
def test_prefixes_are_decimal_without_i_and_binary_with_it(number, prefix, unit, space):
    power = "kmgt".index(prefix.lower()) + 1
    assert parse_bytes(f"{space}{number}{space}{prefix}{unit}{space}") == number * 1000**power
    assert parse_bytes(f"{number}{space}{prefix}i{unit}") == number * 1024**power


@pytest.mark.parametrize(
    ("text", "count"),
    [("1GiB", 1 << 30), ("500MB", 500_000_000), ("65536", 65536), ("1.5k", 1500), ("0.5 KiB", 512), ("2t", 2 * 10**12)],
)
def test_amounts_of_memory(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", " ", "GiB", "-1", "+1", "1.", ".5", "1e9", "1 GB 2", "1PB", "nan", "inf", "1,5k"])
def test_what_is_no_amount_is_refused_by_name(text):
    with pytest.raises(ConfigError, match="no amount of memory") as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)


def test_an_amount_beyond_all_numbers_is_refused():
    with pytest.raises(ConfigError):
        parse_bytes("9" * 400)


@given(st.text(max_size=8) | st.from_regex(r"\A[0-9.]{0,4} ?[kmgtKMGT]?i?[bB]?\Z"))
def test_any_text_is_an_amount_or_a_config_error(text):
    try:
        count = parse_bytes(text)
    except ConfigError:
        return
    assert isinstance(count, int)
    assert count >= 0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (198_930, "198.9 kB"),
        (1_100_000_000, "1.1 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_bytes_for_people(count, text):
    assert format_bytes(count) == text


@given(st.integers(0, 10**15 - 1))
@example(999_999)
@example(999_949)
def test_a_formatted_count_has_at_most_three_digits_before_the_point_and_is_right_to_its_last(count):
    text = format_bytes(count)
    number, unit = text.split()
    assert len(number.split(".")[0]) <= 3
    size = 1000 ** ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(number) * size - count) <= 0.0501 * size


@given(models())
def test_an_evaluation_takes_a_power_of_two_of_samples_within_its_memory(model):
    samples = evaluation_samples(model)
    assert samples & (samples - 1) == 0
    assert 1 <= samples <= 16_384
    assert samples == 1 or samples * evaluation_bytes(model) <= 32 << 20


@given(models(), st.booleans(), st.integers(0, 1 << 34))
def test_a_block_of_training_stays_within_the_limit(model, accelerated, limit):
    least = 16 * training_bytes(model)
    if limit < least:
        with pytest.raises(ConfigError, match=f"give at least {least} bytes"):
            training_samples(model, accelerated, limit)
        return
    samples = training_samples(model, accelerated, limit)
    assert samples >= 16
    assert samples & (samples - 1) == 0
    assert samples * training_bytes(model) <= limit
    assert samples <= training_samples(model, accelerated, 2 * limit)


@given(models())
def test_the_limit_that_the_error_names_is_enough(model):
    assert training_samples(model, False, 16 * training_bytes(model)) == 16
    with pytest.raises(ConfigError):
        training_samples(model, False, 16 * training_bytes(model) - 1)


@given(models(), st.integers(1, 2000))
def test_wider_models_need_more_memory(model, more):
    wider = ModelConfig(model.mode, model.dimensions, model.channels, model.local_width + more, model.global_width)
    assert evaluation_bytes(wider) > evaluation_bytes(model)
    assert training_bytes(wider) > training_bytes(model)
    assert evaluation_samples(wider) <= evaluation_samples(model)
