"""The demos of text generation and fill-mask as a visitor meets them."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.training.run import train
from tests.browser.conftest import serving
from tests.support.runs import without_pictures

pytestmark = pytest.mark.browser

SECONDS = 1000


def served(folder: Path, task: str, contract: str = "TestContract") -> Any:
    """The demo of the task's contract recipe, trained for a few steps."""
    kind = getattr(importlib.import_module(f"tests.tasks.test_{task}"), contract)
    raw = kind().recipe(folder)
    raw["train"] = {**{k: v for k, v in raw["train"].items() if k != "epochs"}, "max_steps": 4}
    with without_pictures():
        assert train(validate(raw), folder / f"tiny_{task}")
    (folder / "demo").mkdir()
    return serving(folder / f"tiny_{task}", folder / "demo")


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("writing"), "text_generation") as found:
        yield found


def test_a_text_goes_on_as_infer_says(writing: Any, visit: Any) -> None:
    page = visit(writing.url)
    text = "The song was made by"
    page.get_by_label("Text").first.fill(text)
    page.get_by_role("button", name="Write").click()
    wanted = text + load(writing.run, device="cpu").infer(text)
    page.wait_for_function(
        "text => [...document.querySelectorAll('.graft-output textarea')].some(field => field.value == text)",
        arg=wanted,
    )
    page.screenshot(path=str(writing.log.parent / "page.png"), full_page=True)
    assert not page.broken
    assert {url for url in page.asked if not url.startswith((writing.url, "data:", "blob:", "ws:"))} == set()


def test_what_is_missing_is_said(writing: Any, visit: Any) -> None:
    page = visit(writing.url)
    page.get_by_role("button", name="Write").click()
    notice = page.get_by_text("text is empty")
    notice.wait_for(timeout=20 * SECONDS)
    assert notice.count() == 1


def test_an_answer_to_a_prompt(tmp_path: Path, visit: Any) -> None:
    with served(tmp_path, "text_generation", "TestAnswers") as answering:
        page = visit(answering.url)
        row = json.loads((answering.run / "examples" / "examples.json").read_text())[0]
        page.get_by_label("Context").fill(row["context"])
        page.get_by_label("Question").fill(row["question"])
        page.get_by_role("button", name="Write").click()
        wanted = load(answering.run, device="cpu").infer(row["context"], row["question"])
        page.wait_for_function(
            "text => [...document.querySelectorAll('.graft-output textarea')].some(f => f.value == text)", arg=wanted
        )
        assert not page.broken


def test_a_chat_goes_on_with_all_that_came_before(tmp_path: Path, visit: Any) -> None:
    with served(tmp_path, "text_generation", "TestChats") as chatting:
        page = visit(chatting.url)
        loaded, talk = load(chatting.run, device="cpu"), []
        for number, text in enumerate(("What is red?", "And green?"), 1):
            field = page.get_by_label("Message", exact=True)  # buttons are called "copy message"
            field.fill(text)
            if number == 1:
                field.press("Enter")
            else:
                page.get_by_role("button", name="Send").click()
            talk.append({"role": "user", "content": text})
            wanted = loaded.infer(talk)
            talk.append({"role": "assistant", "content": wanted})
            page.wait_for_function(
                "([text, all]) => { const found = [...document.querySelectorAll('.graft-output [data-testid=bot]')];"
                " return found.length == all && found.at(-1).textContent.trim() == text.trim(); }",
                arg=[wanted.replace("\r", "\n"), number],  # as a page holds the ends of lines
            )
        page.screenshot(path=str(chatting.log.parent / "page.png"), full_page=True)
        page.get_by_role("button", name="New chat").click()
        page.wait_for_function("!document.querySelector('.graft-output [data-testid=bot]')")
    assert not page.broken


def test_masks_are_filled(tmp_path: Path, visit: Any) -> None:
    with served(tmp_path, "fill_mask") as filling:
        page = visit(filling.url)
        text = "the [MASK] was made by [MASK]"
        page.get_by_label("Text").first.fill(text)
        page.get_by_role("button", name="Fill").click()
        first, second = load(filling.run, device="cpu").infer(text)
        wanted = f"the {first[0]['token']} was made by {second[0]['token']}"
        page.wait_for_function(
            "text => [...document.querySelectorAll('textarea')].some(field => field.value == text)", arg=wanted
        )
        bars = page.locator(".graft-bars").first.inner_text()
        page.screenshot(path=str(filling.log.parent / "page.png"), full_page=True)
    assert all(word["token"] in bars for word in first)
    assert not page.broken
