"""What a notebook shows: well-formed, self-contained, and the picture or sound itself."""

import base64
import io
import wave
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import lgsirens as lg
from lgsirens.access import notebook
from lgsirens.signal import to_sample_type
from tests.small import overview_of, representation


def shown(inr):
    version = ({**inr.history[0], "version": "0", "window": [list(side) for side in inr.window], "partitions": 1},)
    return ElementTree.fromstring(replace(inr, history=version)._repr_html_())


def content(element, kind):
    head, data = element.get("src").split(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_shows_itself(channels):
    inr = representation((30, 40), channels, "lg", (8, 8), 1)
    with Image.open(content(shown(inr).find("img"), "image/png")) as picture:
        expected = to_sample_type(inr.decode().values, "uint8")
        assert np.array_equal(np.asarray(picture).reshape(expected.shape), expected)


def test_a_large_picture_is_averaged_and_a_huge_one_is_its_overview(monkeypatch):
    inr = representation((40, 60), 1, "lg", (8, 8), 1, value_range=(-1.0, 3.0), dtype="float32")
    inr = replace(inr, overview=overview_of(inr))
    monkeypatch.setattr(notebook, "_LARGEST_SIDE", 20)
    with Image.open(content(shown(inr).find("img"), "image/png")) as picture:
        assert picture.size == (20, 13)
        expected = np.rint((inr.decode(scale="1/3").values + 1) * (255 / 4))[..., 0]
        assert np.array_equal(np.asarray(picture), expected)
    monkeypatch.setattr(notebook, "_MOST_SAMPLES", 100)
    with Image.open(content(shown(inr).find("img"), "image/png")) as picture:
        assert picture.size == (7, 5)


@pytest.mark.parametrize("kind", ["video", "volume"])
def test_films_and_volumes_show_the_middle(kind):
    inr = representation((7, 20, 30), 3, "lg", (3, 8, 9), 1, kind=kind)
    image = shown(inr).find("img")
    assert image.get("title") == f"{kind}, 3 of 7"
    with Image.open(content(image, "image/png")) as picture:
        assert np.array_equal(np.asarray(picture), to_sample_type(inr.decode().values, "uint8")[3])


def test_a_sound_has_a_waveform_and_a_player(monkeypatch):
    inr = representation((900,), 2, "lg", (40,), 2, value_range=(-2.0, 2.0), dtype="int16", sampling_rate=(8000, 1))
    root = shown(inr)
    with wave.open(content(root.find("div/audio"), "audio/wav")) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (2, 8000, 900)
        samples = np.frombuffer(sound.readframes(900), "<i2").reshape(-1, 2)
    np.testing.assert_array_equal(samples, np.rint(inr.decode().values / 2 * 32767))
    assert root.find("svg/path").get("d").count("M") == 600
    assert "the first" not in "".join(root.itertext())
    monkeypatch.setattr(notebook, "_MOST_HEARD", 800)
    assert "the first 0.1 seconds" in "".join(shown(inr).itertext())


def test_the_figures_are_those_of_info_and_no_row_but_those_shown_is_read(tmp_path, monkeypatch):
    inr = lg.encode(lg.Signal.from_array(np.zeros((40, 60), np.uint8)), partitions=(4, 4), steps=1)
    inr.save(tmp_path / "a.safetensors")
    loaded = lg.load(tmp_path / "a.safetensors")
    before = loaded.rows.source.bytes_read
    monkeypatch.setattr(notebook, "_MOST_SAMPLES", 0)
    text = loaded._repr_html_()
    assert loaded.rows.source.bytes_read == before
    assert f"{inr.parameters['total']:,}" in text
    assert "<script" not in text
    assert "http" not in text
