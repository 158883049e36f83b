"""The pictures of finished pages for docs/pages.md: `python -m tests.support.page_pictures FOLDER`.

FOLDER holds, for each task, the run folder or folders whose pages are shown: FOLDER/<task>/<run>. Without FOLDER, tiny
runs are trained. Pictures are WebP files of at most LARGEST bytes in docs/pictures/pages/.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "pictures" / "pages"
LARGEST = 120_000  # bytes of a picture
SIZES = {"light": (1280, 1500), "dark": (1280, 1500), "phone": (375, 1500)}  # pixels; what lies below is cut off
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]


def save(picture: bytes, path: Path) -> None:
    """Write a screenshot as WebP, as good as LARGEST allows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(picture)) as image:
        shown = image.convert("RGB")
    shown.thumbnail((800, 4000))
    for quality in (75, 60, 45, 30):
        out = io.BytesIO()
        shown.save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= LARGEST:
            break
    path.write_bytes(out.getvalue())


def report_pictures(browser: Any, run: Path, task: str) -> list[Path]:
    """The report of a run: light and dark in a wide window, and on a phone. Returns the files."""
    found = []
    for name, (width, height) in SIZES.items():
        mode = "dark" if name == "dark" else "light"
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=mode, is_mobile=name == "phone"
        )
        page = context.new_page()
        page.goto((run / "report.html").resolve().as_uri())
        found.append(TARGET / f"{task.replace('-', '_')}_report_{name}.webp")
        save(page.screenshot(), found[-1])
        context.close()
    return found


def main(runs: dict[str, Path]) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for task, run in runs.items():
            for path in report_pictures(browser, run, task):
                print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")
        browser.close()


def runs_of(folder: Path) -> dict[str, Path]:
    """Task -> the newest finished run in its folder."""
    from tests.support.ten_demos import models

    found = {}
    for task in models():
        finished = sorted((folder / task).glob("*/report.html"), key=lambda path: path.stat().st_mtime)
        if finished:
            found[task] = finished[-1].parent
    return found


if __name__ == "__main__":
    from tests.support.ten_runs import train_all

    if len(sys.argv) > 1:
        main(runs_of(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as trained:
            main(train_all(Path(trained)))
