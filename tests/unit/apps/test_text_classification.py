"""The words that the demo of text classification colours, and its text. tests/browser tests it as a visitor."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import DataError
from tests.support.pages import gradio_page

__all__ = ["gradio_page"]

pytestmark = pytest.mark.usefixtures("gradio_page")

WORDS = {"awful": -4.0, "dull": -1.0, "good": 3.0}


def stand_in(number: int = 1, regression: bool = False, **weights: float) -> Any:
    """A Loaded whose answer is a sum over words. It reads 200 characters of each text."""
    from math import exp

    weights = weights or WORDS

    def infer(*texts: str, top_k: int = 5) -> Any:
        assert all(text.strip() for text in texts)
        value = sum(weights.get(word.strip(".,").lower(), 0.0) for text in texts for word in text.split())
        if regression:
            return {"value": value}
        found = [
            {"label": "liked", "score": 1 / (1 + exp(-value))},
            {"label": "disliked", "score": 1 / (1 + exp(value))},
        ]
        return sorted(found, key=lambda one: -one["score"])[:top_k]

    options = SimpleNamespace(multi_label=False, regression=regression)
    labels = [] if regression else ["liked", "disliked"]
    inputs = ("text", "text_pair")[:number]
    task = SimpleNamespace(
        labels=labels,
        options=options,
        data=SimpleNamespace(labels=labels, input_columns=inputs),
        read=lambda *t: [min(200, len(x)) for x in t],
    )
    return SimpleNamespace(task=task, infer=infer, folder=Path(), run=None, results=None, source="me/films")


def colours(page: str) -> dict[str, tuple[str, float]]:
    """Word -> (for or against, how much)."""
    found = re.findall(r'<span style="background: rgba\((\d+), \d+, \d+, ([\d.]+)\)[^>]*>([^<]*)</span>', page)
    return {word: ("for" if red == "20" else "against", float(alpha)) for red, alpha, word in found}


def test_words_are_coloured_by_what_they_speak_for() -> None:
    from pipelines.apps.text_classification import look

    page, caption = look(stand_in(), ("An awful, dull film with good music.",))
    assert colours(page) == {"awful,": ("for", 0.65), "dull": ("for", 0.16), "good": ("against", 0.49)}
    assert re.sub("<[^>]+>", "", page) == "An awful, dull film with good music."
    assert caption == "Without “awful,” “disliked” goes from 88 % to 12 %. Green words raise it, orange words lower it."


def test_a_pair_and_a_number() -> None:
    from pipelines.apps.text_classification import look

    page, caption = look(stand_in(2, regression=True), ("A good start.", "An awful <end>."))
    assert colours(page) == {"good": ("for", 0.49), "awful": ("against", 0.65)}
    assert page.count("<p>") == 2
    assert "&lt;end&gt;" in page
    assert caption == "Without “awful” the number goes from -1 to 3. Green words raise it, orange words lower it."


def test_when_no_word_decides_it_says_so() -> None:
    from pipelines.apps.text_classification import look

    page, caption = look(stand_in(), ("A film with music.",))
    assert colours(page) == {}
    assert caption == "No single word decides: whichever is taken out, the answer stays at 50 %."
    assert look(stand_in(), ("good",))[1] == "There is one word only: nothing to compare it with."


def test_long_texts_are_hidden_in_few_parts_and_the_rest_is_pale() -> None:
    from pipelines.apps.text_classification import cut_note, look
    from pipelines.models.occlusion import REGIONS, regions

    text = "good " * 300
    places = regions((text,), [len(text)])
    assert 50 < len(places) <= REGIONS
    assert "".join(text[p.start : p.end] for p in places).replace(" ", "") == text.replace(" ", "")
    page, _ = look(stand_in(good=0.01, dull=0.0), (text,))
    assert re.sub("<[^>]+>", "", page) == text
    assert page.count("opacity: .45") == 1
    assert cut_note([200], (text,)) == "Too long to be read whole: the first 200 of 1,499 characters were read."
    assert cut_note([4], ("good",)) == ""


def test_words_of_scripts_without_spaces() -> None:
    from pipelines.models.occlusion import regions

    text = "映画はgood です"
    assert [text[p.start : p.end] for p in regions((text,), [len(text)])] == ["映", "画", "は", "good", "で", "す"]


def test_what_is_refused() -> None:
    from pipelines.apps.text_classification import LONGEST, check

    for texts, words in (
        ((" ",), "A text is needed"),
        (("a", ""), "Two texts are needed"),
        (("a" * (LONGEST + 1),), "at most 20,000"),
    ):
        with pytest.raises(DataError, match=words):
            check(texts)
