"""The demo of text classification as a visitor meets it: an answer, the words that support it, and a pair of texts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.training.run import train
from tests.browser.conftest import serving
from tests.support import tiny_text
from tests.support.runs import without_pictures

pytestmark = pytest.mark.browser

SECONDS = 1000


def served(folder: Path, kind: str) -> Iterator[Any]:
    raw = {
        "task": "text-classification",
        "model": {"id": str(tiny_text.bert(folder / "bert", "BertForSequenceClassification", initializer_range=0.2))},
        "data": {"id": str(tiny_text.labelled(folder / "data", kind)), "workers": 0},
        "options": {"max_length": 40},
        "train": {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
    }
    with without_pictures():
        assert train(validate(raw), folder / "tiny_texts")
    (folder / "demo").mkdir()
    with serving(folder / "tiny_texts", folder / "demo") as found:
        yield found


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from served(tmp_path_factory.mktemp("texts"), "class")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from served(tmp_path_factory.mktemp("pairs"), "pair")


def test_the_answer_and_the_words_that_spoke_for_it(texts: Any, visit: Any) -> None:
    page = visit(texts.url)
    text = "The song was made by Ada in Rome in the year 1843. " * 4
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Classify").click()
    expected = load(texts.run, device="cpu").infer(text)
    page.locator(".graft-bars h2").wait_for(timeout=20 * SECONDS)
    assert page.locator(".graft-bars h2").inner_text() == expected[0]["label"]
    notice = page.get_by_text("Too long to be read whole: the first ")
    notice.wait_for(timeout=20 * SECONDS)
    assert "of 203 characters were read." in notice.inner_text()
    page.get_by_role("button", name="What did it look at?").click()
    page.locator(".graft-passage span").first.wait_for(timeout=60 * SECONDS)
    assert page.locator(".graft-passage p").inner_text().strip() == text.strip()
    assert page.locator(".graft-passage span[style*='opacity']").count() == 1
    page.get_by_label("By gradients").check()
    page.get_by_role("button", name="What did it look at?").click()
    page.get_by_text("Green words raise “").wait_for(timeout=60 * SECONDS)
    assert page.locator(".graft-passage p").inner_text().strip() == text.strip()
    page.screenshot(path=str(texts.log.parent / "page.png"), full_page=True)
    assert not page.broken


def test_an_example_fills_the_field(texts: Any, visit: Any) -> None:
    page = visit(texts.url)
    row = json.loads((texts.run / "examples" / "examples.json").read_text())[0]
    page.get_by_text(row["text"]).first.click()
    page.wait_for_function(
        "text => [...document.querySelectorAll('textarea')].some(field => field.value == text)", arg=row["text"]
    )
    assert {url for url in page.asked if not url.startswith((texts.url, "data:", "blob:", "ws:"))} == set()


def test_a_model_of_pairs_asks_for_two(pairs: Any, visit: Any) -> None:
    page = visit(pairs.url)
    texts = ("The song was made by Ada in Rome.", "The letter was made by Ada in Oslo.")
    page.get_by_label("First text").fill(texts[0])
    page.get_by_role("button", name="Classify").click()
    notice = page.get_by_text("Two texts are needed.")
    notice.wait_for(timeout=20 * SECONDS)
    page.get_by_label("Second text").fill(texts[1])
    page.get_by_role("button", name="Classify").click()
    page.locator(".graft-bars h2").wait_for(timeout=20 * SECONDS)
    assert page.locator(".graft-bars h2").inner_text() == load(pairs.run, device="cpu").infer(*texts)[0]["label"]
