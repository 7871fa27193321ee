"""Who owns a path."""

from __future__ import annotations

import random

import pytest

from hermes.collection.claims import SHORTEST, Contested, carriers, last_name_carries, owner

from ..support import RecordProperty, times

ONE, TWO, OTHER = (f"2021_07_25_{number:012d}_1930e" for number in range(3))
LIVE = {ONE, TWO}
BOTH = frozenset(LIVE)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (ONE, ONE),
        (f"a_{ONE}.txt", ONE),
        (f".{ONE}", ONE),
        (f"9{ONE}0", ONE),
        (f"plain/sub/b_{ONE}", ONE),
        (f"d_{ONE}/inside/deep", ONE),
        (f"d_{ONE}/a_{ONE}", ONE),
        (f"{ONE}{ONE}", ONE),
        # The nearest to the end
        (f"d_{ONE}/a_{TWO}", TWO),
        (f"d_{ONE}/e_{TWO}/x", TWO),
        (f"d_{ONE}/e_{TWO}/f_{ONE}/x", ONE),
        # Nobody's
        ("", None),
        ("plain", None),
        ("x" * SHORTEST, None),
        (OTHER, None),
        (f"d_{OTHER}/plain", None),
        (ONE[:-1], None),
        (f"{ONE[:14]}/{ONE[14:]}", None),
        # What is not live means nothing
        (f"both_{OTHER}_{ONE}", ONE),
        (f"d_{OTHER}/a_{ONE}", ONE),
        # In one name, even if another stands nearer to the end
        (f"{ONE}_{TWO}", Contested(f"{ONE}_{TWO}", BOTH)),
        (f"{TWO}{ONE}", Contested(f"{TWO}{ONE}", BOTH)),
        (f"{ONE}\n{TWO}", Contested(f"{ONE}\n{TWO}", BOTH)),
        (f"sub/{ONE}_{OTHER}_{TWO}.txt", Contested(f"sub/{ONE}_{OTHER}_{TWO}.txt", BOTH)),
        (f"d_{ONE}_{TWO}/a_{ONE}", Contested(f"d_{ONE}_{TWO}", BOTH)),
        (f"d_{ONE}/f_{ONE}_{TWO}/x", Contested(f"d_{ONE}/f_{ONE}_{TWO}", BOTH)),
    ],
)
def test_the_owner_of_a_path(path: str, expected: str | Contested | None) -> None:
    assert owner(path, LIVE, set()) == expected


def test_a_contested_name_stays_contested_when_one_owner_has_ended() -> None:
    name = f"{ONE}_{TWO}"
    assert owner(name, {TWO}, set()) == TWO
    assert owner(name, {TWO}, {name}) == Contested(name, frozenset({TWO}))
    assert owner(f"{name}/a_{TWO}", {TWO}, {name}) == Contested(name, frozenset({TWO}))
    # And has no owner at all when both have
    assert owner(name, set(), {name}) is None
    assert owner(f"{name}/a_{OTHER}", {OTHER}, {name}) == OTHER


def test_two_live_identifiers_in_many_names(record_property: RecordProperty) -> None:
    generator = random.Random(1)
    tried = times(1000, 10_000)
    record_property("tried", tried)
    live = [f"2021_07_25_{generator.randrange(10**12):012d}_1930e" for _ in range(5)]
    for number in range(tried):
        first, second = generator.sample(live, 2)
        glue = generator.choice(["", "_", "-", " and ", "0", "f", "\n", "\udcff"])
        name = f"{generator.choice(['', '9', 'a_'])}{first}{glue}{second}{number}"
        assert owner(name, live, set()) == Contested(name, frozenset({first, second}))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"d_{ONE}/e/a_{TWO}", {f"d_{ONE}": {ONE}, f"d_{ONE}/e/a_{TWO}": {TWO}}),
        (f"{ONE}_{TWO}/x", {f"{ONE}_{TWO}": {ONE, TWO}}),
        (f"{OTHER}/x", {}),
        ("", {}),
    ],
)
def test_the_names_that_carry_identifiers(path: str, expected: dict[str, set[str]]) -> None:
    assert carriers(path, LIVE) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(f"a_{ONE}", True), (f"plain/{ONE}", True), (f"d_{ONE}/x", False), ("plain", False)],
)
def test_whether_the_last_name_carries_an_identifier(path: str, expected: bool) -> None:
    assert last_name_carries(path, ONE) is expected
