"""Question files and the errors they give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from films import Films
from tercet.answering import Question, parse_question, read_questions
from tercet.answering.data import Grounder, tokens

names = st.text(
    st.characters(exclude_characters="[]|\t\r\n", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1
)


@given(st.lists(st.tuples(names, names, st.lists(names, min_size=1, unique=True)), min_size=1, max_size=5))
def test_files_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str, list[str]]]
) -> None:
    path = tmp_path_factory.mktemp("questions") / "q.txt"
    text = "".join(f"{word} [{name}]\t{'|'.join(answers)}\n" for word, name, answers in lines)
    path.write_bytes(text.encode())
    found = read_questions(path)
    assert [(q.mentions, list(q.answers)) for q in found] == [((name,), answers) for _, name, answers in lines]


def test_several_files_are_read_in_order_with_sources(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"\nwhat is [{name}]\tx | y|x\r\n", encoding="utf-8")
    found = read_questions([tmp_path / "a", tmp_path / "b"])
    assert found == [
        Question(f"what is [{name}]", (name,), ("x", "y"), f"{tmp_path / name}, line 2") for name in ("a", "b")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"what is [a]\tb\nwhat is [a] b\n", r"line 2: expected `question with .* got no tab in 'what is \[a\] b'"),
        (b"what is a\tb\n", r"line 1: a question must name an entity in brackets.*got 'what is a'"),
        (b"what is [ ]\tb\n", r"line 1: a question must name an entity in brackets"),
        (b"what is [a]\t | \n", r"line 1: expected an answer after the tab, got none"),
        (b"what is [a]\tb\nwhat \xff\xfe\n", r"line 2: expected UTF-8, got byte 0xff"),
        (b"\n\n", r"q.txt: expected lines `question with .*, got none"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "q.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"q.txt.*{message}|{message}"):
        read_questions(tmp_path / "q.txt")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_bytes(b"\xef\xbb\xbfwho is [a]\tb\n")
    assert read_questions(str(tmp_path / "q.txt"))[0].text == "who is [a]"


def test_tokens_tell_a_mention_from_the_others() -> None:
    assert tokens("Who's in [A b] AND [C]?", 0) == ["who", "'", "s", "in", "<entity>", "and", "<other>", "?"]
    assert tokens("Who's in [A b] AND [C]?", 1) == ["who", "'", "s", "in", "<other>", "and", "<entity>", "?"]


def test_grounding_finds_every_entity_of_a_name_and_counts_what_is_absent() -> None:
    world = Films(6)
    question = parse_question("who directed [Film 3]", answers=("Person 0", "Nobody"))
    grounded = Grounder(world.graph).ground(question)
    assert grounded.seeds == ((3,),)
    assert grounded.answers == tuple(world.graph.find_entity("Person 0"))
    assert grounded.absent == 1


def test_an_unknown_entity_is_named_with_near_names() -> None:
    question = parse_question("who directed [Film 33]", source="q.txt, line 7")
    with pytest.raises(ValueError, match=r"q.txt, line 7: .*'Film 33'.*Film 3"):
        Grounder(Films(6).graph).ground(question)
