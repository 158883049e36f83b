"""Perplexity and bits per byte, from what each row's tokens cost.

    scores([{"id": "a", "nll": 20.0, "tokens": 10, "bytes": 40}])  ->  {"perplexity": 7.39, "bits_per_byte": 0.72}

`nll` is the sum of -log p in nats over a row's `tokens`. Perplexity is per token, so it compares models of one tokenizer only;
bits per byte compare any (Gao et al. 2020, arXiv:2101.00027, section 3.1).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.metrics.statistics import Proportion, Statistics, plain, total

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]

MOST_NATS = 700.0  # per token, from where on a perplexity would overflow
LENGTHS = (16, 64, 256, 1024)  # tokens, at which the groups of `by_length` end


def shares(nats: "Tensor", wanted: "Tensor", owners: Sequence[Sequence[Sequence[int]]]) -> list[list[list[Any]]]:
    """What each row's targets cost in each block: [row, nats, targets].

    `nats` [targets] are in the order of `wanted`, bool [blocks, length]; `owners` say of each block, in turn, how many places
    stand for a target of which row.
    """
    import torch

    spread = torch.zeros(wanted.shape, dtype=torch.float64)
    spread[wanted] = nats.double()
    found = []
    for line, places, runs in zip(spread, wanted, owners, strict=True):
        at, parts = 0, []
        for row, size in runs:
            count = int(places[at : at + size].sum())
            if count:
                parts.append([row, float(line[at : at + size].sum()), count])
            at += size
        found.append(parts)
    return found


def rows_of(records: Sequence[Record], rows: Any) -> list[dict[str, Any]]:
    """Records of blocks, with the `parts` that `shares` gives -> {"id", "nll", "tokens", "bytes"} of each row."""
    parts: dict[int, list[Sequence[Any]]] = {}
    for record in records:
        for row, *cost in record["parts"]:
            parts.setdefault(row, []).append(cost)
    found = []
    for row, costs in sorted(parts.items()):
        nats, tokens = math.fsum(nats for nats, _ in costs), sum(tokens for _, tokens in costs)
        found.append({"id": rows[row]["id"], "nll": nats, "tokens": tokens, "bytes": len(rows[row]["text"].encode())})
    return found


def statistics(records: Sequence[Record]) -> Statistics:
    """The columns nll and tokens, and what else the records have: bytes; top_1 and top_5 (masked tokens found).

    Raises DataError for no records.
    """
    names = [name for name in ("nll", "tokens", "bytes", "top_1", "top_5") if records and name in records[0]]
    proportions = (
        {"accuracy": Proportion("top_1", "tokens"), "top_5_accuracy": Proportion("top_5", "tokens")}
        if "top_1" in names
        else {}
    )
    return Statistics(
        [record["id"] for record in records],
        {name: [record[name] for record in records] for name in names},
        proportions,
    )


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """perplexity per token, lower is better; `weights` [rows], or [draws, rows] for arrays [draws].

    Where rows have `bytes` also bits_per_byte. Where tokens were masked also accuracy and top_5_accuracy, the shares found by the
    likeliest and the likeliest five.
    """
    nats, tokens = total(weights, statistics["nll"]), np.maximum(total(weights, statistics["tokens"]), 1)
    found = {"perplexity": np.exp(np.minimum(nats / tokens, MOST_NATS))}
    if "bytes" in statistics:
        found["bits_per_byte"] = nats / math.log(2) / np.maximum(total(weights, statistics["bytes"]), 1)
    for name, part in (("accuracy", "top_1"), ("top_5_accuracy", "top_5")):
        if part in statistics:
            found[name] = total(weights, statistics[part]) / tokens
    return plain(found)


def scores(records: Sequence[Record]) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records)
    return summarize(found, found.ones())


def masked_rows(records: Sequence[Record], rows: Any) -> list[dict[str, Any]]:
    """Records of windows, with counts of masked tokens -> one of each row, the counts added."""
    windows: dict[int, list[Record]] = {}
    for record in records:
        windows.setdefault(record["row"], []).append(record)
    return [
        {"id": rows[row]["id"], "nll": math.fsum(r["nll"] for r in found)}
        | {k: sum(r[k] for r in found) for k in ("tokens", "top_1", "top_5")}
        for row, found in sorted(windows.items())
    ]


def by_length(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows grouped by their number of tokens: tokens, n, perplexity."""
    groups: dict[str, list[Record]] = {}
    bounds = [1, *(end + 1 for end in LENGTHS)]
    names = [f"{low} to {high}" for low, high in zip(bounds, LENGTHS, strict=False)] + [f"{bounds[-1]:,} and more"]
    for record in records:
        groups.setdefault(names[sum(record["tokens"] > end for end in LENGTHS)], []).append(record)
    return [
        {"tokens": name, "n": len(group), "perplexity": scores(group)["perplexity"]}
        for name in names
        if (group := groups.get(name))
    ]
