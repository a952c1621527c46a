import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.system.schema import FieldError, canonical_json, from_plain, to_plain

finite = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True)
class Inner:
    width: int
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    number: int
    real: float
    text: str
    flag: bool
    inner: Inner
    fixed: tuple[float, float]
    free: tuple[int, ...]
    boxes: tuple[tuple[int, int], ...]
    inners: tuple[Inner, ...]
    counts: dict[str, int]
    anything: dict[str, Any]
    maybe: int | None = None
    maybe_inner: Inner | None = None
    maybe_many: tuple[int, ...] | None = None
    made: tuple[int, ...] = field(default_factory=lambda: (7,))


inners = st.builds(Inner, st.integers(), finite)
outers = st.builds(
    Outer,
    number=st.integers(),
    real=finite,
    text=st.text(),
    flag=st.booleans(),
    inner=inners,
    fixed=st.tuples(finite, finite),
    free=st.lists(st.integers()).map(tuple),
    boxes=st.lists(st.tuples(st.integers(), st.integers()), max_size=3).map(tuple),
    inners=st.lists(inners, max_size=3).map(tuple),
    counts=st.dictionaries(st.text(), st.integers(), max_size=3),
    anything=st.dictionaries(st.text(), st.none() | finite | st.lists(st.text()), max_size=3),
    maybe=st.none() | st.integers(),
    maybe_inner=st.none() | inners,
    maybe_many=st.none() | st.lists(st.integers()).map(tuple),
    made=st.lists(st.integers()).map(tuple),
)

GOOD = to_plain(
    Outer(1, 2.0, "t", True, Inner(3), (0.0, 1.0), (1, 2), ((0, 4),), (Inner(5),), {"a": 1}, {"b": [None]}, 6, Inner(7))
)


@given(outers)
def test_plain_data_gives_the_dataclass_back(value):
    plain = to_plain(value)
    assert from_plain(Outer, plain) == value
    assert to_plain(from_plain(Outer, plain)) == plain


@given(outers)
def test_plain_data_holds_no_tuple_and_no_dataclass(value):
    def types_in(data):
        if isinstance(data, dict):
            return {dict}.union(*(types_in(item) for item in data.values()))
        return {type(data)}.union(*(types_in(item) for item in data)) if isinstance(data, list) else {type(data)}

    assert types_in(to_plain(value)) <= {dict, list, int, float, str, bool, type(None)}


def test_absent_fields_take_their_defaults():
    required = {name: GOOD[name] for name in GOOD if name not in ("maybe", "maybe_inner", "maybe_many", "made")}
    value = from_plain(Outer, required)
    assert (value.maybe, value.maybe_inner, value.maybe_many, value.made) == (None, None, None, (7,))
    assert from_plain(Inner, {"width": 1}) == Inner(1, 1.0)


@given(st.integers(-(2**53), 2**53))
def test_an_integer_passes_for_a_float_and_becomes_one(number):
    value = from_plain(Inner, {"width": 1, "scale": number}).scale
    assert type(value) is float
    assert value == number


@given(finite)
def test_no_float_passes_for_an_integer(number):
    with pytest.raises(FieldError, match="width"):
        from_plain(Inner, {"width": number})


REFUSED = {
    "bool for int": ({"number": True}, "number"),
    "bool for float": ({"real": False}, "real"),
    "int for bool": ({"flag": 1}, "flag"),
    "int for text": ({"text": 1}, "text"),
    "text for int": ({"number": "1"}, "number"),
    "text for float": ({"real": "1.0"}, "real"),
    "whole float for int": ({"number": 3.0}, "number"),
    "NaN": ({"real": math.nan}, "real"),
    "infinity": ({"real": math.inf}, "real"),
    "negative infinity in a tuple": ({"fixed": [0, -math.inf]}, "fixed"),
    "integer beyond float64": ({"real": 10**400}, "real"),
    "None where it may not be": ({"number": None}, "number"),
    "unknown key": ({"other": 1}, "other"),
    "unknown key that is a number": ({5: 1}, "5"),
    "unknown key inside": ({"inner": {"width": 1, "size": 2}}, "inner.size"),
    "missing key inside": ({"inner": {"scale": 2.0}}, "inner.width"),
    "wrong type inside": ({"inner": {"width": "3"}}, "inner.width"),
    "wrong type inside a tuple": ({"inners": [{"width": 1}, {"width": 1.0}]}, "inners.width"),
    "list for a dataclass": ({"inner": [3]}, "inner."),
    "None for a dataclass": ({"inner": None}, "inner."),
    "text for a tuple": ({"free": "12"}, "free"),
    "number for a tuple": ({"free": 12}, "free"),
    "mapping for a tuple": ({"free": {}}, "free"),
    "too few entries": ({"fixed": [1.0]}, "fixed"),
    "too many entries": ({"fixed": [1.0, 2.0, 3.0]}, "fixed"),
    "a float in a tuple of integers": ({"free": [1, 2.0]}, "free"),
    "a wrong entry two levels down": ({"boxes": [[0, 4], [0, None]]}, "boxes"),
    "a wrong length two levels down": ({"boxes": [[0, 4, 5]]}, "boxes"),
    "list for a mapping": ({"counts": []}, "counts"),
    "number as a key": ({"counts": {1: 1}}, "counts"),
    "wrong value in a mapping": ({"counts": {"a": "1"}}, "counts.a"),
    "number as a key of anything": ({"anything": {1: 1}}, "anything"),
    "wrong type where None may be": ({"maybe": "no"}, "maybe"),
    "wrong type inside where None may be": ({"maybe_inner": {"width": None}}, "maybe_inner.width"),
    "wrong entry where None may be": ({"maybe_many": [1, "2"]}, "maybe_many"),
}


@pytest.mark.parametrize(("change", "field"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_converted_silently(change, field):
    with pytest.raises(FieldError) as caught:
        from_plain(Outer, {**GOOD, **change})
    assert caught.value.option == field


@pytest.mark.parametrize("name", ["number", "real", "text", "flag", "inner", "fixed", "free", "counts", "anything"])
def test_a_missing_field_without_default_is_named(name):
    with pytest.raises(FieldError, match=f"^{name} "):
        from_plain(Outer, {key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("data", [None, 3, "text", [1], [("width", 1)]])
def test_what_is_no_mapping_is_refused(data):
    with pytest.raises(FieldError, match="^Inner "):
        from_plain(Inner, data)


def test_messages_tell_where_they_were_found():
    with pytest.raises(FieldError, match=r"^model\.width "):
        from_plain(Inner, {"width": 1.5}, "model.")


# RFC 8785, appendix B
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize("bits", NUMBERS)
def test_numbers_are_written_as_javascript_writes_them(bits):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(number) == NUMBERS[bits]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_as_it_was(number):
    assert float(canonical_json(number)) == number


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-(2.0**53), 2.0**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(plain)
def test_canonical_json_is_json_with_one_spelling(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


def test_keys_are_sorted_as_javascript_sorts_them_and_text_is_not_escaped():
    # beyond U+FFFF come surrogates, which JavaScript sorts before U+FB33
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2, "\u00f6": 3, "1": 4, "\r": 5}) == (
        '{"\\r":5,"1":4,"\u00f6":3,"\U0001f600":2,"\ufb33":1}'
    )


def test_numbers_of_numpy_are_written_too_and_text_that_is_no_unicode_is_refused():
    assert canonical_json(np.float64(1e21)) == "1e+21"
    for text in ("\udcff", {"\udcff": 1}, ["\ud800"]):
        with pytest.raises(ValueError, match="surrogates"):
            canonical_json(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": -float("inf")}]])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError, match="no number"):
        canonical_json(value)
