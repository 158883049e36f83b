"""The page of `graft compare` in a browser: at every width it fits, nothing overlaps, pictures and players load."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluation.compare import compare
from pipelines.evaluation.compare_page import write_page
from tests.browser.test_live_report import CROSSING, page_of
from tests.unit.evaluation.test_compare_page import photos, run_of, runs  # noqa: F401 (fixtures)

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (768, "light"), (1280, "dark")])
def test_the_page_fits(runs: list[Path], tmp_path: Path, chromium: Any, width: int, scheme: str) -> None:
    out = write_page(compare(runs), tmp_path / "page.html")
    with page_of(chromium, out.as_uri(), width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CROSSING) == []
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.locator(".wrongs article").count() == 13
        colours = page.locator(".curve").evaluate_all("all => all.map(one => getComputedStyle(one).stroke)")
        assert len(colours) == 8
        assert len(set(colours)) == 2
        assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
        assert page.broken == []
