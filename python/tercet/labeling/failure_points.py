"""Failure points from what is known of each component: where it went wrong, and nobody put it right.

A turn passes through stages: wake word, recognition, understanding, entity resolution, result. An error was recovered
from where a later stage is right nevertheless. So the failure point lies in the last run of wrong stages, and is its
first one; a turn whose last known stage is right is correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.labeling.data.dialogues import FAILURE_POINTS

CORRECT = FAILURE_POINTS[-1]
OTHER = "other"
_COMPONENTS = dict(
    zip(("wake", "recognition", "understanding", "entity_resolution", "result"), FAILURE_POINTS[:-1], strict=True)
)


@dataclass(frozen=True, slots=True)
class Component:
    """What is known of a component in a turn.

    Attributes:
        name: the class of the turn if this component is its failure point.
        right: whether its output was right, whatever it was given; None: not known, or it had nothing to do.
        right_on_true_input: whether its output was, or would have been, right where it is given what the stages before
            should have given it; None: never tried.
    """

    name: str
    right: bool | None
    right_on_true_input: bool | None = None


def failure_point(stages: Sequence[Component | Sequence[Component]]) -> str:
    """The failure point of a turn: the first component whose error was not recovered from.

    1. A stage of several components, which work side by side, is wrong if one of them is; it is passed over where
       nothing is known of it.
    2. The stages after the last right one hold the errors that were not recovered from. There are none: `correct`.
    3. Of the wrong components in them, it is the first. Where it was tried what components make of true input, the
       first that is wrong there too: its error would have come without those before it. One that is right there has
       inherited its error, and is never to blame; if all have, the turn is `other`.

    Args:
        stages: in the order in which they work, each a component, or several that work side by side.

    Raises:
        ValueError: nothing is known of any component, or one has the name `correct` or none.

    Example:
        >>> failure_point([Component("recognition", False), Component("understanding", True)])
        'correct'
        >>> failure_point([Component("recognition", False), Component("understanding", False)])
        'recognition'
        >>> failure_point([Component("recognition", False), Component("understanding", False, False)])
        'understanding'
    """
    wrong: list[Component] = []
    known = False
    for stage in stages:
        parts = [stage] if isinstance(stage, Component) else list(stage)
        for part in parts:
            if part.name in ("", CORRECT):
                raise ValueError(f"tercet.failure_point: a component must not be named {part.name!r}")
        outputs = [part.right for part in parts if part.right is not None]
        if not outputs:
            continue
        known = True
        if all(outputs):
            wrong = []
        wrong += [part for part in parts if part.right is False]
    if not known:
        raise ValueError("tercet.failure_point: stages must hold a component that is known to be right or wrong")
    if not wrong:
        return CORRECT
    own = [part for part in wrong if part.right_on_true_input is False]
    not_inherited = [part for part in wrong if part.right_on_true_input is None]
    return next((part.name for part in own + not_inherited), OTHER)


def failure_point_of_assistant(
    *,
    wake: bool | None = None,
    recognition: bool | None = None,
    understanding: bool | None = None,
    entity_resolution: bool | None = None,
    result: bool | None = None,
) -> str:
    """One of FAILURE_POINTS for a turn of a spoken assistant, from whether each component was right.

    Whether the user was content is not asked: where all components are right, so is the turn, though nobody can be
    helped who wants a sandwich made.

    Args:
        wake: the assistant was meant. recognition, understanding, entity_resolution: as it should have been; of no
            matter which words it consists, so long as the task defines it so. result: what the assistant did.
            None: not known, or it had nothing to do.

    Raises:
        ValueError: nothing is known.

    Source:
        Khaziev, Shahid, Röding, Chada, Kapanci, Natarajan: FPI: Failure Point Isolation in Large-scale Conversational
        Assistants, NAACL 2022 (industry track).

    Example:
        >>> failure_point_of_assistant(recognition=False, understanding=True, entity_resolution=False, result=False)
        'entity_resolution'
    """
    known = (wake, recognition, understanding, entity_resolution, result)
    return failure_point([Component(name, right) for name, right in zip(_COMPONENTS.values(), known, strict=True)])
