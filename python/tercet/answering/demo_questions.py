"""The demo's questions, generated from templates over its graph. No one asked them, and the demo says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tercet.answering.data import Question
from tercet.graph.knowledge_graph import KnowledgeGraph

# A path is relations from a mention, `~` for an inverse. Two paths ask for what both mentions lead to.
# Of each path's wordings the last third is kept from training.
_TEMPLATES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("capital",): (
        "what is the capital of []", "name the capital city of []", "which city is the capital of []",
        "tell me the capital of []", "what city serves as the capital of []", "[] has which capital",
    ),
    ("continent",): (
        "on which continent is []", "what continent does [] belong to", "[] is part of which continent",
        "which continent is home to []", "name the continent where [] lies", "tell me what continent [] is on",
    ),
    ("neighbour",): (
        "which countries border []", "what are the neighbours of []", "name the countries next to []",
        "[] shares a border with which countries", "which neighbours does [] have", "what countries does [] border",
    ),
    ("currency",): (
        "what is the currency of []", "which currency does [] use", "what money is used in []",
        "people in [] pay with which currency",
        "name the currency used in []", "what currency do people pay with in []",
    ),
    ("language",): (
        "which languages are spoken in []", "what language do people speak in []", "name the languages of []",
        "what are the languages of []", "people in [] speak which languages", "tell me the languages spoken in []",
    ),
    ("population",): (
        "how many people live in []", "what is the population of []", "how large is the population of []",
        "[] has how many inhabitants", "how many inhabitants live in []", "tell me how many people [] has",
    ),
    ("country",): (
        "in which country is []", "what country is [] in", "which country does the city of [] belong to",
        "name the country where [] lies", "tell me which country [] is in", "the city of [] lies in what country",
    ),
    ("timezone",): (
        "what is the time zone of []", "which time zone is [] in", "name the time zone used in []",
        "what time zone do clocks in [] follow", "clocks in [] follow which time zone", "tell me the time zone of []",
    ),
    ("~capital",): (
        "[] is the capital of which country", "which country has [] as its capital",
        "whose capital is []", "name the country with the capital []",
        "what country has the capital []", "[] is the capital of what country",
    ),
    ("~currency",): (
        "which countries use the []", "where do people pay with the []", "in which countries is the [] the currency",
        "name the countries that use the []", "which countries pay with the []", "where is the [] used",
    ),
    ("~language",): (
        "in which countries is [] spoken", "where do people speak []", "which countries speak []",
        "name the countries where [] is spoken", "where is [] spoken", "what countries speak []",
    ),
    ("country", "currency"): (
        "what is the currency in the country of []", "which currency does the country that contains [] use",
        "what money is used in the country where [] lies", "name the currency of the country [] is in",
        "which currency is used in the country of []", "people in the country that contains [] pay with what money",
    ),
    ("country", "language"): (
        "which languages are spoken in the country of []", "what do people speak in the country that contains []",
        "name the languages of the country where [] lies", "what are the languages of the country [] is in",
        "what languages do people speak in the country of []",
        "which languages does the country that contains [] speak",
    ),
    ("country", "continent"): (
        "on which continent is the country of []", "what continent is the country that contains [] part of",
        "name the continent of the country where [] lies", "the country [] is in belongs to which continent",
        "which continent is the country of [] on", "what continent does the country that contains [] belong to",
    ),
    ("country", "capital"): (
        "what is the capital of the country of []", "which city is the capital of the country that contains []",
        "name the capital of the country where [] lies", "the country [] is in has which capital",
        "tell me the capital of the country of []", "what is the capital city of the country that contains []",
    ),
    ("country", "neighbour"): (
        "which countries border the country of []", "what are the neighbours of the country that contains []",
        "name the countries next to the country where [] lies", "the country [] is in borders which countries",
        "which neighbours does the country of [] have", "what countries border the country that contains []",
    ),
    ("neighbour", "capital"): (
        "what are the capitals of the neighbours of []", "name the capitals of the countries that border []",
        "which cities are capitals of countries next to []", "the countries that border [] have which capitals",
        "tell me the capitals of the countries next to []", "which capitals do the neighbours of [] have",
    ),
    ("neighbour", "currency"): (
        "which currencies are used by the neighbours of []", "what money do the countries that border [] use",
        "name the currencies of the countries next to []", "the neighbours of [] pay with which currencies",
        "what currencies do the countries next to [] use", "which currencies do the countries that border [] pay with",
    ),
    ("language", "~language"): (
        "which countries share a language with []", "what other countries speak a language of []",
        "where else do people speak a language of []", "name the countries that have a language in common with []",
        "which other countries share a language with []", "what countries have a language in common with []",
    ),
    ("currency", "~currency"): (
        "which other countries use the currency of []", "what countries share a currency with []",
        "where else do people pay with the currency of []", "name the countries with the same currency as []",
        "which countries share a currency with []", "what other countries have the same currency as []",
    ),
}  # fmt: skip
_PAIRS: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]] = {
    (("neighbour",), ("neighbour",)): (
        "which countries border both [] and []", "what countries are neighbours of [] and also of []",
        "name the countries next to both [] and []", "[] and [] are both bordered by which countries",
        "what countries border both [] and []", "name the countries that are neighbours of [] and also of []",
    ),
    (("~language",), ("neighbour",)): (
        "which countries speak [] and border []", "where is [] spoken next to []",
        "name the countries that speak [] and are neighbours of []", "which countries speak [] and are next to []",
        "what countries speak [] and border []", "name the countries that speak [] and border []",
    ),
}  # fmt: skip
_MOST_SEEDS = 240


@dataclass(frozen=True)
class DemoQuestions:
    """Generated questions; no test question asks along a path from an entity that training asked along that path.

    Attributes:
        train: to learn from. seen, unseen: for the test, in wordings that training has and in wordings it has not.
    """

    train: list[Question]
    seen: list[Question]
    unseen: list[Question]


def generate_questions(graph: KnowledgeGraph, *, generator: torch.Generator) -> DemoQuestions:
    """Questions of one and two hops, and of two entities, with their answers along the paths.

    A fifth of each path's entities is for the test; each is asked about in three wordings, one of them unseen.
    """
    walker = _Walker(graph)
    questions = DemoQuestions([], [], [])
    for path, wordings in _TEMPLATES.items():
        seeds = [(name,) for name in walker.starts(path)]
        _generate(walker, questions, (path,), wordings, seeds, generator)
    for paths, wordings in _PAIRS.items():
        _generate(walker, questions, paths, wordings, walker.pairs(paths), generator)
    return questions


def _generate(
    walker: _Walker, questions: DemoQuestions, paths: Sequence[tuple[str, ...]], wordings: Sequence[str],
    seeds: Sequence[tuple[str, ...]], generator: torch.Generator,
) -> None:  # fmt: skip
    order = torch.randperm(len(seeds), generator=generator)[:_MOST_SEEDS].tolist()
    known = 2 * len(wordings) // 3
    for rank, index in enumerate(order):
        names = seeds[index]
        answers = walker.answers(paths, names)
        if not answers:
            continue
        first, second = torch.randperm(known, generator=generator)[:2].tolist()
        new = known + int(torch.randint(len(wordings) - known, (), generator=generator))
        asked = [(first, questions.train), (second, questions.train)]
        if rank % 5 == 0:
            asked = [(first, questions.seen), (second, questions.seen), (new, questions.unseen)]
        for wording, target in asked:
            text = wordings[wording]
            for name in names:
                text = text.replace("[]", f"[{name}]", 1)
            target.append(Question(text, names, answers, "generated"))


class _Walker:
    """Follows paths symbolically: sets of names to sets of names."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        assert graph.entity_names is not None
        assert graph.relation_names is not None
        self.names = list(graph.entity_names)
        base = graph.num_relations // 2
        relations = {graph.relation_name(relation): relation for relation in range(base)}
        relations |= {f"~{name}": relation + base for name, relation in relations.items()}
        self.relations = relations
        self.by_name: dict[str, list[int]] = {}
        for entity, name in enumerate(self.names):
            self.by_name.setdefault(name, []).append(entity)
        self.edges: dict[tuple[int, int], list[int]] = {}
        subjects = torch.repeat_interleave(torch.arange(graph.num_entities), graph.row_offsets.diff())
        columns = subjects.tolist(), graph.relations.tolist(), graph.objects.tolist()
        for subject, relation, target in zip(*columns, strict=True):
            self.edges.setdefault((subject, relation), []).append(target)

    def walk(self, path: Sequence[str], name: str) -> set[int]:
        """What the path reaches from all entities of that name, themselves left out."""
        seeds = set(self.by_name[name])
        reached = seeds
        for relation in path:
            edges = self.relations[relation]
            reached = {target for entity in reached for target in self.edges.get((entity, edges), ())} - seeds
        return reached

    def answers(self, paths: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[str, ...]:
        """The names of what all paths reach, sorted."""
        sets = [self.walk(path, name) for path, name in zip(paths, names, strict=True)]
        return tuple(sorted({self.names[entity] for entity in set.intersection(*sets)}))

    def starts(self, path: Sequence[str]) -> list[str]:
        """The names from which the path leads somewhere, sorted."""
        first = self.relations[path[0]]
        names = sorted({self.names[subject] for subject, relation in self.edges if relation == first})
        return [name for name in names if "[" not in name and self.walk(path, name)]

    def pairs(self, paths: tuple[Sequence[str], Sequence[str]]) -> list[tuple[str, ...]]:
        """Two different names whose paths meet, sorted: drawn from what leads to each entity."""
        into: list[dict[int, list[str]]] = [{}, {}]
        for side, path in enumerate(paths):
            for name in self.starts(path):
                for target in self.walk(path, name):
                    into[side].setdefault(target, []).append(name)
        pairs = {
            (first, second)
            for target in into[0].keys() & into[1].keys()
            for first in into[0][target]
            for second in into[1][target]
            if first != second
        }
        return sorted(pairs)
