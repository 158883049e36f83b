"""The page of `graft compare` in a browser: at every width it fits, nothing overlaps, pictures and players load."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

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
        assert page.locator(".row").count() == 13
        colours = page.locator(".curve").evaluate_all("all => all.map(one => getComputedStyle(one).stroke)")
        assert len(colours) == 8
        assert len(set(colours)) == 2
        assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
        assert page.broken == []


def test_recordings_play(tmp_path: Path, chromium: Any) -> None:
    from pipelines.evaluation.compare_page import recording

    samples = 0.3 * np.sin(np.arange(12 * 22_050) / 10)
    soundfile.write(tmp_path / "a.wav", samples, 22_050)
    uri, cut = recording(str(tmp_path / "a.wav"))
    assert cut
    assert len(uri) < 150_000
    (tmp_path / "page.html").write_text(f'<audio src="{uri}"></audio>')
    with page_of(chromium, (tmp_path / "page.html").as_uri(), 360) as page:
        page.wait_for_function("document.querySelector('audio').readyState >= 1")
        assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(8, abs=0.05)
