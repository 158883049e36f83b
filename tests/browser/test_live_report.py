"""report.html of a run that goes on and `graft watch`, in a browser: curves grow, nothing moves, nothing overlaps."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.reporting.live import LiveReport
from tests.support.fake_run import fake_run

pytestmark = pytest.mark.browser

ABOUT = {"name": "a_run_with_a_rather_long_name-lr3e-3-batch_size64", "model": "vit", "data": "pets"}
ABOUT |= {"metric": "accuracy", "direction": "max"}
# texts of the page that lie on each other, and boxes that leave the window
CROSSING = """() => {
  const leaves = [...document.querySelectorAll('main *')].filter(e => e.childElementCount == 0 && e.innerText?.trim() &&
    e.checkVisibility() && !e.closest('.tables'));
  const boxes = leaves.map(e => [e.innerText.trim(), e.getBoundingClientRect()]);
  const found = boxes.filter(([, b]) => b.left < 0 || b.right > innerWidth + 0.5).map(([text]) => 'outside: ' + text);
  boxes.forEach(([text, a], place) => boxes.slice(place + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 2) found.push(text + ' | ' + other);
  }));
  return found;
}"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = fake_run(tmp_path / "run", n=20, steps=100, pictures=False)
    (folder / "results.json").unlink()
    return folder


def add(run: Path, step: int, **entry: Any) -> None:
    line = {"step": step, "epoch": step / 20, "stage": "train", **entry}
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


@contextmanager
def page_of(chromium: Any, url: str, width: int, scheme: str = "light") -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    page.asked, page.broken = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    page.on("console", lambda message: page.broken.append(message.text))
    page.goto(url)
    yield page
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light")])
def test_the_file_loads_itself_again_and_stays_where_it_is(run: Path, chromium: Any, width: int, scheme: str) -> None:
    report = LiveReport(run, ABOUT, print, writes=True)
    report.begin("training", stage="train", step=0, steps=200)
    with page_of(chromium, (run / "report.html").as_uri(), width, scheme) as page:
        assert page.evaluate(CROSSING) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("summary").click()
        page.evaluate("scrollTo(0, 400)")
        before = page.locator(".curve.c1").get_attribute("d")
        add(run, 150, loss=0.9, learning_rate=1e-4, seconds=200)
        report.begin("training", stage="train", step=150, steps=200)
        page.get_by_text("150of 200", exact=True).wait_for(timeout=15_000)
        assert page.locator(".curve.c1").get_attribute("d") != before
        assert page.evaluate("scrollY") == 400
        assert page.locator("details").evaluate("d => d.open")
        report.end("stopped", 150)
        page.get_by_text("The same graft train command goes on from there.").wait_for(timeout=15_000)
        count = len(page.asked)
        page.wait_for_timeout(4000)
        assert len(page.asked) == count, "it does not load itself any more"
        assert page.broken == []
        assert {url for url in page.asked if not url.startswith(("file:", "data:"))} == set()


def test_a_page_whose_run_died_says_so(run: Path, chromium: Any) -> None:
    report = LiveReport(run, ABOUT, print, writes=True)
    report.begin("training", stage="train", step=0, steps=200)
    text = (run / "report.html").read_text()
    (run / "report.html").write_text(re.sub(r'data-updated="[\d.]+"', 'data-updated="1700000000"', text))
    with page_of(chromium, (run / "report.html").as_uri(), 360) as page:
        notice = page.locator("#news")
        notice.wait_for()
        assert "has not written this page for" in notice.inner_text()
        assert "2023" in notice.inner_text()
        assert page.evaluate(CROSSING) == []


@contextmanager
def watching(run: Path) -> Iterator[str]:
    """`graft watch` in a process of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    hear = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "pipelines", "watch", str(run), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
    assert server.stdout is not None
    assert re.findall(r"http://\S+", server.stdout.readline()) == [f"http://127.0.0.1:{port}"]
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)
    rest, errors = server.communicate(timeout=30)
    assert (server.returncode, rest, errors) == (0, "stopped\n", "")


@pytest.mark.quick
def test_watch_shows_new_lines_while_they_are_written(run: Path, chromium: Any) -> None:
    report = LiveReport(run, ABOUT, print, writes=True)
    report.begin("training", stage="train", step=0, steps=200)
    (run / ".lock").touch()
    import fcntl

    with watching(run) as url, (run / ".lock").open("w") as lock, page_of(chromium, url, 360, "dark") as page:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        page.get_by_text("Training", exact=True).wait_for(timeout=10_000)
        page.evaluate("scrollTo(0, 400)")
        page.evaluate("window.mine = 1")
        for step in (110, 120):
            add(run, step, loss=0.01 * step, learning_rate=1e-4, seconds=step)
            page.get_by_text(f"{step}of 200", exact=True).wait_for(timeout=10_000)
        assert page.evaluate("window.mine") == 1, "the page was changed in its place"
        assert page.evaluate("scrollY") == 400
        assert page.evaluate(CROSSING) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        lock.close()  # as if the run was killed
        page.get_by_text("did not write why").wait_for(timeout=10_000)
        report.close()
        (run / "results.json").write_text("{}")
        (run / "report.html").write_text("<!doctype html><title>done</title><h1>The final report</h1>")
        page.get_by_role("heading", name="The final report").wait_for(timeout=10_000)
        assert page.broken == []
        assert {address for address in page.asked if not address.startswith((url, "data:"))} == set()
    assert os.path.exists(run / "log.jsonl")
