"""The demo of question answering as a visitor meets it."""

import json
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("answering")
    raw = {
        "task": "question-answering",
        "model": {"id": str(tiny_text.bert(folder / "bert"))},
        "data": {"id": str(tiny_text.squad(folder / "squad", n=4)), "workers": 0},
        "options": {"max_length": 48, "stride": 8, "max_question_length": 12},
        "train": {"max_steps": 5, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"},
    }
    with without_pictures():
        assert train(validate(raw), folder / "tiny_questions")
    (folder / "demo").mkdir()
    with serving(folder / "tiny_questions", folder / "demo") as served:
        yield served


def test_the_answer_is_marked_where_it_stands(answering: Any, visit: Any) -> None:
    page = visit(answering.url)
    question, passage = "Who made the song?", "The song was made by Ada in Rome in the year 1843. " * 4
    page.get_by_label("Passage").fill(passage)
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Answer").click()
    expected = load(answering.run, device="cpu").infer(question, passage)
    page.locator(".graft-answer strong").wait_for(timeout=20 * SECONDS)
    assert page.locator(".graft-answer strong").inner_text() == expected["answer"]
    assert (
        page.locator(".graft-answer p").inner_text().startswith(question)
    )  # when a field is changed, the old answer is no longer shown as its answer
    assert page.locator(".graft-passage mark").inner_text() == expected["answer"]
    assert page.locator(".graft-passage p").inner_text() == passage.strip()
    assert expected["nbest"][1]["text"] in page.locator(".graft-bars").first.inner_text()
    assert not page.broken


def test_an_example_fills_both_fields(answering: Any, visit: Any) -> None:
    page = visit(answering.url)
    row = json.loads((answering.run / "examples" / "examples.json").read_text())[0]
    page.get_by_text(row["question"]).first.click()
    page.wait_for_function(
        "text => [...document.querySelectorAll('textarea')].some(field => field.value == text)", arg=row["question"]
    )
    page.get_by_role("button", name="Answer").click()
    page.locator(".graft-answer p").wait_for(timeout=20 * SECONDS)
    page.screenshot(path=str(answering.log.parent / "page.png"), full_page=True)
    assert {url for url in page.asked if not url.startswith((answering.url, "data:", "blob:", "ws:"))} == set()


def test_without_a_question_it_says_what_is_missing(answering: Any, visit: Any) -> None:
    page = visit(answering.url)
    page.get_by_role("button", name="Answer").click()
    notice = page.get_by_text("A passage and a question are needed.")
    notice.wait_for(timeout=20 * SECONDS)
    assert notice.count() == 1
    assert not page.locator("mark").count()
