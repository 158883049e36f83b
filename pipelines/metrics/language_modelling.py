"""Perplexity and bits per byte, from the negative log-likelihood of each row.

    scores([{"id": "a", "nll": 20.0, "tokens": 10, "bytes": 40}])  ->  {"perplexity": 7.39, "bits_per_byte": 0.72}

`nll` is the sum of -log p in nats over a row's `tokens`. Perplexity is per token, so only models with the same
tokenizer can be compared; bits per byte compare any models (Gao et al. 2020, arXiv:2101.00027, section 3.1).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.metrics.statistics import Proportion, Statistics, plain, total

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]

# The scores with their directions: of tokens; if rows have bytes; of masked tokens.
TOKENS, BYTES = {"perplexity": "min"}, {"bits_per_byte": "min"}
MASKED = {"accuracy": "max", "top_5_accuracy": "max"}

MOST_NATS = 700.0  # per token; a higher value would overflow the perplexity
LENGTHS = (16, 64, 256, 1024)  # upper ends of the groups of `by_length`, in tokens


def shares(nats: "Tensor", wanted: "Tensor", owners: Sequence[Sequence[Sequence[int]]]) -> list[list[list[Any]]]:
    """The negative log-likelihood of each row's targets in each block: lists of [row, nats, targets].

    `nats` [targets] are in the order of `wanted`, bool [blocks, length]. For each block, `owners` lists in order how
    many positions predict a target of which row: (row, positions).
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


def surest_wrong(logits: "Tensor", wanted: "Tensor", nats: "Tensor") -> "tuple[Tensor, Tensor]":
    """For each target [targets]: the probability of the likeliest token, 0 where it is the right one; and that token.

    `nats` is -log p of the targets, so the vocabulary needs no second softmax.
    """
    best, token = logits.max(-1)
    sure = (best - logits.gather(1, wanted[:, None])[:, 0] - nats).exp().clamp(max=1.0)
    return sure.masked_fill(token == wanted, 0.0), token


def with_surest_wrong(logits: "Tensor", wanted: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """-log p of every target in nats, and `surest_wrong`, all [targets]."""
    from torch.nn import functional as f

    nats = f.cross_entropy(logits, wanted, reduction="none")
    return nats, *surest_wrong(logits, wanted, nats)


def _surest(found: Sequence[Record | None]) -> dict[str, Any]:
    """{"surest": the wrong token of which the model was surest} of some windows; empty if there is none."""
    known = [one for one in found if one is not None]
    return {"surest": max(known, key=lambda one: float(one["sure"]))} if known else {}


def rows_of(records: Sequence[Record], rows: Any) -> list[dict[str, Any]]:
    """Records of blocks with the `parts` of `shares` -> one {"id", "nll", "tokens", "bytes"} per row.

    A row also has `surest`, the wrong token of which the model was surest, if it is the surest one of its block.
    """
    parts: dict[int, list[Sequence[Any]]] = {}
    wrong: dict[int, list[Record | None]] = {}
    for record in records:
        for row, *cost in record["parts"]:
            parts.setdefault(row, []).append(cost)
        if record.get("surest") is not None:
            wrong.setdefault(record["surest"]["row"], []).append(record["surest"])
    found = []
    for row, costs in sorted(parts.items()):
        nats, tokens = math.fsum(nats for nats, _ in costs), sum(tokens for _, tokens in costs)
        size = len(rows[row]["text"].encode())
        found.append(
            {"id": rows[row]["id"], "nll": nats, "tokens": tokens, "bytes": size, **_surest(wrong.get(row, []))}
        )
    return found


def statistics(records: Sequence[Record]) -> Statistics:
    """The columns nll and tokens, and those of bytes, top_1 and top_5 (masked tokens found) that the records have.

    Raises DataError if there are no records.
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

    Also bits_per_byte if rows have `bytes`, and for masked tokens accuracy and top_5_accuracy: the shares of tokens
    that are the model's best guess, or among its best five.
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
    """Records of windows with counts of masked tokens -> one record per row with the counts summed."""
    windows: dict[int, list[Record]] = {}
    for record in records:
        windows.setdefault(record["row"], []).append(record)
    return [
        {"id": rows[row]["id"], "nll": math.fsum(r["nll"] for r in found)}
        | {k: sum(r[k] for r in found) for k in ("tokens", "top_1", "top_5")}
        | _surest([r.get("surest") for r in found])
        for row, found in sorted(windows.items())
    ]


def by_length(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Perplexity of rows grouped by their number of tokens: rows {"tokens", "n", "perplexity"}."""
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
