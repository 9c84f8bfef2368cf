"""Failure points: the cases that define them, the rule against its definition, and what it never does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import FAILURE_POINTS, Component, failure_point, failure_point_of_assistant

OUTCOMES = (True, False, None)
NAMES = ("wake", "recognition", "understanding", "entity_resolution", "result")

stages_of_components = st.lists(
    st.lists(st.tuples(st.sampled_from(OUTCOMES), st.sampled_from(OUTCOMES)), max_size=3), max_size=5
).map(
    lambda drawn: [
        [Component(f"{stage}.{part}", *outcomes) for part, outcomes in enumerate(parts)]
        for stage, parts in enumerate(drawn)
    ]
)


# ---- what defines them


def test_recognition_is_wrong_and_so_resolution_fails() -> None:
    known = {"wake": True, "recognition": False, "understanding": False, "entity_resolution": False, "result": False}
    assert failure_point_of_assistant(**known) == "recognition"
    assert failure_point_of_assistant(recognition=False, entity_resolution=False) == "recognition"


def test_the_is_dropped_and_the_action_is_right() -> None:
    known = {"wake": True, "recognition": False, "understanding": True, "entity_resolution": True, "result": True}
    assert failure_point_of_assistant(**known) == "correct"
    assert failure_point_of_assistant(recognition=False, result=True) == "correct"


def test_make_a_sandwich() -> None:
    """All components are right; that the user gets none is no defect."""
    assert failure_point_of_assistant(**dict.fromkeys(NAMES, True)) == "correct"


# ---- the rest of the assistant


@pytest.mark.parametrize("first", range(5))
def test_the_first_of_the_errors_to_the_end(first: int) -> None:
    known = {name: number < first for number, name in enumerate(NAMES)}
    assert failure_point_of_assistant(**known) == FAILURE_POINTS[first]


def test_an_error_after_a_recovery_is_its_own() -> None:
    known = {"recognition": False, "understanding": True, "entity_resolution": False, "result": False}
    assert failure_point_of_assistant(**known) == "entity_resolution"


def test_an_assistant_that_stays_silent_recovers_from_a_false_wake() -> None:
    assert failure_point_of_assistant(wake=False, result=False) == "false_wake"
    assert failure_point_of_assistant(wake=False, result=True) == "correct"


# ---- what a component makes of true input


def test_an_error_that_would_have_come_anyway() -> None:
    heard = Component("recognition", False)
    assert failure_point([heard, Component("intent", False, True)]) == "recognition"
    assert failure_point([heard, Component("intent", False, False)]) == "intent"
    assert failure_point([heard, [Component("intent", False, True), Component("slot", False, False)]]) == "slot"
    assert failure_point([heard, [Component("intent", True, False), Component("slot", True, False)]]) == "correct"


def test_inherited_errors_without_a_source_are_other() -> None:
    assert failure_point([Component("recognition", True), Component("intent", False, True)]) == "other"


def by_definition(stages: Sequence[Sequence[Component]]) -> str:
    """Every error is asked whether a later stage is right."""
    not_recovered = [
        part
        for number, parts in enumerate(stages)
        for part in parts
        if part.right is False
        and not any(
            any(other.right for other in later) and not any(other.right is False for other in later)
            for later in stages[number + 1 :]
        )
    ]
    for kind in (False, None):
        for part in not_recovered:
            if part.right_on_true_input is kind:
                return part.name
    return "other" if not_recovered else "correct"


def is_known(stages: Sequence[Sequence[Component]]) -> bool:
    return any(part.right is not None for parts in stages for part in parts)


@given(stages_of_components.filter(is_known))
def test_the_rule_against_its_definition(stages: list[list[Component]]) -> None:
    assert failure_point(stages) == by_definition(stages)


@given(stages_of_components.filter(is_known))
def test_what_nothing_is_known_of_changes_nothing(stages: list[list[Component]]) -> None:
    found = failure_point(stages)
    known = [[part for part in parts if part.right is not None] for parts in stages]
    assert failure_point([parts for parts in known if parts]) == found
    assert failure_point([parts[0] if len(parts) == 1 else parts for parts in stages]) == found


@given(stages_of_components.filter(is_known))
def test_whoever_is_blamed_is_wrong_and_did_not_inherit_it(stages: list[list[Component]]) -> None:
    found = failure_point(stages)
    blamed = [part for parts in stages for part in parts if part.name == found]
    assert blamed or found in ("correct", "other")
    assert all(part.right is False and part.right_on_true_input is not True for part in blamed)


@given(stages_of_components)
def test_a_right_end_makes_all_right(stages: list[list[Component]]) -> None:
    assert failure_point([*stages, Component("end", True)]) == "correct"


@given(stages_of_components.filter(is_known))
def test_errors_that_were_recovered_from_change_nothing(stages: list[list[Component]]) -> None:
    before = [Component("before", False, False), Component("recovered", True)]
    assert failure_point([*before, *stages]) == failure_point(stages)


# ---- bad input


@pytest.mark.parametrize("stages", [[], [[]], [Component("result", None)], [Component("result", None, False)]])
def test_nothing_is_known(stages: list[Component]) -> None:
    with pytest.raises(ValueError, match=r"tercet.failure_point: stages must hold a component that is known to be"):
        failure_point(stages)


def test_nothing_is_known_of_an_assistant() -> None:
    with pytest.raises(ValueError, match="known to be right or wrong"):
        failure_point_of_assistant()


@pytest.mark.parametrize("name", ["", "correct"])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"tercet.failure_point: a component must not be named '{name}'"):
        failure_point([Component("recognition", True), Component(name, False)])
