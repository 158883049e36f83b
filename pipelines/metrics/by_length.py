"""How a score depends on the length of a text, from prediction records: {"tokens": 57, ...}.

table(records, lambda r: float(r["true"] == r["predicted"]), "accuracy", 256)  ->  [{"tokens": "up to 16", "n": 12, "accuracy": 0.9}, ...]
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.figures import BLUE, ORANGE, PAPER, bars_figure, canvas, finish, styled
from pipelines.wording import spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]


def table(records: Sequence[Record], value: Callable[[Record], float], name: str, most: int) -> list[dict[str, Any]]:
    """The mean of `value` over records of like length, and how many they are. Texts of more than `most` tokens were cut: the last row."""
    ends = [0, *[end for end in (2**k for k in range(4, 40)) if end < most], most]
    groups: dict[str, list[float]] = {}
    for low, high in pairwise(ends):
        inside = [value(r) for r in records if low < r["tokens"] <= high]
        groups[f"{low + 1} to {high}" if low else f"up to {high}"] = inside
    groups[f"more than {most}"] = [value(r) for r in records if r["tokens"] > most]
    return [{"tokens": key, "n": len(inside), name: float(np.sort(inside).mean())} for key, inside in groups.items() if inside]


def figures(records: Sequence[Record], value: Callable[[Record], float], name: str, most: int) -> "dict[str, Figure]":
    """The table as bars, and how long the texts are."""
    rows = table(records, value, name, most)
    names, values = [f"{row['tokens']} (n = {row['n']:,})" for row in rows], [row[name] for row in rows]
    highest = max([1.0 if name.endswith("accuracy") else 0.0, *values]) or 1.0
    bars = bars_figure(names, values, f"{spoken(name)} by text length in tokens", highest)
    return {f"{name}_by_text_length": bars, "text_lengths": histogram([r["tokens"] for r in records], most)}


@styled
def histogram(sizes: Sequence[int], most: int | None = None) -> "Figure":
    """How many texts there are of each length, and where those of more than `most` tokens were cut."""
    tokens = np.asarray(sizes)
    figure = canvas(6.2, 3.2)
    axes = figure.subplots()
    axes.hist(tokens, bins=min(30, max(1, int(tokens.max() - tokens.min()))), color=BLUE, edgecolor=PAPER, linewidth=0.6)
    cut = 0 if most is None else int((tokens > most).sum())
    if most is not None and cut:
        axes.axvline(most, color=ORANGE, linestyle="--", linewidth=1.4, label=f"cut here ({cut:,} rows)")
        axes.legend(loc="upper right")
    axes.set_xlabel("tokens")
    axes.set_ylabel("rows")
    axes.grid(False, axis="x")
    axes.set_title("How long the texts are")
    middle = f"{int(tokens.min())} to {int(tokens.max())} tokens, median {int(np.median(tokens))}"
    told = "" if most is None else f"; {cut} are longer than {most} tokens and were cut"
    return finish(figure, f"Histogram of the length of {len(tokens)} texts: {middle}{told}.")
