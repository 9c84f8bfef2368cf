"""A page to look at what an annotator, person or model, says of dialogues: one HTML file, without network or script.

Gold is `labels` of a dialogue; of a task that they lack, what most of the other annotators say; weak labels, which have
a weight, say nothing. Items are those of `tercet.labeling.answers`. Compared are the items of dialogues that the
annotator has any labels of and whose gold has the task: of intents, transcription and failure points those turns that
gold names, of defects the turns that it judges, of slots every span that either names in these, of goals the outcome of
each: a goal with other turns than gold's is wrong, if gold judges the turn it begins at.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from tercet.files import write_text
from tercet.labeling.annotation.judgements import Place, answers
from tercet.labeling.data.dialogues import TASKS, Annotation, Dialogue, Labels
from tercet.labeling.evaluation import markup

_NEGATIVE = {"goals": "no goal", "defects": "none", "slots": ""}  # the label of what need not be named
_ABSTAINED, _OTHERS = "(abstained)", "(others)"
_NAMES = 16  # in a table of confusions
_POINTS = 200  # of a curve
_ERRORS = 20  # that are listed
_TEXT = 90  # characters of a turn in a list


class Judged(NamedTuple):
    """What was said of an item: None where one side says nothing."""

    place: Place
    gold: str | None
    given: str | None
    confidence: float | None


class Sure(NamedTuple):
    """A label that is wrong, and how sure the annotator was."""

    confidence: float
    dialogue: str
    place: Place
    text: str
    gold: str
    given: str


@dataclass
class TaskComparison:
    """Labels of one task beside gold.

    Attributes:
        labels: that the annotator gave, negative ones of defects and slots not counted.
        gold: such labels of gold.
        right: labels that are both.
        judged: labels given where gold has an answer.
        confusions: by (gold, given), negative ones too.
        scored: (confidence, whether right) of the judged labels that have a confidence.
        errors: those of which the annotator was surest.
    """

    labels: int = 0
    gold: int = 0
    right: int = 0
    judged: int = 0
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    scored: list[tuple[float, bool]] = field(default_factory=list)
    errors: list[Sure] = field(default_factory=list)

    def add(self, task: str, dialogue: Dialogue, found: Sequence[Judged]) -> None:
        """Count what was said of one dialogue."""
        nothing = _NEGATIVE.get(task)
        for place, gold, given, confidence in found:
            named = given is not None and given != nothing
            self.labels += named
            if gold is None:
                continue
            self.gold += gold != nothing
            self.right += named and given == gold
            self.judged += named
            self.confusions[gold, _ABSTAINED if given is None else given] += 1
            if named and confidence is not None and given is not None:
                self.scored.append((confidence, given == gold))
                if given != gold:
                    text = dialogue.turns[place[0]].text if place else dialogue.turns[0].text
                    self.errors.append(Sure(confidence, dialogue.id, place, text, gold, given))
        if len(self.errors) > 50 * _ERRORS:
            self.errors = self.surest_errors()

    def surest_errors(self) -> list[Sure]:
        """At most twenty, the surest first."""
        return sorted(self.errors, key=lambda error: -error.confidence)[:_ERRORS]

    def points(self) -> list[tuple[float, float]]:
        """(coverage, precision) at every threshold of confidence, thinned out: coverage is of gold's labels."""
        ordered = sorted(self.scored, key=lambda pair: -pair[0])
        whole = max(self.gold, len(ordered))
        every = max(1, len(ordered) // _POINTS)
        made: list[tuple[float, float, int]] = []
        right = 0
        for number, (confidence, is_right) in enumerate(ordered, 1):
            right += is_right
            last = number == len(ordered)
            if last or (ordered[number][0] != confidence and number // every > (made[-1][2] // every if made else 0)):
                made.append((number / whole, right / number, number))
        return [(across, up) for across, up, _ in made]


def compared(dialogue: Dialogue, annotator: str) -> dict[str, list[Judged]]:
    """What the annotator and gold say of each item, by task; nothing where the annotator has no labels at all.

    Example:
        >>> from tercet.labeling import Annotation, Dialogue, Labels, Turn
        >>> model = Annotation("tercet", Labels(intents={0: "play"}), {"intents": (0.75,)})
        >>> dialogue = Dialogue("1", (Turn("user", "stop it"),), Labels(intents={0: "stop"}), (model,))
        >>> compared(dialogue, "tercet")
        {'intents': [Judged(place=(0,), gold='stop', given='play', confidence=0.75)]}
    """
    made: dict[str, list[Judged]] = {}
    own = [each for each in dialogue.annotations if each.annotator == annotator]
    for task in TASKS if own else ():
        known = task in dialogue.labels.tasks()
        others = [] if known else [each for each in dialogue.annotations if each.annotator != annotator]
        sides = [dialogue.labels] if known else [each.labels for each in others if each.judges(task)]
        did = [each for each in own if task in each.labels.tasks()]
        said = answers(task, [*sides, *(each.labels for each in did)], len(dialogue.turns))
        gold = said[0] if known else _majority(said[: len(sides)])
        given: dict[Place, str] = {}
        sure: dict[Place, float] = {}
        for annotation, labels in zip(did, said[len(sides) :], strict=True):
            given |= labels
            sure |= _confidence(task, annotation, len(dialogue.turns), () in labels)
        if task == "goals" and known:
            places = {*gold, *given}
            gold = _closed(gold, places, [dialogue.labels])
            given = _closed(given, places, [each.labels for each in did])
        places = {*gold, *given}
        if places:
            made[task] = [Judged(place, gold.get(place), given.get(place), sure.get(place)) for place in sorted(places)]
    return made


def compare(dialogues: Iterable[Dialogue], annotator: str) -> dict[str, TaskComparison]:
    """All that `compared` finds, counted, by task that the annotator has labels of, in the order of TASKS."""
    made = {task: TaskComparison() for task in TASKS}
    for dialogue in dialogues:
        for task, found in compared(dialogue, annotator).items():
            made[task].add(task, dialogue, found)
    return {task: each for task, each in made.items() if each.labels}


def write_report(
    path: str | PathLike[str],
    dialogues: Iterable[Dialogue],
    *,
    annotator: str = "tercet",
    title: str = "Labels of dialogues",
    figures: Mapping[str, object] | None = None,
    examples: int = 30,
    seed: int = 0,
) -> dict[str, TaskComparison]:
    """Write the page and return what it compares; whole or not at all.

    It holds: by task, what was labelled and how much of it is right; precision against coverage; confusions of names;
    the errors of which the annotator was surest; and dialogues with their labels, drawn at random.

    Args:
        path: of the HTML file; a file that is there is replaced.
        dialogues: annotated, with gold labels as far as there are any; read once, they need not fit in memory.
        annotator: whose labels are shown.
        title: of the page.
        figures: JSON to show as tables too, of `tercet label eval --json` or of a report of `generate`.
        examples: how many dialogues.
        seed: of which ones.

    Raises:
        ValueError: the annotator has labels of no dialogue.
    """
    drawn: list[Dialogue] = []
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    rng = random.Random(seed)

    def watched() -> Iterator[Dialogue]:
        for dialogue in dialogues:
            others.update({each.annotator for each in dialogue.annotations})
            if any(each.annotator == annotator for each in dialogue.annotations):
                counts["labelled"] += 1
                place = len(drawn) if len(drawn) < examples else rng.randrange(counts["labelled"])
                drawn[place : place + 1] = [dialogue] if place < examples else []
            counts["dialogues"] += 1
            counts["turns"] += len(dialogue.turns)
            yield dialogue

    found = compare(watched(), annotator)
    if not counts["labelled"]:
        named = ", ".join(name for name, _ in others.most_common(5)) or "none"
        raise ValueError(f"tercet.write_report: annotator must have labels in the dialogues, whose are of {named}")
    numbers = (
        f"{counts['dialogues']:,} dialogues, {counts['turns']:,} turns; labels of {counts['labelled']:,} by {annotator}"
    )
    parts = [markup.paragraph(numbers, "quiet"), *_comparisons(found)]
    if figures:
        parts.append(markup.section("figures", "Figures", markup.nested_tables(figures)))
    shown = [_dialogue(dialogue, annotator, opened=place < 3) for place, dialogue in enumerate(drawn)]
    note = "Drawn at random. A label is green where gold agrees and red where it does not; numbers are confidence."
    parts.append(markup.section("dialogues", "Dialogues", [markup.paragraph(note, "quiet"), *shown]))
    write_text(Path(path), markup.page(title, parts))
    return found


def _majority(said: Sequence[Mapping[Place, str]]) -> dict[Place, str]:
    """What more than half of those say who judge an item."""
    votes: dict[Place, Counter[str]] = {}
    for labels in said:
        for place, label in labels.items():
            votes.setdefault(place, Counter())[label] += 1
    best = {place: count.most_common(1)[0] for place, count in votes.items()}
    return {place: label for place, (label, most) in best.items() if 2 * most > votes[place].total()}


def _closed(said: Mapping[Place, str], places: Iterable[Place], labels: Sequence[Labels]) -> dict[Place, str]:
    """Where all goals and their success are known, other turns are no goal, if a goal that begins there was judged."""
    goals = [goal for each in labels for goal in each.goals or ()]
    if not labels or any(goal.success is None for goal in goals):
        return dict(said)
    judged = {turn for each in labels for turn in each.judged.get("goals", ())}
    whole = any("goals" not in each.judged for each in labels)
    closed = (place for place in places if whole or place in said or (place and place[0] in judged))
    return {place: said.get(place, _NEGATIVE["goals"]) for place in closed}


def _confidence(task: str, annotation: Annotation, num_turns: int, whole: bool) -> dict[Place, float]:
    """By item; of several goals or slots of the same place the last one's."""
    given = getattr(annotation.labels, task)
    if task == "defects":
        return {(turn,): sure for turn, sure in annotation.sure_of_defects(num_turns).items()}
    if task == "goals":
        places = {number: () if whole else given[number].turns for number in range(len(given))}
        return {place: s for number, s in annotation.sure_of_success().items() if (place := places[number]) is not None}
    items = [(slot.turn, slot.start, slot.end) for slot in given] if task == "slots" else [(turn,) for turn in given]
    return dict(zip(items, annotation.confidence.get(task, ()), strict=False))


def _comparisons(found: Mapping[str, TaskComparison]) -> Iterator[str]:
    head = ("task", "labels", "of them judged", "right", "precision", "labels of gold", "found", "F1")
    rows = []
    for task, each in found.items():
        precision = each.right / each.judged if each.judged else None
        recall = each.right / each.gold if each.gold else None
        f1 = 2 * each.right / (each.judged + each.gold) if each.judged + each.gold else None
        rows.append((task, each.labels, each.judged, each.right, precision, each.gold, recall, f1))
    yield markup.section("tasks", "By task", [markup.table(head, rows)])
    curves = [
        markup.curve(task, each.points(), across="labels that are kept, of gold's", up="precision")
        for task, each in found.items()
        if each.scored
    ]
    if curves:
        note = "The surest labels are kept first. A curve ends where no label is left to keep."
        body = [markup.paragraph(note, "quiet"), *curves]
        yield markup.section("coverage", "Precision against coverage", body)
    tables = [part for task, each in found.items() if task != "transcription" for part in _confusions(task, each)]
    if tables:
        yield markup.section("confusions", "Confusions", tables)
    errors = [
        (task, error.confidence, error.given, error.gold, error.dialogue, "-".join(map(str, error.place)), error.text)
        for task, each in found.items()
        for error in each.surest_errors()[: max(3, _ERRORS // len(found))]
    ]
    if errors:
        columns = ("task", "confidence", "given", "gold", "dialogue", "place", "text")
        cut = [(*row[:-1], row[-1] if len(row[-1]) <= _TEXT else row[-1][: _TEXT - 1] + "…") for row in errors]
        yield markup.section("errors", "The surest errors", [markup.table(columns, cut)])


def _confusions(task: str, each: TaskComparison) -> Iterator[str]:
    if not each.confusions:
        return
    counts: Counter[str] = Counter()
    for (gold, given), count in each.confusions.items():
        counts[gold] += count
        counts[given] += count * (gold != given)
    last = [name for name in (_NEGATIVE.get(task), _ABSTAINED) if name is not None and counts.pop(name, 0)]
    names = [name for name, _ in counts.most_common(_NAMES)]
    kept = {*names, *last}
    folded: Counter[tuple[str, str]] = Counter()
    for (gold, given), count in each.confusions.items():
        row, column = ((name if name in kept else _OTHERS) or "(none)" for name in (gold, given))
        folded[row, column] += count
    shown = [name or "(none)" for name in (*names, *([_OTHERS] if len(counts) > _NAMES else []), *last)]
    most = f", the {_NAMES} most frequent shown" if len(counts) > _NAMES else ""
    yield markup.folded(f"{task}: {len(counts)} names{most}", markup.confusion_table(folded, shown), opened=True)


def _dialogue(dialogue: Dialogue, annotator: str, *, opened: bool) -> str:
    found = compared(dialogue, annotator)
    by_turn: dict[int, list[str]] = {}
    for task, judged in found.items():
        for place, gold, given, sure in judged:
            right = None if gold is None or given is None else gold == given
            instead = gold if gold not in (None, given, _NEGATIVE.get(task)) else None
            if task in ("goals", "slots") or (given in (None, _NEGATIVE.get(task)) and instead is None):
                continue
            name = {"transcription": "said: ", "defects": ""}.get(task, "") + (_ABSTAINED if given is None else given)
            by_turn.setdefault(place[0], []).append(markup.label(name, sure, right=right, gold=instead))
    rows = []
    slots = {each.place: each for each in found.get("slots", ())}
    for number, turn in enumerate(dialogue.turns):
        text = _marked(turn.text, number, slots)
        goals = _goals_of(dialogue, annotator, number)
        labels = "".join(by_turn.get(number, ()))
        rows.append(
            f'<tr class="{turn.speaker}"><td class="number">{number}</td><td>{turn.speaker}</td>'
            f'<td class="turn">{text}</td><td>{goals}</td><td>{labels}</td></tr>'
        )
    head = (
        '<tr><th class="number">turn</th><th>speaker</th><th>text</th><th>goals</th><th class="notes">labels</th></tr>'
    )
    outcomes = [
        markup.label(
            f"{_turns(place)}: {_ABSTAINED if given is None else given}", sure,
            right=None if gold is None or given is None else gold == given, gold=None if gold == given else gold,
        )
        for place, gold, given, sure in found.get("goals", ())
        if given is not None or gold is not None
    ]  # fmt: skip
    above = f"<p>{' '.join(outcomes)}</p>" if outcomes else ""
    body = f'{above}<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    return markup.folded(dialogue.id, body, opened=opened)


def _marked(text: str, turn: int, slots: Mapping[Place, Judged]) -> str:
    """The text with the spans that were given in it, and after it those of gold that were not found."""
    made, end, missed = [], 0, []
    for place, slot in sorted(slots.items()):
        if place[0] != turn:
            continue
        _, start, stop = place
        if not slot.given:
            missed.append(f"{text[start:stop]}: {slot.gold}")
            continue
        if start < end:
            continue  # overlaps one that is marked
        name = slot.given if slot.confidence is None else f"{slot.given} {slot.confidence:.2f}"
        wrong = "" if slot.gold in (None, slot.given) else ' class="wrong"'
        inside = f"{markup.escape(text[start:stop])}<small>{markup.escape(name)}</small>"
        made += [markup.escape(text[end:start]), f"<mark{wrong}>{inside}</mark>"]
        end = stop
    made.append(markup.escape(text[end:]))
    made += [f' <span class="gold">gold: {markup.escape(each)}</span>' for each in missed]
    return "".join(made)


def _goals_of(dialogue: Dialogue, annotator: str, turn: int) -> str:
    """The numbers of the goals that the annotator says the turn serves, and gold's where they differ; of goals that not
    all are known, gold's are left out, whose numbers are others."""
    size = len(dialogue.turns)
    own = [
        each.labels for each in dialogue.annotations if each.annotator == annotator and each.labels.goals is not None
    ]
    labels = own[0] if own else Labels()
    given, gold = (
        [str(number) for number, goal in enumerate(each.goals or (), 1) if turn in (goal.turns or ())]
        for each in (labels, dialogue.labels)
    )
    whole, known = (len(each.judged_turns("goals", size)) == size for each in (labels, dialogue.labels))
    if not whole and not given:
        return ""
    right = given == gold if whole and known else None
    instead = ", ".join(gold) or "none" if right is False else None
    return markup.label(", ".join(given) or "–", right=right, gold=instead) if given or instead else ""


def _turns(place: Place) -> str:
    """Turns of a goal, runs joined."""
    if not place:
        return "the dialogue's goal"
    runs: list[list[int]] = []
    for turn in place:
        if runs and runs[-1][-1] == turn - 1:
            runs[-1].append(turn)
        else:
            runs.append([turn])
    return "turns " + ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
