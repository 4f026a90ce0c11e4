"""Plain data becomes a value of the declared types, or is refused by name."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from xception_cli.entries import read_entries


class Inner(TypedDict):
    name: str
    share: float
    phase: NotRequired[Literal["on", "off"]]


@dataclass
class Outer:
    count: int
    shares: dict[str, float]
    inner: Annotated[dict[str, Any], Inner] | None = None
    several: list[Inner] = field(default_factory=list)
    pairs: tuple[tuple[int, ...], ...] = ()
    done: bool = False


GOOD = {
    "count": 3,
    "shares": {"val": 1, "test": 0.5},
    "inner": {"name": "caf\udce9", "share": 1, "phase": "on"},
    "several": [{"name": "a", "share": 0.5, "more": 7}],
    "pairs": [[1, 2], []],
    "done": True,
    "of a later version": [],
}


def test_valid_data_becomes_values_without_unknown_entries():
    read = read_entries(Outer, GOOD)
    assert read == Outer(
        3,
        {"val": 1.0, "test": 0.5},
        {"name": "caf\udce9", "share": 1.0, "phase": "on"},
        [{"name": "a", "share": 0.5}],
        ((1, 2), ()),
        True,
    )
    assert type(read.shares["val"]) is float
    assert read_entries(Outer, {"count": 3, "shares": {}, "inner": None}) == Outer(3, {})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"count": True}, "count is True, expected int"),
        ({"count": 1.0}, "count is 1.0, expected int"),
        ({"count": 10**5000}, "count is a very long number, expected int"),
        ({"shares": {"val": "1"}}, "shares.val is '1', expected float"),
        ({"shares": {"val": float("nan")}}, "shares.val is nan, expected float"),
        ({"shares": {"val": 10**400}}, "shares.val is a very long number, expected float"),
        ({"inner": []}, "inner is [], expected dict or null"),
        ({"inner": {"name": "a"}}, "it lacks inner.share"),
        ({"inner": {"name": "\ud800", "share": 1}}, "inner.name is '\\ud800', expected str"),
        (
            {"inner": {"name": "", "share": 1, "phase": "x"}},
            "inner.phase is 'x', expected on or off",
        ),
        ({"several": {}}, "several is {}, expected list"),
        ({"several": [GOOD["inner"], None]}, "several[1] is None, expected dict"),
        ({"pairs": [[1], [None]]}, "pairs[1][0] is None, expected int"),
        ({"done": 1}, "done is 1, expected bool"),
    ],
)
def test_an_entry_of_another_type_is_named_with_its_place(changed, reason):
    with pytest.raises(ValueError) as caught:
        read_entries(Outer, GOOD | changed)
    assert str(caught.value) == reason


@pytest.mark.parametrize("data", [None, [], "x", 1, [GOOD]])
def test_data_that_is_not_an_object_is_refused(data):
    with pytest.raises(ValueError, match="expected dict"):
        read_entries(Outer, data)
