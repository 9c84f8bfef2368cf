"""A small generated graph of films and questions over it, shared by the tests of question answering."""

from __future__ import annotations

import random
from pathlib import Path

from tercet import KnowledgeGraph
from tercet.answering import Question

RELATIONS = ["directed_by", "starred", "released_in"]


class Films:
    """Films, each with a director, two actors and a year; `graph` has no inverses; `order` shuffles the ids."""

    def __init__(self, num_films: int = 60, seed: int = 1, order: int | None = None) -> None:
        draw = random.Random(seed)
        self.films = [f"Film {number}" for number in range(num_films)]
        people = [f"Person {number}" for number in range(num_films // 3)]
        years = [str(1990 + number) for number in range(8)]
        names = [*self.films, *people, *years]
        if order is not None:
            random.Random(order).shuffle(names)
        ids = {name: number for number, name in enumerate(names)}
        self.director = {film: draw.choice(people) for film in self.films}
        self.cast = {film: sorted(draw.sample(people, 2)) for film in self.films}
        self.year = {film: draw.choice(years) for film in self.films}
        triples = [(film, 0, self.director[film]) for film in self.films]
        triples += [(film, 1, person) for film in self.films for person in self.cast[film]]
        triples += [(film, 2, self.year[film]) for film in self.films]
        heads, relations, tails = zip(*((ids[s], r, ids[o]) for s, r, o in triples), strict=True)
        self.graph = KnowledgeGraph.from_triples(
            heads, relations, tails, num_entities=len(names), num_relations=3, entity_names=names,
            relation_names=RELATIONS,
        )  # fmt: skip
        self.people = people

    def one_hop(self) -> list[Question]:
        """Who directed, who starred, when released, and which films someone directed."""
        asked = []
        for film in self.films:
            asked.append(_question(f"who directed [{film}]", [self.director[film]]))
            asked.append(_question(f"who starred in [{film}]", self.cast[film]))
            asked.append(_question(f"when was [{film}] released", [self.year[film]]))
        for person in self.people:
            directed = [film for film in self.films if self.director[film] == person]
            if directed:
                asked.append(_question(f"what did [{person}] direct", directed))
        return asked

    def colleagues(self) -> list[Question]:
        """Two hops, never back to the film itself: other films of a film's director."""
        asked = []
        for film in self.films:
            others = [f for f in self.films if self.director[f] == self.director[film] and f != film]
            if others:
                asked.append(_question(f"what else was made by the director of [{film}]", others))
                asked.append(_question(f"which other films has the director of [{film}]", others))
        return asked

    def castmates(self) -> list[Question]:
        """Two hops that do come back: everyone in the films of a person, the person included."""
        asked = []
        for person in self.people:
            films = [film for film in self.films if person in self.cast[film]]
            everyone = sorted({other for film in films for other in self.cast[film]})
            if everyone:
                asked.append(_question(f"who is in the films with [{person}]", everyone))
                asked.append(_question(f"name the cast of all films with [{person}]", everyone))
        return asked

    def pairs(self) -> list[Question]:
        """Two mentions: the films that star both, where some do."""
        asked = []
        for film in self.films:
            first, second = self.cast[film]
            both = [f for f in self.films if first in self.cast[f] and second in self.cast[f]]
            asked.append(_question(f"which films star both [{first}] and [{second}]", both))
            asked.append(_question(f"in what do [{second}] and [{first}] star together", both))
        return asked


def _question(text: str, answers: list[str]) -> Question:
    mentions = tuple(part.split("]")[0] for part in text.split("[")[1:])
    return Question(text, mentions, tuple(answers), "generated")


def write(path: Path, questions: list[Question]) -> Path:
    """A question file."""
    path.write_text("".join(f"{q.text}\t{'|'.join(q.answers)}\n" for q in questions), encoding="utf-8")
    return path
