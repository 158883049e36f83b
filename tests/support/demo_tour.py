"""What a visitor does in the demo of any task until it shows an answer, for tests and for the documentation.

`python -m tests.support.demo_tour RUNS docs/pictures` writes the documentation's pictures of the demos.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import TimeoutError

from tests.support.ten_demos import models
from tests.support.ten_runs import train_all

SECONDS = 1000
EXAMPLE = ".gallery-item, .table-wrap tbody tr"
ANSWER = (
    ".graft-bars .confidence-set, .graft-bars h2, .graft-answer p, .graft-wave figure, "
    ".graft-sound figure, .graft-after .thumbnail-lg, "
    ".graft-found canvas"
)
DONE = """answer => {
  const busy = [...document.querySelectorAll('[data-testid=status-tracker]:not(.hide)')].some(one => one.offsetParent);
  const written = [...document.querySelectorAll('.graft-output textarea')].some(one => one.value.trim());
  return !busy && (written || [...document.querySelectorAll(answer)].some(one => one.offsetParent));
}"""


def answered(page: Any) -> None:
    """Take the first example, ask for an answer, and wait until it is there, with the map of what decided it."""
    example, button = page.locator(EXAMPLE).first, page.locator("button.primary").first
    with contextlib.suppress(TimeoutError):  # some pages have no examples, on others they come a moment later
        example.wait_for(timeout=3 * SECONDS)
    if example.count():
        example.click()
    if button.count():
        if example.count():
            if page.locator("textarea").count():
                page.wait_for_function("[...document.querySelectorAll('textarea')].some(field => field.value)")
            else:
                page.wait_for_timeout(1.5 * SECONDS)  # a recording is loaded into its field
        button.click()
    page.wait_for_function(DONE, arg=ANSWER, timeout=60 * SECONDS)
    if page.locator(".graft-output.graft-note").count():  # a generator: its results appear one by one
        page.get_by_text(re.compile("saved file says")).first.wait_for(timeout=60 * SECONDS)
    ask = page.locator(".graft-ask")
    if ask.count():
        ask.click()
        page.locator(".graft-ask ~ .graft-note p").first.wait_for(timeout=60 * SECONDS)
    page.wait_for_timeout(300)  # pictures are drawn


def darken(page: Any, dark: bool) -> None:
    """Light or dark, as `?__theme=dark` of the address makes it."""
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)


# ---- pictures for the documentation ----

DESKTOP, PHONE, MARGIN = 1100, 375, 24
TALLEST = 1400  # pixels; longer pages are cut off
LARGEST = 120_000  # bytes of a picture
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
RAISED = (226, 232, 240)  # the ground of a picture


def picture(browser: Any, url: str, path: Path) -> None:
    """Write a PNG of a demo with an answer: on a desktop in light mode, on a phone in dark mode."""
    shots = []
    for width, theme in ((DESKTOP, "light"), (PHONE, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 600})
        page = context.new_page()
        page.goto(f"{url}?__theme={theme}")
        page.get_by_role("tab", name="Try it").wait_for()
        answered(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        shots.append(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
        context.close()
    shots = [shot.crop((0, 0, shot.width, min(shot.height, TALLEST))) for shot in shots]
    size = (DESKTOP + PHONE + 3 * MARGIN, max(shot.height for shot in shots) + 2 * MARGIN)
    sheet = Image.new("RGB", size, RAISED)
    sheet.paste(shots[0], (MARGIN, MARGIN))
    sheet.paste(shots[1], (DESKTOP + 2 * MARGIN, MARGIN))
    for colours in (256, 128, 64, 32):
        sheet.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return


def main(runs: Path, out: Path) -> None:
    """Pictures of the demos of the newest runs in RUNS/TASK/; a task without a run there is shown with a tiny one."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for task in models():
            finished = sorted((runs / task).glob("*/results.json"), key=lambda path: path.stat().st_mtime)
            if finished:
                (root / task).mkdir()
                (root / task / "run").symlink_to(finished[-1].parent.resolve())
        train_all(root)
        with served(root) as demos, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            for task, url in demos.items():
                path = out / f"{task.replace('-', '_')}.png"
                picture(browser, url, path)
                print(f"{path}  {path.stat().st_size:,} bytes")
            browser.close()


@contextlib.contextmanager
def served(root: Path) -> Iterator[dict[str, str]]:
    """Task -> the address of the demo of its run in `root`, in a process of its own."""
    (root / "uploads").mkdir(exist_ok=True)
    env = {**os.environ, "GRADIO_TEMP_DIR": str(root / "uploads")}
    with (root / "log").open("w") as log:
        command = [sys.executable, "-m", "tests.support.ten_demos", str(root)]
        server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert line.startswith("{"), (root / "log").read_text()
        yield json.loads(line)
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
