"""Figures of speech recognition: error rates, and transcripts under their references with errors in colour."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics.speech_recognition import Record, aligned, tables, worst
from pipelines.plots.style import BLUE, INK, MUTED, ORANGE, ROWS, SMALL, TEAL, WIDTH, canvas, finish, headline, styled
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pairs = Sequence[tuple[str, str, str]]  # (equal | substitute | delete | insert, true, predicted)

COLOURS = {"equal": INK, "substitute": BLUE, "delete": ORANGE, "insert": TEAL}
LINE = 72  # characters per line
LONGEST = 40  # words of an utterance that are drawn


@styled
def alignment_figure(utterances: Sequence[tuple[str, Pairs]]) -> "Figure":
    """Utterances (name, aligned words) as pairs of lines: the reference above, the transcript below."""
    from matplotlib.patches import Patch

    laid = [(name, _lines(pairs[:LONGEST]), len(pairs) > LONGEST) for name, pairs in utterances]
    rows = sum(1.3 + 2.3 * len(lines) for _, lines, _ in laid)
    # only as wide as the longest line: a few short utterances do not take the width of the page
    across = max([24, *(column + max(len(a), len(b)) for _, of, _ in laid for line in of for column, _, a, b in line)])
    width = 0.087 * (across + 1)  # inches; a letter of this size is 0.084 wide
    figure = canvas(max(WIDTH, width + 0.2), 0.75 + 0.2 * rows)
    axes = figure.subplots()
    axes.axis("off")
    axes.set_xlim(0, max(WIDTH - 0.2, width) / 0.087)
    axes.set_ylim(rows, 0)
    at = 0.6
    for name, lines, cut in laid:
        axes.text(
            0,
            at,
            short(name, 80) + (f" (its first {LONGEST} words)" if cut else ""),
            fontsize=SMALL,
            color=MUTED,
            va="center",
        )
        at += 1.1
        for line in lines:
            for column, kind, true, predicted in line:
                for text, below in ((true, 0.0), (predicted, 1.0)):
                    axes.text(
                        column,
                        at + below,
                        text or "·" * len(true or predicted),
                        family="DejaVu Sans Mono",
                        fontsize=SMALL,
                        va="center",
                        color=COLOURS[kind] if text else MUTED,
                        fontweight="normal" if kind == "equal" else "bold",
                    )
            at += 2.3
        at += 0.2
    handles = [
        Patch(color=COLOURS[kind], label=label)
        for kind, label in (("substitute", "another word"), ("delete", "left out"), ("insert", "added"))
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0, borderaxespad=0.2)
    headline(figure, "Worst utterances: reference above, transcript below")
    wrong = sum(kind != "equal" for _, pairs in utterances for kind, _, _ in pairs)
    return finish(
        figure, f"The {len(utterances)} utterances with most errors, word by word: {wrong} words are wrong.", ROWS
    )


def _lines(pairs: Pairs) -> list[list[tuple[int, str, str, str]]]:
    """Words with their columns, in lines of at most LINE characters: (column, kind, true, predicted)."""
    lines: list[list[tuple[int, str, str, str]]] = [[]]
    column = 0
    for kind, true, predicted in pairs:
        true, predicted = short(true, LINE), short(predicted, LINE)
        size = max(len(true), len(predicted))
        if lines[-1] and column + size > LINE:
            lines.append([])
            column = 0
        lines[-1].append((column, kind, true, predicted))
        column += size + 1
    return lines


def figures(records: Sequence[Record], normaliser: str) -> "dict[str, Figure]":
    """Error rates by length and by speaker as bars, and the worst utterances, which stay in the run folder."""
    from pipelines.plots import classification, style

    drawn = {}
    for title, rows in tables(records, normaliser).items():
        if len(rows) < 2:
            continue  # a chart of one bar shows no difference
        label = next(iter(rows[0]))
        shown = rows[: classification.DRAWN_WHOLE]
        unit = " s" if label == "seconds" else ""
        names = [f"{row[label]}{unit} (n = {row['n']:,})" for row in shown]
        few = f": the {len(shown)} worst of {len(rows)}" if len(shown) < len(rows) else ""
        heading = f"Word error rate {title}{few}"
        highest = max([0.1, *[row["wer"] for row in shown]])
        drawn["wer_" + title.replace(" ", "_")] = style.bars_figure(
            names, [row["wer"] for row in shown], heading, highest
        )
    few_worst = worst(records, normaliser, 8)
    if few_worst:
        drawn["worst_utterances"] = alignment_figure([(r["id"], aligned(r, normaliser)) for r in few_worst])
    return drawn
