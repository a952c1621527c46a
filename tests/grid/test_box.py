import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.errors import RegionError
from lgsirens.grid.box import (
    as_region,
    bounding_box,
    box_of_shape,
    box_shape,
    box_size,
    boxes_of,
    contains,
    format_box,
    intersect,
    is_empty,
)

EXTENT = ((0, 100), (-20, 50))


@st.composite
def boxes(draw, dimensions=None, smallest=1):
    """A box with sides of at least `smallest` samples, anywhere."""
    sides = dimensions or draw(st.integers(1, 3))
    box = []
    for _ in range(sides):
        start = draw(st.integers(-50, 50))
        box.append((start, start + draw(st.integers(smallest, 60))))
    return tuple(box)


@st.composite
def boxes_inside(draw):
    """An extent and a region in it."""
    extent = draw(boxes())
    region = []
    for low, high in extent:
        start = draw(st.integers(low, high - 1))
        region.append((start, draw(st.integers(start + 1, high))))
    return extent, tuple(region)


def samples(box):
    """All positions of a box, one by one."""
    return {tuple(p) for p in np.argwhere(np.ones(box_shape(box), bool)) + [low for low, _ in box]}


small_boxes = st.lists(
    st.tuples(st.integers(-4, 4), st.integers(0, 4)).map(lambda r: (r[0], r[0] + r[1])), min_size=2, max_size=2
).map(tuple)


@given(boxes_inside(), st.lists(st.sampled_from(["", " ", "  "]), min_size=6, max_size=6))
def test_what_format_writes_parse_reads(extent_and_region, spaces):
    extent, region = extent_and_region
    assert as_region(format_box(region), extent) == region
    padded = ",".join(
        f"{spaces[2 * n]}{part}{spaces[2 * n + 1]}" for n, part in enumerate(format_box(region).split(","))
    )
    assert as_region(padded, extent) == region


@given(boxes_inside())
def test_text_slices_and_pairs_say_the_same(extent_and_region):
    extent, region = extent_and_region
    for given_as in (
        format_box(region),
        tuple(slice(start, stop) for start, stop in region),
        [slice(start, stop, 1) for start, stop in region],
        region,
        [list(pair) for pair in region],
        np.array(region),
    ):
        assert as_region(given_as, extent) == region
        assert {type(end) for pair in as_region(given_as, extent) for end in pair} == {int}


@given(boxes_inside())
def test_an_open_end_is_the_border_of_the_extent(extent_and_region):
    extent, region = extent_and_region
    everywhere = ",".join(":" for _ in extent)
    assert as_region(everywhere, extent) == extent
    assert as_region([slice(None)] * len(extent), extent) == extent
    to_end = tuple((start, high) for (start, _), (_, high) in zip(region, extent, strict=True))
    assert as_region(",".join(f"{start}:" for start, _ in region), extent) == to_end
    assert as_region([slice(start, None) for start, _ in region], extent) == to_end
    from_start = tuple((low, stop) for (_, stop), (low, _) in zip(region, extent, strict=True))
    assert as_region(",".join(f":{stop}" for _, stop in region), extent) == from_start
    assert as_region([(None, stop) for _, stop in region], extent) == from_start


def test_a_negative_position_is_absolute_and_never_from_the_end():
    assert as_region("0:100,-20:-10", EXTENT) == ((0, 100), (-20, -10))
    assert as_region([slice(0, 100), slice(-20, -10)], EXTENT) == ((0, 100), (-20, -10))
    for region in ("-10:100,0:10", [slice(-10, None), slice(0, 10)]):
        with pytest.raises(RegionError, match="outside what is encoded"):
            as_region(region, EXTENT)
    with pytest.raises(RegionError, match="empty"):
        as_region("0:-10,0:10", EXTENT)


def test_signs_are_read():
    assert as_region("+1:+5,-3:+4", EXTENT) == ((1, 5), (-3, 4))


@given(boxes(), boxes())
def test_a_region_is_accepted_if_and_only_if_the_extent_holds_it(extent, region):
    held = len(extent) == len(region) and samples(region) <= samples(extent)
    if held:
        assert as_region(region, extent) == region
    else:
        with pytest.raises(RegionError) as caught:
            as_region(region, extent)
        assert str(region) in str(caught.value) or format_box(region) in str(caught.value)


@given(st.text(alphabet="0123456789:,+- ;.abc\n\t", max_size=12) | st.text(max_size=12))
def test_any_text_is_a_region_of_the_extent_or_a_region_error(text):
    region, message = EXTENT, "region"
    try:
        region = as_region(text, EXTENT)
    except RegionError as error:
        message = str(error)
    assert contains(EXTENT, region)
    assert not is_empty(region)
    assert message.startswith("region")
    assert len(message.splitlines()) == 1


WRONG_TEXTS = {
    "one dimension too few": "0:10",
    "one dimension too many": "0:10,0:10,0:10",
    "nothing": "",
    "no colon": "10,0:10",
    "a step": "0:10:2,0:10",
    "fractions": "0.5:10,0:10",
    "words": "a:b,0:10",
    "space inside": "0 : 10,0:10",
    "two signs": "--1:10,0:10",
    "an empty range": "10:10,0:10",
    "a reversed range": "0:10,10:5",
    "beyond the end": "0:101,0:10",
    "before the start": "0:100,-21:10",
    "an open end that leaves nothing": "100:,0:10",
    "a time without a rate": "0s:1s,0:10",
    "a time along another dimension": "0:10,0s:1s",
    "too many digits": "0:" + "9" * 5000 + ",0:10",
}


@pytest.mark.parametrize("text", WRONG_TEXTS.values(), ids=WRONG_TEXTS)
def test_an_error_names_the_region(text):
    with pytest.raises(RegionError) as caught:
        as_region(text, EXTENT)
    assert text in str(caught.value) or "100:100,0:10" in str(caught.value)


def test_an_error_names_what_the_ranges_are():
    with pytest.raises(RegionError, match="^partitions '0:9'"):
        as_region("0:9", EXTENT, name="partitions")
    with pytest.raises(RegionError, match="^partitions 0:9,0:99"):
        as_region("0:9,0:99", EXTENT, name="partitions")


WRONG = {
    "a step": [slice(0, 10, 2), slice(0, 10)],
    "a negative step": [slice(10, 0, -1), slice(0, 10)],
    "one dimension too few": [slice(0, 10)],
    "one dimension too many": [slice(0, 10)] * 3,
    "no dimension": [],
    "an empty slice": [slice(5, 5), slice(0, 10)],
    "an int instead of a slice": [5, slice(0, 10)],
    "None instead of a slice": [None, slice(0, 10)],
    "an ellipsis": [..., slice(0, 10)],
    "three ends": [(0, 5, 10), (0, 10)],
    "one end": [(5,), (0, 10)],
    "text in a pair": [("a", "b"), (0, 10)],
    "fractions in a pair": [(0.5, 10.5), (0, 10)],
    "fractions in a slice": [slice(0.5, 10.5), slice(0, 10)],
    "an infinite end": [(0, float("inf")), (0, 10)],
    "a lone slice": slice(0, 10),
    "a lone int": 5,
}


@pytest.mark.parametrize("region", WRONG.values(), ids=WRONG)
def test_what_is_no_region_raises_a_region_error(region):
    with pytest.raises(RegionError) as caught:
        as_region(region, EXTENT)
    assert len(str(caught.value).splitlines()) == 1


@given(small_boxes, small_boxes)
def test_boxes_are_sets_of_samples(a, b):
    common = intersect(a, b)
    assert (set() if is_empty(common) else samples(common)) == samples(a) & samples(b)
    assert is_empty(a) == (box_size(a) == 0)
    assert box_size(a) == len(samples(a))
    if not is_empty(b):
        assert contains(a, b) == (samples(b) <= samples(a))


@given(st.lists(boxes(dimensions=2), min_size=1, max_size=4))
def test_the_bounding_box_is_the_smallest_that_holds_all(parts):
    whole = bounding_box(parts)
    assert all(contains(whole, part) for part in parts)
    for axis in range(2):
        assert whole[axis] == (min(p[axis][0] for p in parts), max(p[axis][1] for p in parts))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_the_box_of_a_shape_begins_at_the_origin(shape):
    assert box_of_shape(shape) == tuple((0, size) for size in shape)
    assert box_shape(box_of_shape(shape)) == tuple(shape)


@given(st.data())
def test_the_boxes_of_a_mask_are_disjoint_and_all_of_it(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    cells = data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    mask, first = np.array(cells).reshape(shape), data.draw(st.tuples(*[st.integers(-9, 9)] * len(shape)))
    count = np.zeros(shape, dtype=int)
    for box in boxes_of(mask, first):
        count[tuple(slice(low - at, high - at) for (low, high), at in zip(box, first, strict=True))] += 1
    assert np.array_equal(count, mask)


def test_a_full_mask_is_one_box():
    assert boxes_of(np.ones((3, 4), dtype=bool), (-1, 5)) == [((-1, 2), (5, 9))]
