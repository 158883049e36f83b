"""The templates of the pages that Graft writes: everything that they show is escaped."""

from functools import cache
from typing import Any

from pipelines.utils.formatting import (
    duration,
    epochs,
    interval,
    large,
    number,
    of_rows,
    readable_name,
    resampled,
    score,
    setting,
    short,
)

# filters of the templates of pages and cards, by the names of the functions
FILTERS = {
    one.__name__: one
    for one in (duration, epochs, interval, large, number, of_rows, readable_name, resampled, score, setting, short)
}


@cache
def templates() -> Any:
    """The Jinja environment of the templates in this folder. Each template is compiled once per process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("pipelines.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {**FILTERS, "in_a_sentence": in_a_sentence}
    return found


def in_a_sentence(name: str) -> str:
    """The name of a metric inside a sentence: word error rate, but F1 and FID."""
    words = readable_name(name)
    return words[:1].lower() + words[1:] if words[1:2].islower() else words
