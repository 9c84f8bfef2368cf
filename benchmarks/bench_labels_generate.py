"""Turns a second of `tercet.labeling.generate`, beside a plain loop over the same encoder, and what gates cost.

    python benchmarks/bench_labels_generate.py --work WORK [--epochs N] [--threads 2]

The encoder is a BERT of LAYERS x WIDTH with a WordPiece tokenizer of dev's words, trained from scratch as part of a
label model on the first dialogues of Schema-Guided Dialogue's dev, which are few: its figures tell what gates cost, not
how good labels can be. Systems label the first dialogues of test:

- plain N: the transformers model over the texts of all turns, sorted by length, N at a time, padded by its tokenizer;
  the first token's state and a linear map of it, nothing else.
- generate: everything from dialogues to dialogues with labels; the encoder in float32 as in plain.
- generate, gated: the same with an encoder whose arbitrators came down to a share of its multiply-adds in training.

They run in turn, ROUNDS times; told are medians. What WORK holds is not trained again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench_labels_sgd import FIGURES, counts, without_service
from bench_labels_sgd import TITLES as SGD_TITLES
from label_protocols import difference, interval, machine, parser_of, read, rows, set_up, settings_of
from tercet.files import write_json, write_text
from tercet.labeling import Dialogue, ModelSettings, TrainingSettings, generate, load_model, train
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.predictions import decide
from tercet.labeling.training.gates import measured as compute_share

LAYERS, WIDTH, HEADS, WORDS = 4, 256, 4, 8000
ENCODER_RATE = 5e-4  # from scratch, not fine-tuned
BATCH = 4
PLAIN = (1, 8, 32, 128)
ROUNDS = 3
TARGET = 0.4


def make_encoder(folder: Path, dialogues: Sequence[Dialogue]) -> None:
    """A BERT with random weights and a tokenizer of the dialogues' words."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = BertWordPieceTokenizer(lowercase=True)
    texts = (turn.text for dialogue in dialogues for turn in dialogue.turns)
    words.train_from_iterator(texts, vocab_size=WORDS, show_progress=False)
    BertTokenizerFast(tokenizer_object=words._tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=words.get_vocab_size(), hidden_size=WIDTH, num_hidden_layers=LAYERS,
                        num_attention_heads=HEADS, intermediate_size=4 * WIDTH)  # fmt: skip
    BertModel(config).save_pretrained(folder)


def trained(
    folder: Path, dialogues: Sequence[Dialogue], training: TrainingSettings, sizes: ModelSettings
) -> LabelModel:
    """The model of the folder, trained unless it is there."""
    train(dialogues, training, sizes, out=folder, resume=folder.exists())
    return load_model(folder)[0]


def plain_loop(encoder: Path, texts: Sequence[str], size: int) -> Callable[[], None]:
    """Every text's first state, through a linear map."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(encoder),
        AutoModel.from_pretrained(encoder, add_pooling_layer=False).eval(),
    )
    head = torch.nn.Linear(WIDTH, 2)

    @torch.inference_mode()
    def run() -> None:
        order = sorted(texts, key=len)
        for first in range(0, len(order), size):
            inputs = tokenizer(order[first : first + size], padding=True, truncation=True, return_tensors="pt")
            head(model(**inputs).last_hidden_state[:, 0])

    return run


def _label(model: LabelModel, dialogues: Sequence[Dialogue]) -> None:
    for _ in generate(model, dialogues):
        pass


def in_turn(systems: dict[str, Callable[[], None]], num_turns: int, rounds: int) -> dict[str, float]:
    """Turns a second of each, the median."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds + 1):  # the first is not counted
        for name, run in systems.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {name: num_turns / statistics.median(each[1:]) for name, each in seconds.items()}


def results(models: dict[str, LabelModel], encoder: Path, test: Sequence[Dialogue], known: tuple[set[str], set[str]],
            rounds: int) -> dict[str, Any]:  # fmt: skip
    """Speed and figures of all systems."""
    texts = [turn.text for dialogue in test for turn in dialogue.turns]
    systems = {f"plain {size}": plain_loop(encoder, texts, size) for size in PLAIN}
    found, shares = {}, {}
    for name, model in models.items():
        systems[name] = partial(_label, model, test)
        said = [decide(each, model.classes).labels for each in model.predict(test)]
        own = counts(test, said, known)
        found[name] = {what: torch.tensor(each, dtype=torch.float64) for what, each in own.items()}
        shares[name] = compute_share(model.encoder, partial(model.predict, test))
    speed = in_turn(systems, len(texts), rounds)
    best = max(speed[f"plain {size}"] for size in PLAIN)
    return {
        "test_dialogues": len(test),
        "turns": len(texts),
        "turns_per_second": speed,
        "over_best_plain": {name: each / best for name, each in speed.items()},
        "compute_share_of_encoder": shares,
        "figures": {
            name: {what: float(figure(each[what].sum(0))) for what, figure in FIGURES.items()}
            for name, each in found.items()
        },
        "gated_less_all_on": {
            what: difference(found["generate, gated"][what], found["generate"][what], figure)
            for what, figure in FIGURES.items()
        },
    }


def markdown(made: dict[str, Any]) -> str:
    """Tables of `results`."""
    titles = ("system", *SGD_TITLES)
    lines = [
        "# Labels a second",
        "",
        f"{made['test_dialogues']:,} dialogues of Schema-Guided Dialogue's test, {made['turns']:,} turns; a BERT of"
        f" {LAYERS} x {WIDTH}, trained from scratch on {made['train_dialogues']:,} dialogues of dev. What systems are:"
        " `benchmarks/bench_labels_generate.py`.",
        "",
        f"- machine: {made['machine']}",
        f"- command: `{made['command']}`",
        "",
        *rows(("system", "turns a second", "over the best plain loop", "share of the encoder's multiply-adds"), [
            (name, round(speed), f"{made['over_best_plain'][name]:.2f}x",
             made["compute_share_of_encoder"].get(name, "")) for name, speed in made["turns_per_second"].items()
        ]),
        "",
        *rows(titles, [(name, *each.values()) for name, each in made["figures"].items()]),
        "",
        *rows(titles, [("gated less all on", *(interval(each) for each in made["gated_less_all_on"].values()))]),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def main() -> None:
    parser = parser_of(__doc__, "sgd")
    parser.add_argument("--train", type=int, default=200, help="dialogues of dev to learn from")
    parser.add_argument("--test", type=int, default=200, help="dialogues of test to label")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.set_defaults(threads=2)
    options = set_up(parser)
    dev, test = (
        [without_service(each) for each in read("sgd", options.data / split)[:size]]
        for split, size in (("dev", options.train), ("test", options.test))
    )
    encoder = options.work / "encoder"
    if not encoder.exists():
        make_encoder(encoder, dev)
    training = TrainingSettings(epochs=options.epochs, batch_size=BATCH, seed=options.seed, held_out=0.0,
                                encoder_learning_rate=ENCODER_RATE, target_compute=TARGET)  # fmt: skip
    sizes = ModelSettings(encoder=str(encoder))
    models = {
        name: trained(options.work / name.replace(", ", "-"), dev, training, replace(sizes, gates=gates))
        for name, gates in (("generate", "on"), ("generate, gated", "learnt"))
    }
    intents = {name for dialogue in dev for name in (dialogue.labels.intents or {}).values()}
    known = intents, {slot.name for dialogue in dev for slot in dialogue.labels.slots or ()}
    made = {
        "machine": machine(options.threads),
        "command": f"python benchmarks/bench_labels_generate.py --work WORK --epochs {options.epochs}",
        "train_dialogues": len(dev),
        **results(models, encoder, test, known, options.rounds),
        **settings_of(training, replace(sizes, encoder="WORK/encoder")),
    }
    write_json(options.out / "labels_generate.json", made)
    write_text(options.out / "labels_generate.md", markdown(made))
    print(markdown(made))


if __name__ == "__main__":
    main()
