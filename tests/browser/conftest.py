"""Chromium, and a demo for it to open: a tiny ViT that has learned its two classes, trained and served by Graft."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import tiny

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RECIPE = """
task: image-classification
model: {{id: {model}}}
data: {{id: {photos}}}
train: {{epochs: 6, batch_size: 8, learning_rate: 3.0e-3}}
hub: {{license: apache-2.0}}
"""
REMOTE = """
![badge](https://img.example.org/badge.svg) <img src="https://img.example.org/more.png">
"""


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """`visit(url, width)` opens a page.

    The page's `asked` lists the hosts that it requested; `broken` lists script errors.
    """
    contexts = []

    def open_page(url: str, width: int = 1280) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, has_touch=width < 600, is_mobile=width < 600
        )
        contexts.append(context)
        page = context.new_page()
        page.asked, page.broken = set(), []
        page.on("request", lambda request: page.asked.add(request.url))
        page.on("pageerror", lambda error: page.broken.append(str(error)))
        page.goto(url)
        page.get_by_role("tab", name="Try it").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as `graft train` leaves it after a few seconds. Its card also names images of another host."""
    from pipelines.config.recipe import load_recipe
    from pipelines.training.run import train

    folder = tmp_path_factory.mktemp("run")
    photos, model = (
        tiny.photos(folder / "photos", n={"train": 16, "validation": 8, "test": 16}),
        tiny.vit(folder / "vit"),
    )
    recipe = folder / "cats_dogs_tiny.yaml"
    recipe.write_text(RECIPE.format(model=model, photos=photos))
    run = folder / "runs" / "cats_dogs_tiny"
    results = train(load_recipe(recipe), run, name=recipe.stem)
    assert results
    assert results["test"]["metrics"]["accuracy"] > 0.9
    card = run / "model" / "README.md"
    card.write_text(card.read_text() + REMOTE)
    return run


@pytest.fixture(scope="package")
def demo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The demo of `trained`, in a process of its own."""
    with serving(trained, tmp_path_factory.mktemp("demo")) as served:
        yield served


@pytest.fixture(scope="package")
def ten_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of every task: TASK/run. The workers of a test run share it."""
    from filelock import FileLock

    from tests.support.ten_runs import train_all

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ten runs"
    with FileLock(f"{root}.lock"):
        train_all(root)
    return root


@contextmanager
def serving(run: Path, folder: Path) -> Iterator[SimpleNamespace]:
    """`graft demo` on a run, in a process of its own.

    Yields its url, its run folder and the file that holds its stderr.
    """
    (folder / "tmp").mkdir()
    env = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"} | {
        "TMPDIR": str(folder / "tmp")
    }
    with socket.socket() as one:  # each demo has its own, because several of these start at a time
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "pipelines", "demo", str(run), "--port", str(port)]
    with (folder / "stderr").open("w") as log:
        # a test run that a shell started in the background ignores Ctrl-C: the server must not inherit this
        hear = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=hear)
    assert server.stdout is not None
    first_line = server.stdout.readline()
    assert "http://" in first_line, (folder / "stderr").read_text()
    yield SimpleNamespace(url=re.findall(r"http://\S+", first_line)[0], run=run, log=folder / "stderr")
    server.send_signal(signal.SIGINT)
    rest, _ = server.communicate(timeout=30)
    assert (server.returncode, rest) == (0, "stopped\n")
    assert list((folder / "tmp").rglob("*.*")) == [], "visitors' files are deleted when the server stops"


@contextmanager
def speaking(chromium: Any, url: str, wave: Path) -> Iterator[Any]:
    """A page of a browser whose microphone plays a file again and again, after two seconds of recording."""
    fake = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={wave}",
    ]
    browser = chromium.browser_type.launch(executable_path=shutil.which("chromium"), args=[*FLAGS, *fake])
    page = browser.new_page(permissions=["microphone"])
    page.goto(url)
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Stop", exact=True).first.click()
    yield page
    browser.close()
