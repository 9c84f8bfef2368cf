"""`tercet label`: its commands, one module for each family."""

from __future__ import annotations

import typer

from tercet.cli.label_agree import agree_command
from tercet.cli.label_data import check_command, convert_command
from tercet.cli.label_defects import defects_command
from tercet.cli.label_eval import eval_command
from tercet.cli.label_explore import explore_command
from tercet.cli.label_logs import sessions_command
from tercet.cli.label_report import report_command
from tercet.cli.label_train import generate_command, pretrain_command, train_command

app = typer.Typer(
    no_args_is_help=True,
    help="Label dialogues: their format, how far annotators agree, a model that labels, how far it can be trusted.",
)

_COMMANDS = (
    (convert_command, "convert", "sgd dstc8-schema-guided-dialogue/dev --out sgd-dev.jsonl"),
    (check_command, "check", "dialogues.jsonl --skip-malformed"),
    (agree_command, "agree", "stc3.jsonl --task intents"),
    (sessions_command, "sessions", "'logs/*.parquet' --out calls.jsonl --gap 300"),
    (pretrain_command, "pretrain", "--data logs.jsonl --out start"),
    (train_command, "train", "--data labelled.jsonl --out model"),
    (eval_command, "eval", "--data stc3.jsonl --folds 5 --seed 1 --json"),
    (generate_command, "generate", "--model model --data logs.jsonl --min-precision 0.9 --out out.jsonl"),
    (report_command, "report", "labelled.jsonl --out labelled.html"),
    (defects_command, "defects", "--data calls.jsonl --always stop --top 50"),
    (explore_command, "explore", "--model model --data calls.jsonl --budget 500 --out ask.jsonl"),
)
for _command, _name, _example in _COMMANDS:
    app.command(_name, epilog=f"Example: tercet label {_name} {_example}")(_command)
