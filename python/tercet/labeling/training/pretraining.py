"""Pre-training without labels: answers that were swapped between dialogues are to be told from real ones.

In each epoch about half of the system's turns that follow a user's get the answer of another dialogue: half of these a
random one, half a hard one, of the same domain (the same value of a categorical domain, service or intent) or, where
nothing says the domain, the one of a few that shares most words with the answer that it stands for. Each such turn is
"swapped" or not; all else of the turn, but what the log says of the answer itself, stays.

Gupta et al.: RoBERTaIQ, 2021, and Kachuee et al.: Self-Supervised Contrastive Learning for Efficient User Satisfaction
Prediction in Conversational Agents, NAACL 2021, for the idea; the construction is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike

import numpy as np

from tercet.labeling.data.dialogues import Dialogue, Labels, Turn
from tercet.labeling.model.batches import Example
from tercet.labeling.model.targets import targets_of
from tercet.labeling.model.text import words_of
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.preparing import Survey
from tercet.labeling.training.run import Reporter, Run, TrainingResult
from tercet.labeling.training.train import run_of
from tercet.labeling.trust.calibrating import Calibration

_DOMAINS = ("domain", "service", "intent")  # categorical features that say what a turn is about
_POOL = 50_000  # answers to draw from
_TRIED = 8  # answers among which the nearest in words is the hard one
_SWAPPED, _HARD = 0.5, 0.5


class Answers:
    """Answers of a system to draw from: the first `_POOL` that dialogues hold."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self.turns: list[Turn] = []
        self.dialogues: list[str] = []
        self.by_domain: dict[str, list[int]] = {}
        for dialogue in dialogues:
            for place in answers_of(dialogue):
                if len(self.turns) == _POOL:
                    return
                domain = domain_of(dialogue, place)
                if domain is not None:
                    self.by_domain.setdefault(domain, []).append(len(self.turns))
                self.turns.append(dialogue.turns[place])
                self.dialogues.append(dialogue.id)

    def drawn(self, dialogue: Dialogue, place: int, rng: np.random.Generator, *, hard: bool) -> Turn | None:
        """Another dialogue's answer with other words, or None where a few draws find none."""
        own = dialogue.turns[place].text
        domain = domain_of(dialogue, place)
        pool = self.by_domain.get(domain) if hard and domain is not None else None
        found = []
        for draw in rng.random(_TRIED):
            number = int(draw * len(pool)) if pool else int(draw * len(self.turns))
            number = pool[number] if pool else number
            if self.dialogues[number] != dialogue.id and self.turns[number].text != own:
                found.append(self.turns[number])
        if not found:
            return None
        if not hard or pool:
            return found[0]
        words = set(words_of(own))
        return max(found, key=lambda turn: _likeness(words, set(words_of(turn.text))))


def answers_of(dialogue: Dialogue) -> list[int]:
    """The system's turns that follow a user's and say something."""
    turns = dialogue.turns
    return [
        place
        for place in range(1, len(turns))
        if turns[place].speaker == "system" and turns[place - 1].speaker == "user" and turns[place].text.strip()
    ]


def domain_of(dialogue: Dialogue, place: int) -> str | None:
    """What a turn is about, as far as it or the one before it says."""
    for turn in (dialogue.turns[place], dialogue.turns[place - 1]):
        for name in _DOMAINS:
            if name in turn.categorical:
                return f"{name}={turn.categorical[name]}"
    return None


def swapped(dialogue: Dialogue, answers: Answers, rng: np.random.Generator) -> tuple[Dialogue, dict[int, bool]]:
    """The dialogue with about half of its answers swapped, and of each answer whether it was. Labels are left out.

    What was logged of a swapped turn (features, traces, sound) comes with the answer; its time and the user's feedback
    are left out, since they would tell.
    """
    turns, told = list(dialogue.turns), {}
    for place in answers_of(dialogue):
        swap, hard = rng.random(2)
        other = answers.drawn(dialogue, place, rng, hard=bool(hard < _HARD)) if swap < _SWAPPED else None
        told[place] = other is not None
        own = dialogue.turns[place]
        turns[place] = replace(other or own, time=own.time, feedback={})
    return Dialogue(dialogue.id, tuple(turns), Labels(), metadata=dialogue.metadata), told


class PretrainingRun(Run):
    """A run that learns to tell swapped answers from real ones."""

    name = "tercet.labeling.pretrain"

    def surveyed(self) -> Survey:
        """No labels are read."""
        return Survey(self.source(), self.settings, self.sizes, labels=False)

    def _prepare(self) -> list[Example] | None:
        self.answers = Answers(self.learnt())
        if not self.answers.turns:
            raise ValueError(f"{self.name}: there must be system turns that answer a user's, got none")
        return None

    def examples(self, epoch: int) -> Iterator[Example]:
        """All dialogues with an answer, other answers swapped in every epoch."""
        rng = np.random.default_rng([self.settings.seed, epoch, 1])
        for dialogue in self.learnt():
            made, told = swapped(dialogue, self.answers, rng)
            if told:
                yield self._example(made, told)

    def _example(self, dialogue: Dialogue, told: dict[int, bool]) -> Example:
        example = self.model.prepare(dialogue, wide=False)
        wanted, weights = (np.zeros(len(dialogue.turns), np.float32) for _ in range(2))
        for place, was in told.items():
            wanted[place], weights[place] = float(was), 1.0
        targets = targets_of(dialogue, self.model.classes)
        return replace(example, targets=replace(targets, swapped=wanted, swapped_weight=weights))

    def calibrated(self) -> Calibration:
        """A pre-trained model makes no claims."""
        return Calibration()


def pretrain(
    dialogues: Sequence[Dialogue] | Callable[[], Iterable[Dialogue]],
    settings: TrainingSettings | None = None,
    sizes: ModelSettings | None = None,
    *,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train encoder and blocks on dialogues without labels; the model is what `train` takes as `start`.

    Args:
        dialogues, settings, sizes, out, resume, reporter: as for `train`.

    Raises:
        ValueError: as `train`, or no system turn answers a user's. OSError: a file cannot be written.

    Source:
        See the module.
    """
    settings = TrainingSettings(held_out=0.0) if settings is None else settings
    sizes = ModelSettings(wide=False) if sizes is None else replace(sizes, wide=False)
    return run_of(PretrainingRun, "pretrain", dialogues, settings, sizes, None, out, resume, reporter)


def _likeness(words: set[str], others: set[str]) -> float:
    return len(words & others) / max(len(words | others), 1)
