"""Answers in batches: the order, the sizes, an input that fails alone, and memory that does not suffice."""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, RunError
from pipelines.inference.batches import FIRST, WINDOW, Request, answered


class Doubling:
    """A task that doubles numbers, and notes its batches. `most` is the largest batch that the memory holds."""

    generation = None
    data = DataSpec(columns={"text": "text"}, input_columns=("text",))

    def __init__(self, most: int = 99, lengths: bool = False) -> None:
        self.most, self.lengths = most, lengths
        self.batches: list[list[int]] = []

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [
            DataError("odd")
            if one["n"] == 13
            else {"n": one["n"], "like": one.get("like"), **({"length": one["n"] * 100 + 1} if self.lengths else {})}
            for one in asked
        ]

    def answer(self, model: Any, examples: Sequence[Mapping[str, Any]]) -> list[Any]:
        if len(examples) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append([e["n"] for e in examples])
        if any(e["n"] == 17 for e in examples):
            raise DataError("late")
        return [2 * e["n"] for e in examples]


def ask(task: Any, count: int, size: int | None = None, **more: Any) -> tuple[list[Any], list[str]]:
    loaded: Any = SimpleNamespace(task=task, model=torch.nn.Linear(1, 1))
    said: list[str] = []
    requests = (Request(f"{n}", {"n": n, **more}, n) for n in range(count))
    return [(request.tag, answer) for request, answer in answered(loaded, requests, size, said.append)], said


def test_answers_come_in_order_and_bad_inputs_fail_alone() -> None:
    task = Doubling()
    found, _ = ask(task, 30, size=5)
    assert [n for n, _ in found] == list(range(30))
    assert {n: str(answer) for n, answer in found if isinstance(answer, DataError)} == {13: "odd", 17: "late"}
    assert all(answer == 2 * n for n, answer in found if n not in (13, 17))
    assert max(map(len, task.batches)) == 5


def test_a_batch_holds_similar_lengths_within_the_budget() -> None:
    task = Doubling(lengths=True)
    found, _ = ask(task, FIRST + WINDOW)
    assert [answer for n, answer in found if n not in (13, 17)] == [2 * n for n in range(72) if n not in (13, 17)]
    for batch in task.batches[1:]:
        assert len(batch) == 1 or len(batch) * (100 * max(batch) + 1) <= 1536
        assert batch == sorted(batch, reverse=True)
    assert max(map(len, task.batches)) > 1


def test_only_alike_examples_are_answered_together() -> None:
    class Alike(Doubling):
        def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Any]:
            return [{**one, "like": one["n"] % 3} for one in asked]

    task = Alike()
    assert len(ask(task, 12)[0]) == 12
    assert all(len({n % 3 for n in batch}) == 1 for batch in task.batches)


def test_memory_that_does_not_suffice_halves_the_batches() -> None:
    task = Doubling(most=3)
    found, said = ask(task, 12, size=8)
    assert [answer for _, answer in found] == [2 * n for n in range(12)]
    assert said == [f"out of memory: going on with {n} at a time (the answers are the same)" for n in (4, 2)], (
        "once for each size"
    )
    with pytest.raises(RunError, match="0: out of memory with this input alone"):
        ask(Doubling(most=0), 3)


def test_a_window_is_read_at_a_time() -> None:
    read: list[int] = []

    def requests() -> Iterator[Request[int]]:
        for n in range(10_000):
            read.append(n)
            yield Request(f"{n}", {"n": n}, n)

    loaded: Any = SimpleNamespace(task=Doubling(), model=torch.nn.Linear(1, 1))
    next(answered(loaded, requests()))
    assert len(read) == FIRST
