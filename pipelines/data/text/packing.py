"""Pack the tokens of many documents into full blocks without padding. Attention stays within each document."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

IGNORED = -100  # label of a token that is not a target, as in transformers


PART = 2 << 20  # characters that are read at once; a tokenizer keeps some hundred bytes for each token of a batch


def token_ids(words: Any, texts: Sequence[str]) -> list[np.ndarray]:
    """The tokens of each text, without special tokens, int32. `words` is the tokenizer."""
    found: list[np.ndarray] = []
    start = size = 0
    for place, text in enumerate(texts, 1):
        size += len(text)
        if size >= PART or place == len(texts):
            part = words(list(texts[start:place]), add_special_tokens=False)["input_ids"]
            found += [np.array(ids, dtype=np.int32) for ids in part]
            start, size = place, 0
    return found


def blocks(texts: Sequence[tuple[int, Sequence[int] | np.ndarray, bool]], size: int) -> Iterator[dict[str, Any]]:
    """Pack (row, its tokens, whether a document begins) into blocks of `size` tokens; the last may be shorter.

    A block holds `input_ids`; `labels`, the next token for each token; `starts`, the indices where documents begin; and
    `owners`, pairs [row, number of targets]. A document that does not fit continues in the next block. Each token is a
    target once, except the first of a document.
    """
    tokens = np.concatenate([np.asarray(ids, dtype=np.int32) for _, ids, _ in texts])
    owner = np.repeat([row for row, _, _ in texts], [len(ids) for _, ids, _ in texts])
    opens = np.zeros(len(tokens) + 1, dtype=bool)
    begins = np.cumsum([0, *(len(ids) for _, ids, _ in texts)])
    opens[[begin for begin, (_, ids, new) in zip(begins, texts, strict=False) if new and len(ids)]] = True
    opens[-1] = True
    labels = np.where(opens[1:], IGNORED, np.append(tokens[1:], IGNORED))
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        rows, counts = np.unique(owner[start + 1 : start + size + 1], return_counts=True)
        yield {
            "input_ids": tokens[part],
            "labels": labels[part],
            "starts": np.flatnonzero(opens[:-1][part]),
            "owners": np.stack([rows, counts], 1),
        }


def positions(starts: Sequence[int], length: int) -> np.ndarray:
    """The position of each token in its document, int64 [length], from 0.

    The model attends only within increasing positions.
    """
    place = np.arange(length)
    begins = np.zeros(length, dtype=np.int64)
    begins[list(starts)] = list(starts)
    return place - np.maximum.accumulate(begins)
