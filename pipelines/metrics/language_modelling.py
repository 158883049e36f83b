"""Perplexity and bits per byte, from what each row's tokens cost.

    scores([{"id": "a", "nll": 20.0, "tokens": 10, "bytes": 40}])  ->  {"perplexity": 7.39, "bits_per_byte": 0.72}

`nll` is the sum of -log p in nats over a row's `tokens`. Perplexity is per token, so it compares models of one tokenizer only;
bits per byte compare any (Gao et al. 2020, arXiv:2101.00027, section 3.1).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]

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


def scores(records: Sequence[Record]) -> dict[str, float]:
    """perplexity per token, lower is better; where records have `bytes` also bits_per_byte. Raises DataError for no records."""
    if not records:
        raise DataError("there are no predictions to score")
    nats, tokens = math.fsum(r["nll"] for r in records), sum(r["tokens"] for r in records)
    found = {"perplexity": perplexity(nats, tokens)}
    if "bytes" in records[0]:
        found["bits_per_byte"] = nats / math.log(2) / max(sum(r["bytes"] for r in records), 1)
    return found


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


def masked_scores(records: Sequence[Record]) -> dict[str, float]:
    """perplexity of the masked tokens; accuracy and top_5_accuracy, the shares found by the likeliest and the likeliest five."""
    found, tokens = scores(records), max(sum(r["tokens"] for r in records), 1)
    return {**found, **{name: sum(r[k] for r in records) / tokens for name, k in (("accuracy", "top_1"), ("top_5_accuracy", "top_5"))}}


def perplexity(nats: float, tokens: int) -> float:
    return math.exp(min(nats / max(tokens, 1), 700.0))


def by_length(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows grouped by their number of tokens: tokens, n, perplexity."""
    groups: dict[str, list[Record]] = {}
    bounds = [1, *(end + 1 for end in LENGTHS)]
    names = [f"{low} to {high}" for low, high in zip(bounds, LENGTHS, strict=False)] + [f"{bounds[-1]:,} and more"]
    for record in records:
        groups.setdefault(names[sum(record["tokens"] > end for end in LENGTHS)], []).append(record)
    return [
        {"tokens": name, "n": len(group), "perplexity": scores([{**r, "bytes": 1} for r in group])["perplexity"]}
        for name in names
        if (group := groups.get(name))
    ]
