"""Tokens of many documents -> full blocks: nothing is computed on padding, and each token still sees its own document only."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

IGNORED = -100  # a label that is no target, as the library has it


def blocks(texts: Sequence[tuple[int, Sequence[int], bool]], size: int) -> Iterator[dict[str, Any]]:
    """(row, its tokens, whether a document begins here) -> blocks of `size` tokens, the last maybe shorter.

    Of each: `input_ids`; `labels`, the token that each is to foretell; `starts`, where documents begin; `owners` as [row, how
    many targets in turn]. A document that does not fit goes on in the next block. Each token is a target once, but for the
    first of a document.
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
    """Of each token in its document, from 0: the library keeps attention inside of a run of rising positions."""
    place = np.arange(length)
    begins = np.zeros(length, dtype=np.int64)
    begins[list(starts)] = list(starts)
    return place - np.maximum.accumulate(begins)
