"""What the speech demos share: a transcript with times, and with the model's confidence in each word."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

Word = Mapping[str, Any]  # word; start and end in seconds; confidence from 0 to 1, or None if the model gives none

PAUSE = 0.7  # seconds of silence after which a new line begins, with its time
LINE = 12.0  # longest line in seconds
DOUBT = 0.9  # a word with a lower confidence is underlined, more strongly the lower it is


def written(words: Sequence[Word], seconds: float, done: bool = True) -> str:
    """HTML lines with their times. Pointing at a word shows its time and confidence; uncertain words are underlined."""
    if not words:
        text = "No speech was heard." if done else "Listening …"
        return f'<p style="color: var(--body-text-color-subdued)">{text}</p>'
    rows = []
    for line in lines(words):
        spans = " ".join(_span(word) for word in line)
        time = f'<span style="{_TIME}">{clock(line[0]["start"])}</span>'
        rows.append(
            '<div style="display: flex; gap: .8rem; margin: .2rem 0">'
            f'<div>{time}</div><div style="{_TEXT}">{spans}</div></div>'
        )
    more = "" if done else f'<p style="{_TIME}">heard up to {clock(words[-1]["end"])} of {clock(seconds)} …</p>'
    return "".join(rows) + more


_TIME = "color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; font-size: .85rem; line-height: 1.7"
_TEXT = "line-height: 1.7; overflow-wrap: anywhere"


def _span(word: Word) -> str:
    sure = word["confidence"]
    hint = f"{word['start']:.2f} to {word['end']:.2f} s" + ("" if sure is None else f", {sure:.0%} sure")
    doubt = 0.0 if sure is None else max(0.0, 1 - sure / DOUBT)
    style = f' style="border-bottom: 2px solid rgba(235, 125, 30, {0.35 + 0.65 * doubt:.2f})"' if doubt > 0 else ""
    return f'<span title="{hint}"{style}>{html.escape(word["word"])}</span>'


def lines(words: Sequence[Word]) -> list[list[Word]]:
    """Group words into lines, which end at pauses or after LINE seconds."""
    found: list[list[Word]] = []
    for word in words:
        if not found or word["start"] - found[-1][-1]["end"] >= PAUSE or word["end"] - found[-1][0]["start"] > LINE:
            found.append([])
        found[-1].append(word)
    return found


def clock(seconds: float) -> str:
    """75.2 -> 1:15."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def summary(words: Sequence[Word], seconds: float) -> str:
    """One line below a transcript."""
    if not words:
        return ""
    known = [word["confidence"] for word in words if word["confidence"] is not None]
    doubtful = sum(sure < DOUBT for sure in known)
    text = f"{len(words):,} word{'s' if len(words) != 1 else ''} in {seconds:.1f} seconds."
    return text + (f" {doubtful} underlined: less than {DOUBT:.0%} sure." if doubtful else "")
