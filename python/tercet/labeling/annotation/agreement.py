"""How far annotators agree on the items of a task, and each of them with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tercet.labeling.annotation.judgements import Item, Judgements
from tercet.ops.annotators import DawidSkene, dawid_skene


@dataclass(frozen=True)
class Agreement:
    """Figures of one task.

    Attributes:
        judgements, items: how many there are.
        compared_items: those that two annotators or more judged; the others count nowhere below.
        pairwise: the share of pairs of judgements of an item that say the same.
        alpha: Krippendorff's, for names: 1 for perfect agreement, 0 for that of chance; None where all judgements of
            compared items are the same, since then chance agrees as well.
        annotators: by name.
    """

    judgements: int
    items: int
    compared_items: int
    pairwise: float
    alpha: float | None
    annotators: dict[str, AnnotatorAgreement]

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return vars(self) | {"annotators": {name: vars(each) for name, each in self.annotators.items()}}


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Figures of one annotator.

    Attributes:
        judgements: how many.
        compared: those of items where the others have one most frequent label, this annotator's or another one.
        agreement: the share of them that is that label; None of none.
        accuracy: how often this annotator says the true label, as the consensus has it; None without one.
    """

    judgements: int
    compared: int
    agreement: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Uncertain:
    """An item that the annotators leave open.

    Attributes:
        item: which.
        label: the likeliest.
        confidence: its probability.
        judgements: how many the item has.
    """

    item: Item
    label: str
    confidence: float
    judgements: int


def agreement(judged: Judgements, model: DawidSkene | None = None) -> Agreement:
    """How far annotators agree.

    Cost: a sort of the judgements; memory follows their number, however many labels there are.

    Args:
        judged: of one task.
        model: their `consensus`, for the accuracy of annotators.

    Raises:
        ValueError: there are fewer than two annotators, or no item that two of them judged.

    Example:
        >>> from tercet.labeling import Annotation, Dialogue, Labels, Turn, judgements
        >>> said = {"ann": (1,), "bob": (1,), "eve": ()}
        >>> annotations = tuple(Annotation(name, Labels(defects=defects)) for name, defects in said.items())
        >>> dialogue = Dialogue("1", (Turn("user", "play jazz"), Turn("system", "No.")), annotations=annotations)
        >>> found = agreement(judgements([dialogue])["defects"])
        >>> round(found.pairwise, 3), round(found.alpha, 3), found.annotators["eve"].agreement
        (0.667, 0.375, 0.5)
    """
    if len(judged.annotator_names) < 2:
        raise ValueError(
            f"tercet.agreement: annotators must be two or more, got {', '.join(map(repr, judged.annotator_names))}"
        )
    sizes = judged.items.bincount()
    compared_items = int((sizes > 1).sum())
    if not compared_items:
        raise ValueError(
            f"tercet.agreement: two annotators must have judged the same item, got {len(sizes)} items of one"
        )
    pairs, pair, counts = (judged.items * len(judged.label_names) + judged.labels).unique(
        return_inverse=True, return_counts=True
    )
    pair_items = pairs // len(judged.label_names)
    agreeing = int((counts * (counts - 1)).sum())
    return Agreement(
        judgements=len(judged),
        items=len(sizes),
        compared_items=compared_items,
        pairwise=agreeing / int((sizes * (sizes - 1)).sum()),
        alpha=krippendorff_alpha(judged.items, judged.labels),
        annotators=_by_annotator(judged, model, pair, pair_items, counts),
    )


def consensus(judged: Judgements) -> DawidSkene:
    """What annotators say together, each by how they err: `dawid_skene`, every count of confusions one higher.

    Its probabilities are too sure of themselves where annotators err on the same items; their order is what serves.
    Tables are num_annotators x num_labels^2, too large where labels are free text.

    Example:
        >>> from tercet.labeling import Annotation, Dialogue, Labels, Turn, judgements
        >>> said = {"ann": "play", "bob": "play", "eve": "stop"}
        >>> annotations = tuple(Annotation(name, Labels(intents={0: intent})) for name, intent in said.items())
        >>> judged = judgements([Dialogue("1", (Turn("user", "play jazz"),), annotations=annotations)])["intents"]
        >>> least_certain(judged, consensus(judged), budget=1)[0].label
        'play'
    """
    return dawid_skene(
        judged.items, judged.annotators, judged.labels,
        num_classes=len(judged.label_names), smoothing=1.0, tolerance=1e-6,
    )  # fmt: skip


def least_certain(judged: Judgements, model: DawidSkene, budget: int) -> list[Uncertain]:
    """The items, `budget` at most, whose likeliest label is least probable: there another annotation pays."""
    confidence, labels = model.posteriors.max(1)
    return [
        Uncertain(
            judged.item_names[item],
            judged.label_names[int(labels[item])],
            min(1.0, float(confidence[item])),
            int(model.num_labels[item]),
        )
        for item in confidence.argsort(stable=True)[:budget].tolist()
    ]


def krippendorff_alpha(items: Tensor, labels: Tensor) -> float | None:
    """Krippendorff's alpha for names: 1 - observed disagreement / that expected by chance.

        observed = sum over items i of (m_i^2 - sum over labels l of n_il^2) / (m_i - 1), divided by n
        expected = (n^2 - sum over l of n_l^2) / (n (n - 1))

    where n_il judgements give item i the label l, m_i are of i, n_l give l, n are all; items with one count nowhere.

    Args:
        items, labels: integers >= 0 [num_judgements].

    Returns:
        None where there is nothing to compare, or all labels are the same.

    Source:
        Krippendorff: Computing Krippendorff's Alpha-Reliability, 2011.

    Example:
        >>> krippendorff_alpha(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]))
        0.0
    """
    _, items, sizes = items.unique(return_inverse=True, return_counts=True)
    compared = sizes > 1
    items, labels = items[compared[items]], labels[compared[items]]
    if not len(items):
        return None
    _, labels, totals = labels.unique(return_inverse=True, return_counts=True)
    pairs, counts = (items * len(totals) + labels).unique(return_counts=True)
    same = torch.zeros_like(sizes).index_add_(0, pairs // len(totals), counts.square())
    observed = float(((sizes.square() - same)[compared] / (sizes - 1)[compared].double()).sum())
    expected = (len(items) ** 2 - int(totals.square().sum())) / (len(items) - 1)
    return 1 - observed / expected if expected else None


def _by_annotator(
    judged: Judgements, model: DawidSkene | None, pair: Tensor, pair_items: Tensor, counts: Tensor
) -> dict[str, AnnotatorAgreement]:
    """`pair` of each judgement: its item and label, of which `counts` judgements are."""
    order = counts.argsort(descending=True, stable=True)
    order = order[pair_items[order].argsort(stable=True)]  # by item, the most frequent label first
    starts = torch.nn.functional.pad(pair_items.bincount().cumsum(0), (1, 0))[:-1]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - starts[pair_items[order]]
    highest = torch.zeros(len(starts), 3, dtype=torch.int64)
    leading = rank < 3
    highest[pair_items[leading], rank[leading]] = counts[leading]

    # Of each judgement: how many others give its label, and their two most frequent labels apart from it.
    own, rank, highest = counts[pair] - 1, rank[pair], highest[judged.items]
    first = torch.where(rank == 0, highest[:, 1], highest[:, 0])
    second = torch.where(rank > 1, highest[:, 1], highest[:, 2])
    agrees, differs = own > first, (first > own) & (first > second)

    said = judged.annotators.bincount()
    right, wrong = (judged.annotators[each].bincount(minlength=len(said)) for each in (agrees, differs))
    accuracy: list[float | None] = [None] * len(said)
    if model is not None:
        accuracy = (model.confusions.diagonal(dim1=1, dim2=2) @ model.prior).tolist()
    return {
        name: AnnotatorAgreement(total, yes + no, yes / (yes + no) if yes + no else None, true)
        for name, total, yes, no, true in zip(
            judged.annotator_names, said.tolist(), right.tolist(), wrong.tolist(), accuracy, strict=True
        )
    }
