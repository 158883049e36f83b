"""The documentation site: it builds without warnings, opens from a disk, and makes no request to another host."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.doc_blocks import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that `make docs` builds, in a folder of its own."""
    folder = tmp_path_factory.mktemp("documentation") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_no_page_names_a_file_of_another_host(site: Path) -> None:
    built = sorted(site.rglob("*.html"))
    assert len(built) > 25
    asks = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^"'> ]+""")
    assert [hit for page in built for hit in asks.findall(page.read_text())] == []
    outside = re.compile(r"""url\(["']?(?:https?:)?//|@import""")
    assert [str(css) for css in site.rglob("*.css") if outside.search(css.read_text())] == []


def test_every_generated_part_is_filled_in(site: Path) -> None:
    pages = {page.relative_to(site).as_posix(): page.read_text() for page in site.rglob("*.html")}
    assert [name for name, text in pages.items() if "<!-- generated:" in text] == []
    assert "max_train_rows" in pages["recipe_reference.html"]
    assert "questions_minilm" in pages["recipes.html"]
    assert "pipelines/training/loop.py" in pages["architecture.html"]
    assert "RecipeError" in pages["python_api.html"]


@pytest.mark.browser
def test_a_page_is_read_and_searched_from_a_disk(site: Path, chromium: Any) -> None:
    context = chromium.new_context()
    page = context.new_page()
    asked: set[str] = set()
    broken: list[str] = []
    page.on("request", lambda request: asked.add(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type("micro_batch")
    page.locator(".md-search-result__item").first.wait_for(timeout=20_000)
    assert broken == []
    assert asked
    assert [url for url in asked if not url.startswith("file://")] == []
    context.close()
