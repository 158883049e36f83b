"""Answers of a finished model to many inputs, in batches.

    for request, output in answered(loaded, requests):

The answers come in the order of the requests, and only a window of them is in memory. An answer does not depend on the
other inputs of its batch: it is the one of `infer`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pipelines.data.encoding import TOKENS
from pipelines.errors import DataError, RunError
from pipelines.inference.loading import Loaded
from pipelines.task import Example
from pipelines.utils.hardware import out_of_memory

Tag = TypeVar("Tag")

FIRST = 8  # requests of the first window, so that the first answers come soon
WINDOW = 64  # requests that are read before any of them is answered
SORTED = 4  # as many times more texts, which take little memory: batches then hold texts of similar length
RECORDINGS = 8  # read at a time, because they may be hours long
INPUT = 5e6  # bytes of a batch's input on a CPU, where it then stays in the caches: 8 photos of 224 pixels


class Request(NamedTuple, Generic[Tag]):
    """One input: a name for messages, the arguments of `infer`, and what the caller wants to know it by."""

    name: str
    asked: Mapping[str, Any] | DataError
    tag: Tag


def answered(
    loaded: Loaded,
    requests: Iterable[Request[Tag]],
    size: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Request[Tag], Any]]:
    """Each request with its answer, or with the DataError that says why there is none.

    `size` is the most that are answered at a time. Texts and recordings are also limited by their length. If memory
    runs out, batches are halved and `say` tells it. Raises RunError if it does not suffice for one input.
    """
    answers = _Batches(loaded, size, say)
    waiting = iter(requests)
    most = max(WINDOW, size or 0) * (1 if loaded.task.data.files else SORTED)
    for count in itertools.chain([FIRST], itertools.repeat(most)):
        window = list(itertools.islice(waiting, count))
        if not window:
            return
        yield from zip(window, answers.of(window), strict=True)


class _Batches:
    """Answers windows of requests. A batch that was too large for the memory makes later ones smaller."""

    def __init__(self, loaded: Loaded, size: int | None, say: Callable[[str], None]) -> None:
        self.loaded, self.size, self.say = loaded, size, say
        self.device = next(loaded.model.parameters()).device
        self.budget = TOKENS.of(self.device.type, training=True)  # the fastest, not the largest

    def of(self, window: Sequence[Request[Any]]) -> list[Any]:
        found: list[Any] = [request.asked for request in window]
        wanted = [place for place, asked in enumerate(found) if not isinstance(asked, DataError)]
        examples: list[tuple[int, Example]] = []
        at_once = RECORDINGS if "audio" in self.loaded.task.data.files else len(window)
        for start in range(0, len(wanted), at_once):
            places = wanted[start : start + at_once]
            for place, example in zip(places, self.loaded.task.prepare([found[p] for p in places]), strict=True):
                if isinstance(example, DataError):
                    found[place] = example
                else:
                    examples.append((place, example))
        batches = [batch for alike in _alike(examples) for batch in self._cut(alike)]
        while batches:
            batch = batches.pop(0)
            answers = self._answers(batch, window)
            if answers is None:  # too large
                batches = [part for one in (batch, *batches) for part in self._cut(one)]
            else:
                found = self._put(found, batch, answers)
        return found

    def _put(self, found: list[Any], batch: list[tuple[int, Example]], answers: list[Any]) -> list[Any]:
        for (place, _), answer in zip(batch, answers, strict=True):
            found[place] = answer
        return found

    def _answers(self, batch: list[tuple[int, Example]], window: Sequence[Request[Any]]) -> list[Any] | None:
        """The answers to a batch; None if there is not enough memory for it. Raises RunError for a single input."""
        from accelerate.utils.memory import clear_device_cache

        try:
            return self.loaded.task.answer(self.loaded.model, [example for _, example in batch])
        except DataError as error:
            if len(batch) == 1:
                return [error]
            return [answer for one in batch for answer in self._answers([one], window) or []]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                name = window[batch[0][0]].name
                raise RunError(
                    f"{name}: out of memory with this input alone: give a smaller or shorter one, or --device cpu"
                ) from None
            self.size = len(batch) // 2
        clear_device_cache(garbage_collection=True)  # not earlier: the error held the activations
        self.say(f"out of memory: going on with {self.size} at a time (the answers are the same)")
        return None

    def _cut(self, alike: list[tuple[int, Example]]) -> list[list[tuple[int, Example]]]:
        """Batches of at most `size` examples; if they have lengths, padded to the longest within the budget."""
        first = alike[0][1]
        size = self.size or self._usual(first)
        if "length" in first:
            alike = sorted(alike, key=lambda one: -one[1]["length"])
        batches: list[list[tuple[int, Example]]] = []
        for one in alike:
            longest = batches[-1][0][1].get("length", 0) if batches else 0
            if not batches or len(batches[-1]) == size or (len(batches[-1]) + 1) * longest > self.budget:
                batches.append([])
            batches[-1].append(one)
        return batches

    def _usual(self, example: Example) -> int:
        """The most examples of a batch, if none is asked for."""
        import torch

        if "length" in example or self.device.type != "cpu":
            return WINDOW
        taken = sum(value.nbytes for value in example.values() if isinstance(value, torch.Tensor))
        taken = int(example.get("bytes", taken))
        return max(1, min(WINDOW, round(INPUT / max(1, taken))))


def _alike(examples: list[tuple[int, Example]]) -> list[list[tuple[int, Example]]]:
    """The examples in groups with an equal value `like`."""
    groups: dict[str, list[tuple[int, Example]]] = {}
    for one in examples:
        groups.setdefault(repr(one[1].get("like")), []).append(one)
    return list(groups.values())
