"""Layouts of conversations, brought into one form."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.text import chat
from pipelines.errors import DataError
from pipelines.tasks.text_generation import Options, TextGeneration

NEEDS = TextGeneration(Options(chat=True)).data


def said(*texts: str, system: str = "") -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    start = [{"role": "system", "content": system}] if system else []
    return [*start, *({"role": roles[n % 2], "content": text} for n, text in enumerate(texts))]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"messages": said("a", "b", system="s")}, said("a", "b", system="s")),
        ({"messages": [{"role": "developer", "content": "s"}, *said("a", "b")]}, said("a", "b", system="s")),
        ({"messages": json.dumps(said("a", "b"))}, said("a", "b")),
        ({"messages": str(said("a", "b"))}, said("a", "b")),  # as pandas writes it into a csv
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]}, said("a\nb")),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": 7}]}, said("a", "7")),
        ({"conversations": said("a", "b"), "system": "s"}, said("a", "b", system="s")),
        ({"prompt": "a", "completion": " b"}, said("a", " b")),
        ({"prompt": said("a"), "completion": said("", "b")[1:], "tools": None}, said("a", "b")),
        ({"instruction": "a", "input": "", "output": "b"}, said("a", "b")),
        ({"instruction": "a", "input": "c", "output": "b", "system": "s"}, said("a\n\nc", "b", system="s")),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, said("c", "d", "a", "b")),
        ({"instruction": "a"}, said("a")),
    ],
)
def test_every_layout_gives_the_same_form(row: dict[str, Any], wanted: list[dict[str, str]]) -> None:
    assert chat.conversation(row) == wanted


CALL = {"role": "assistant", "content": None, "tool_calls": [{}]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part of the type 'image_url'"),
        ({"messages": [CALL]}, "message 1 of messages calls a tool"),
        ({"messages": [{"role": "judge", "content": "a"}]}, "has the role 'judge'"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1 of messages is empty"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 0}]}, "has the weight 0"),
        ({"messages": ["a"]}, "message 1 of messages is str"),
        ({"messages": said("a", "b"), "tools": "[{}]"}, "descriptions of tools are not read"),
        ({"instruction": "", "input": " "}, "instruction is empty"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "NUL"),
    ],
)
def test_what_is_no_conversation_is_refused_in_words(row: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        chat.conversation(row)


def test_what_is_learned_and_what_is_asked() -> None:
    talk = said("a", "b", "c", system="s")
    assert chat.learned(talk) == talk[:3]
    assert chat.asked(talk) == talk
    assert chat.asked(talk[:3]) == talk[:2]
    assert chat.opening(talk) == "system: s\n\nuser: a"
    with pytest.raises(DataError, match="no answer to learn"):
        chat.learned(said("a"))
    with pytest.raises(DataError, match="an answer is empty"):
        chat.learned(said("a", " "))
    with pytest.raises(DataError, match="no message to answer"):
        chat.asked([{"role": "assistant", "content": "b"}])


ROWS = [said(f"a {number % 40}", f"b {number}") for number in range(60)]  # 20 openings are there twice


def test_files_of_every_kind_hold_the_same_conversations(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"messages": ROWS})
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_csv(tmp_path / "a.csv", index=False)
    pandas.DataFrame({"dialog": ROWS}).to_parquet(tmp_path / "b.parquet")
    pairs = pandas.DataFrame([[row[0]["content"], row[1]["content"]] for row in ROWS], columns=["prompt", "completion"])
    pairs.to_csv(tmp_path / "c.csv", index=False)
    found = []
    for name in ("a.jsonl", "a.json", "a.csv", "b.parquet", "c.csv"):
        columns = {"messages": "dialog"} if name == "b.parquet" else {}
        splits = load_splits(DataSection(id=str(tmp_path / name), columns=columns), NEEDS)
        rows = [row for split in ("train", "validation", "test") for row in splits[split]["messages"]]
        found.append(sorted(rows, key=lambda row: str(row[1]["content"])))
        openings = [set(splits[split]["opening"]) for split in ("train", "validation", "test")]
        assert sum(map(len, openings)) == 40, "an opening is in two splits"
    assert all(one == sorted(ROWS, key=lambda row: str(row[1]["content"])) for one in found)


def test_mixed_contents_lose_no_row_and_odd_rows_are_named(tmp_path: Path) -> None:
    mixed: list[dict[str, Any]] = [{"messages": row} for row in ROWS[:20]]
    mixed[3] = {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}, {**ROWS[0][1], "name": "x"}]}
    mixed[7] = {"messages": [{"role": "user", "content": "q"}]}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    splits = load_splits(DataSection(id=str(tmp_path / "a.jsonl")), NEEDS)
    assert sum(len(splits[split]) for split in ("train", "validation", "test")) == 19
    assert [why for _, why in splits.skipped["train"]] == [
        "a.jsonl:8: there is no answer to learn: no message of the role assistant after another message, no output, "
        "no completion"
    ]


def test_data_without_conversations_say_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    with pytest.raises(
        DataError, match=r"no column with conversations \(it has: text, label\): Graft reads `messages`"
    ):
        load_splits(DataSection(id=str(tmp_path / "a.csv")), NEEDS)


def test_a_group_of_conversations_stays_in_one_split(tmp_path: Path) -> None:
    rows = [{"messages": row, "who": number % 12} for number, row in enumerate(ROWS[:40])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_splits(DataSection(id=str(tmp_path / "a.jsonl"), group="who"), NEEDS)
    who = [set(splits[split]["who"]) for split in ("train", "validation", "test")]
    assert sum(map(len, who)) == 12


def test_a_greeting_opens_a_conversation(tmp_path: Path) -> None:
    """It answers nothing, so it is not learned, and it does not tell two conversations from each other."""
    greeting = {"role": "assistant", "content": "Hello!"}
    assert chat.answers([greeting, *said("a", "b")]) == [2]
    assert chat.answers([*said(system="s"), greeting]) == [1]
    assert chat.opening([*said(system="s"), greeting, *said("a", "b")]) == "system: s\n\nassistant: Hello!\n\nuser: a"
    rows = [{"messages": [*said(system="s"), greeting, *said(f"a {n}", f"b {n}")]} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_splits(DataSection(id=str(tmp_path / "a.jsonl")), NEEDS)
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [16, 2, 2]
