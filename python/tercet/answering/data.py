"""Questions and their files: one `question with [entity] TAB answer|answer` a line, UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath

from tercet.graph.knowledge_graph import KnowledgeGraph

_MENTION = re.compile(r"\[([^\[\]]+)\]")
_WORD = re.compile(r"\w+|[^\w\s]")

# Tokens that stand for mentions: the one that a row follows, and the question's others.
OWN_MENTION, OTHER_MENTION = "<entity>", "<other>"


@dataclass(frozen=True)
class Question:
    """A question as it was written.

    Attributes:
        text: the question, its entities in brackets.
        mentions: the bracketed names, in order; at least one.
        answers: the names of the right answers; empty where they are not known.
        source: where it stands, e.g. `dev.txt, line 7`, for messages.
    """

    text: str
    mentions: tuple[str, ...]
    answers: tuple[str, ...] = ()
    source: str = "question"


@dataclass(frozen=True)
class GroundedQuestion:
    """A question whose names are entities of a graph.

    Attributes:
        question: as it was written.
        seeds: for each mention, the ids of all entities of that name.
        answers: the ids of all entities with the name of an answer, ascending.
        absent: how many answers name no entity of the graph. They count against recall; nothing can find them.
    """

    question: Question
    seeds: tuple[tuple[int, ...], ...]
    answers: tuple[int, ...]
    absent: int


def parse_question(text: str, *, answers: Sequence[str] = (), source: str = "question") -> Question:
    """The question in `text`, whose entities stand in brackets.

    Raises:
        ValueError: there is no bracketed entity.

    Example:
        >>> parse_question("who directed [Heat]").mentions
        ('Heat',)
    """
    mentions = tuple(name.strip() for name in _MENTION.findall(text))
    if not mentions or not all(mentions):
        raise ValueError(
            f"{source}: a question must name an entity in brackets, as in `who directed [Heat]`, got {text!r}"
        )
    return Question(text.strip(), mentions, tuple(answers), source)


def read_questions(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Question]:
    """The questions of one file or several.

    Raises:
        ValueError: a line is not UTF-8, or lacks the tab, a bracketed entity or an answer; the message names file and
            line.
    """
    questions: list[Question] = []
    for path in [paths] if isinstance(paths, (str, PathLike)) else paths:
        name = fspath(path)
        before = len(questions)
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                source = f"{name}, line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise ValueError(f"{source}: expected UTF-8, got byte {line[error.start]:#04x}") from None
                if text.strip():
                    questions.append(_parse_line(text, source))
        if len(questions) == before:
            raise ValueError(f"{name}: expected lines `question with [entity] TAB answer|answer`, got none")
    return questions


def _parse_line(line: str, source: str) -> Question:
    text, tab, rest = line.partition("\t")
    if not tab:
        raise ValueError(f"{source}: expected `question with [entity] TAB answer|answer`, got no tab in {line!r}")
    answers = tuple(dict.fromkeys(name.strip() for name in rest.split("|") if name.strip()))
    if not answers:
        raise ValueError(f"{source}: expected an answer after the tab, got none")
    return parse_question(text, answers=answers, source=source)


class Grounder:
    """Finds the entities that questions name. It remembers what it found, since names come again and again."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.graph = graph
        self._known: dict[str, tuple[int, ...]] = {}

    def ids(self, name: str) -> tuple[int, ...]:
        """The ids of all entities of that name, ascending; none if there are none."""
        if name not in self._known:
            names = self.graph.entity_names
            self._known[name] = tuple(names.find(name)) if names is not None else ()
        return self._known[name]

    def ground(self, question: Question) -> GroundedQuestion:
        """The question with ids for names.

        Raises:
            ValueError: a mention names no entity; the message suggests near names.
        """
        for name in question.mentions:
            if not self.ids(name):
                try:
                    self.graph.find_entity(name)
                except ValueError as error:
                    raise ValueError(f"{question.source}: {error}") from None
        found = [self.ids(name) for name in question.answers]
        answers = tuple(sorted({entity for ids in found for entity in ids}))
        absent = sum(not ids for ids in found)
        return GroundedQuestion(question, tuple(self.ids(name) for name in question.mentions), answers, absent)


def tokens(text: str, mention: int) -> list[str]:
    """The question's words in lower case; the mention of that number becomes `<entity>`, the others `<other>`.

    Example:
        >>> tokens("Who played [Rick] in [Casablanca]?", 1)
        ['who', 'played', '<other>', 'in', '<entity>', '?']
    """
    parts = _MENTION.split(text)
    words: list[str] = []
    for index, part in enumerate(parts):
        if index % 2 == 0:
            words.extend(_WORD.findall(part.lower()))
        else:
            words.append(OWN_MENTION if index // 2 == mention else OTHER_MENTION)
    return words
