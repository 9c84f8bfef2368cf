"""Requests: what users ask for in the same words and get the same treatment for, whoever they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from tercet.labeling.data.dialogues import Dialogue, Turn

ACTIONS = ("domain", "service", "intent", "action", "acts")  # categorical features that say what the system did
_WORD = re.compile(r"\w+(?:'\w+)*")


class Request(NamedTuple):
    """What was asked, and what the system did.

    Attributes:
        text: of the user, normalised; empty where nothing was asked.
        action: of the system; empty where it did nothing.
    """

    text: str
    action: str


def normalised(text: str) -> str:
    """The words of a text, in the compatibility forms of Unicode, without case and punctuation.

    Example:
        >>> normalised("Play  the B-52s, don't stop!")
        "play the b 52s don't stop"
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'")))


def request_of(dialogue: Dialogue, turn: int, actions: Sequence[str] = ACTIONS) -> Request:
    """The request that a turn belongs to: a user's turn to itself, a system's to the last user's turn before it.

    What the system did is what its turn (of a user's turn: the next one, if it is the system's) says in the categorical
    features `actions`; where it has none of them, the words of its response, numbers left out.

    Example:
        >>> said = Turn("user", "Play jazz!"), Turn("system", "Playing 7 songs.", categorical={"domain": "music"})
        >>> request_of(Dialogue("1", said), 1)
        Request(text='play jazz', action='domain=music')
        >>> request_of(Dialogue("1", said), 0, actions=())
        Request(text='play jazz', action='playing songs')
    """
    turns = dialogue.turns
    asked, answer = turn, turn
    if turns[turn].speaker == "user":
        answer += 1
    else:
        while asked >= 0 and turns[asked].speaker != "user":
            asked -= 1
    done = turns[answer] if answer < len(turns) and turns[answer].speaker == "system" else None
    return Request(normalised(turns[asked].text) if asked >= 0 else "", "" if done is None else _action(done, actions))


def _action(turn: Turn, actions: Sequence[str]) -> str:
    named = [f"{name}={turn.categorical[name]}" for name in actions if name in turn.categorical]
    if named:
        return " ".join(named)
    return " ".join(word for word in normalised(turn.text).split() if not word.isnumeric())
