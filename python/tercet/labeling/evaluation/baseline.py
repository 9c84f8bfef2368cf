"""What a label model must beat: ridge regression of the mean label on the words of dialogue and turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tercet.labeling.annotation.judgements import Place
from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.evaluation.questions import TASKS_OF_CLASSES, questions
from tercet.labeling.model.predictions import Classes, Prediction

_FEWEST = 2  # documents that a word or pair of words must be in


class TfidfRidge:
    """TF-IDF of words and pairs of words, then ridge regression on the share of annotators who say each label.

    A dialogue is four documents: the words of the user, of the system, of its last turn, of the system's last turn. A
    turn is three: its words where the user speaks, where the system does, and the words of the turn before. Each has
    weights and a length of 1 of its own.

    Args:
        alpha: of ridge regression.

    Attributes:
        classes: what `predict` names.

    Raises:
        ImportError: scikit-learn is missing (extra `labels`).

    Source:
        Salton, Buckley: Term-weighting Approaches in Automatic Text Retrieval, 1988.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = alpha
        self.classes = Classes()
        self._models: dict[str, tuple[_Vectors, Any, tuple[str, ...]]] = {}

    def fit(self, dialogues: Sequence[Dialogue]) -> TfidfRidge:
        """Learn every task that the dialogues have labels of: success of a dialogue's one goal, defects, intents and
        failure points; goals of turns are left out.

        Returns:
            Itself.
        """
        try:
            from sklearn.linear_model import Ridge
        except ImportError as error:
            raise ImportError("the baseline needs scikit-learn: pip install 'tercet[labels]'") from error
        for task in TASKS_OF_CLASSES:
            asked = questions(dialogues, task, draws=1)
            if asked is None or (task == "goals" and any(asked.places)):
                continue
            vectors = _Vectors()
            documents = _documents(dialogues, asked.dialogues.tolist(), asked.places)
            ridge = Ridge(alpha=self.alpha).fit(vectors.fit(documents), asked.shares.double().numpy())
            self._models[task] = vectors, ridge, asked.classes
        names = {task: classes for task, (_, _, classes) in self._models.items()}
        self.classes = Classes(intents=names.get("intents", ()), failure_point=names.get("failure_point", ()))
        return self

    def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
        """Of each dialogue; shares are cut to 0..1, and those of several classes sum to 1."""
        turns = [(number,) for dialogue in dialogues for number in range(len(dialogue.turns))]
        of_turns = [place for place, dialogue in enumerate(dialogues) for _ in dialogue.turns]
        sizes = [len(dialogue.turns) for dialogue in dialogues]
        columns: dict[str, list[Any]] = {}
        for task, (vectors, ridge, classes) in self._models.items():
            whole = task == "goals"
            asked = (list(range(len(dialogues))), [()] * len(dialogues)) if whole else (of_turns, turns)
            found = torch.as_tensor(ridge.predict(vectors(_documents(dialogues, *asked))))
            shares = _distributions(found.view(len(asked[0]), -1))
            if whole:
                columns["whole_success"] = _share(shares, classes, "reached").tolist()
            elif task == "defects":
                columns["defects"] = list(_share(shares, classes, "defect").split(sizes))
            else:
                columns[task] = list(shares.split(sizes))
        return [Prediction(**{name: values[place] for name, values in columns.items()}) for place in range(len(sizes))]


class _Vectors:
    """TF-IDF of fields, each apart."""

    def fit(self, documents: list[list[str]]) -> Any:
        """[num_documents, num_terms], sparse, of documents [num_fields][num_documents]."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._fields = []
        for field in documents:
            fewest = min(_FEWEST, len(field))
            made = TfidfVectorizer(ngram_range=(1, 2), min_df=fewest, sublinear_tf=True, token_pattern=r"\w+|[?!]")
            try:
                self._fields.append(made.fit(field))
            except ValueError:  # no term is in so many documents
                self._fields.append(None)
        return self(documents)

    def __call__(self, documents: list[list[str]]) -> Any:
        """The same of other documents."""
        from scipy.sparse import csr_matrix, hstack

        parts = [
            csr_matrix((len(field), 0)) if made is None else made.transform(field)
            for made, field in zip(self._fields, documents, strict=True)
        ]
        return hstack(parts, format="csr")


def _documents(dialogues: Sequence[Dialogue], of_dialogue: Sequence[int], places: Sequence[Place]) -> list[list[str]]:
    """[num_fields][num_items]; what a place is says which fields there are."""
    rows: list[tuple[str, ...]] = []
    for number, place in zip(of_dialogue, places, strict=True):
        turns = dialogues[number].turns
        if not place:
            by_user, by_system = ([turn.text for turn in turns if turn.speaker == who] for who in ("user", "system"))
            rows.append(("\n".join(by_user), "\n".join(by_system), turns[-1].text, by_system[-1] if by_system else ""))
            continue
        turn, before = turns[place[0]], turns[place[0] - 1].text if place[0] else ""
        own = (turn.text, "") if turn.speaker == "user" else ("", turn.text)
        rows.append((*own, before))
    return [list(field) for field in zip(*rows, strict=True)]


def _distributions(found: Tensor) -> Tensor:
    """float32 rows that sum to 1."""
    shares = found.clamp(0, 1)
    sums = shares.sum(1, keepdim=True)
    return torch.where(sums > 0, shares / sums, torch.full_like(shares, 1 / shares.shape[1])).float()


def _share(shares: Tensor, classes: tuple[str, ...], name: str) -> Tensor:
    return shares[:, classes.index(name)] if name in classes else torch.zeros(len(shares))
