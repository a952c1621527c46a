"""Damaged files, a few hundred of those of `make damage`: none decodes to a wrong value, none crashes."""

import numpy as np
import pytest

from trials.fuzz.bases import bases
from trials.fuzz.damages import Damaged, as_it_is, borders, damaged, sound_files, twin, with_matching_checksums


def test_a_damaged_file_is_refused_or_the_same_and_with_matching_checksums_no_crash(tmp_path):
    path, outcomes = tmp_path / "a.safetensors", set()
    for number in range(350):
        case = damaged(number, seed=1)
        outcomes |= {as_it_is(case, path), with_matching_checksums(case, path)}
    assert outcomes == {"refused", "the same", "decoded"}


@pytest.mark.parametrize("name", ["picture_lc_tile", "sound"])
def test_two_files_of_one_form_spliced_at_every_border_are_refused(tmp_path, name):
    """Unless all comes from one of them."""
    one, other = bases()[name], twin(name)
    assert np.any(sound_files()[name][0][1] != sound_files()[name][1][1])
    outcomes = [
        as_it_is(Damaged("spliced", one[:a] + other[b:], (name,)), tmp_path / "a.safetensors")
        for a in borders(one)
        for b in borders(other)
    ]
    assert len(outcomes) > 150
    assert outcomes.count("the same") <= 3


def test_another_file_is_told_from_the_same(tmp_path):
    with pytest.raises(AssertionError, match="another one"):
        as_it_is(Damaged("spliced", bases()["film"], ("sound",)), tmp_path / "a.safetensors")
