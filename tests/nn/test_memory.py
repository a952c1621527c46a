import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.errors import ConfigError
from lgsirens.nn.memory import evaluation_bytes, evaluation_samples, training_bytes, training_columns, training_samples
from lgsirens.nn.siren import ModelConfig


@st.composite
def models(draw):
    mode = draw(st.sampled_from(["lg", "lc", "mlp"]))
    wide = draw(st.integers(1, 2000)) if mode == "lg" else 0
    return ModelConfig(mode, draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 2000)), wide)


@given(models())
def test_an_evaluation_takes_a_power_of_two_of_samples_within_its_memory(model):
    samples = evaluation_samples(model)
    assert samples & (samples - 1) == 0
    assert 1 <= samples <= 16_384
    assert samples == 1 or samples * evaluation_bytes(model) <= 32 << 20


partitions_alike = st.just(1) | st.integers(1, 5000)


def needed(model, samples, alike):
    return training_bytes(model, samples, training_columns(samples, alike))


@given(models(), st.booleans(), st.integers(0, 1 << 34), partitions_alike)
def test_a_block_of_training_stays_within_the_limit(model, accelerated, limit, alike):
    least = needed(model, 16, alike)
    if limit < least:
        with pytest.raises(ConfigError, match=f"give at least {least} bytes"):
            training_samples(model, accelerated, limit, alike)
        return
    samples = training_samples(model, accelerated, limit, alike)
    assert samples >= 16
    assert samples & (samples - 1) == 0
    assert needed(model, samples, alike) <= limit
    assert samples <= training_samples(model, accelerated, 2 * limit, alike)
    assert samples >= training_samples(model, accelerated, limit, 1)


@given(models(), partitions_alike)
def test_the_limit_that_the_error_names_is_enough(model, alike):
    assert training_samples(model, False, needed(model, 16, alike), alike) == 16
    with pytest.raises(ConfigError):
        training_samples(model, False, needed(model, 16, alike) - 1, alike)


@given(models(), st.booleans(), st.integers(0, 1 << 34))
def test_with_coordinates_of_the_signal_the_largest_power_of_two_within_the_limits(model, accelerated, limit):
    each, factor = training_bytes(model, 1, 1), 16 if accelerated else 1
    if limit >= 16 * each:
        most = min(16_384 * factor, min(limit, factor << 26) // each)
        assert training_samples(model, accelerated, limit, 1) == max(16, 1 << max(0, most.bit_length() - 1))


@given(st.integers(16, 1 << 18), partitions_alike)
def test_rows_that_see_the_same_are_many_and_have_as_many_columns_as_a_matrix_product_wants(samples, alike):
    columns = training_columns(samples, alike)
    assert columns <= samples
    if alike == 1:
        assert columns == samples
    elif samples >= 64:
        assert columns >= 64
        assert columns < 128 or samples // columns == alike


@given(models(), st.integers(1, 2000))
def test_wider_models_need_more_memory(model, more):
    wider = ModelConfig(model.mode, model.dimensions, model.channels, model.local_width + more, model.global_width)
    assert evaluation_bytes(wider) > evaluation_bytes(model)
    assert training_bytes(wider, 64, 8) > training_bytes(model, 64, 8)
    assert evaluation_samples(wider) <= evaluation_samples(model)
