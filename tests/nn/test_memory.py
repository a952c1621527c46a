import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.errors import ConfigError
from lgsirens.nn.memory import evaluation_bytes, evaluation_samples, training_bytes, training_samples
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
