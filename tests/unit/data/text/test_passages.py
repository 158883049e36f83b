"""Answers as JSON, SQuAD and pandas write them, and what is refused."""

from typing import Any

import pytest

from pipelines.data.text.passages import answer_texts, answered
from pipelines.errors import DataError

CONTEXT = "The mill of 1842 was run by Mara until the flood. [sic]"


@pytest.mark.parametrize(
    ("cells", "text", "start"),
    [
        ({"answer": "Mara", "answer_start": 28.0}, "Mara", 28),
        ({"answer": "Mara", "answer_start": "28.0"}, "Mara", 28),
        ({"answer": 1842}, "1842", 12),
        ({"answer": "['Mara']", "answer_start": "[28]"}, "Mara", 28),
        ({"answer": '["Mara"]', "answer_start": "[28.0]"}, "Mara", 28),
        ({"answer": "{'text': ['Mara'], 'answer_start': [28]}"}, "Mara", 28),
        (
            {"answer": "{'text': array(['Mara'], dtype=object), 'answer_start': array([28], dtype=int32)}"},
            "Mara",
            28,
        ),
        ({"answer": "{'text': array(['Mara'],\n      dtype='<U4'), 'answer_start': array([28])}"}, "Mara", 28),
        ({"answer": "[sic]"}, "[sic]", 50),  # it stands in the passage, so it is no list
    ],
)
def test_one_answer_in_many_forms(cells: dict[str, Any], text: str, start: int) -> None:
    row = answered({"id": "a", "question": "Who?", "context": CONTEXT, **cells}, False)
    assert row["answer"] == {"text": [text], "answer_start": [start]}


@pytest.mark.parametrize("answer", ["[]", "{'text': [], 'answer_start': []}", None, "", []])
def test_no_answer(answer: Any) -> None:
    row = {"id": "a", "question": "Who?", "context": CONTEXT, "answer": answer}
    assert answered(row, True)["answer"] == {"text": [], "answer_start": []}
    with pytest.raises(DataError, match="the question has no answer"):
        answered(row, False)


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"question": float("nan")}, "question is empty"),
        ({"question": 7}, "question is no text but int"),
        ({"question": ["Who?"]}, "question is no text but list"),
        ({"context": "\ud800"}, "context holds '.ud800', half of a character"),
        ({"answer": "{'text': 'Mara'"}, "does not stand in its context"),
        ({"answer": "Mara", "answer_start": "[28"}, "answer_start is no number"),
        ({"answer": "Mara", "answer_start": True}, "answer_start is no number"),
    ],
)
def test_odd_cells_say_what_is_wrong(cells: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        answered({"id": "a", "question": "Who?", "context": CONTEXT, "answer": "Mara", **cells}, False)


def test_answers_that_are_generated() -> None:
    assert answer_texts(True) == ["True"]
    for text in ('{"city": "Paris"}', '{"text": "c0", "lang": "en"}', '{"text": "c0"}', "[]", "{}", "null"):
        assert answer_texts(text) == [text], "it may be the answer itself"
    assert answer_texts("['a', 'b']") == ["['a', 'b']"], "it may be the answer itself"
    assert answer_texts("{'text': ['a', 'b'], 'answer_start': [1, 2]}") == ["a", "b"]
    with pytest.raises(DataError, match="answer holds NUL bytes"):
        answer_texts("a\0b")
    with pytest.raises(DataError, match=r"answer holds '.ud800', half of a character"):
        answer_texts(["\ud800"])
