"""Chromium and a demo for it to open: a tiny ViT that has really learned its two classes, served as `graft demo` does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CLASSES = ("cat", "dog")
CARD = """---
license: apache-2.0
pipeline_tag: image-classification
---
# Cats and dogs

Tells cats from dogs. ![badge](https://img.example.org/badge.svg) <img src="https://img.example.org/more.png">

| class | f1 |
|---|---|
| cat | 1.00 |
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
    """`visit(url, width)` opens a page; the page's `asked` and `broken` list the hosts it asked and its script errors."""
    contexts = []

    def open_page(url: str, width: int = 1280) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, has_touch=width < 600, is_mobile=width < 600)
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
    """A run folder: model, results, card, and one example of each class."""
    from tests import tiny

    run = tmp_path_factory.mktemp("runs") / "cats_dogs_tiny"
    photos = tiny.photos(tmp_path_factory.mktemp("photos"), CLASSES, n=32, splits=("train",))
    tiny.vit(run / "model", labels=CLASSES)
    _learn(run / "model", photos / "train")
    (run / "model" / "README.md").write_text(CARD)
    (run / "examples").mkdir()
    rows = [{"image": f"{name}.jpg", "label": name} for name in CLASSES]
    for name in CLASSES:
        shutil.copy(photos / "train" / name / "000.jpg", run / "examples" / f"{name}.jpg")
    (run / "examples" / "examples.json").write_text(json.dumps(rows))
    results = {
        "recipe": "cats_dogs_tiny",
        "metric": {"name": "accuracy", "direction": "max"},
        "test": {"split": "test", "n": 64, "metrics": {"accuracy": 0.984375}, "ci95": {"accuracy": [0.953, 1.0]}},
        "model": {"id": "tiny", "base_model": "google/vit-tiny"},
        "data": {"name": "cats_dogs"},
    }
    (run / "results.json").write_text(json.dumps(results))
    (run / "model" / "results.json").write_text(json.dumps(results))
    return run


def _learn(folder: Path, photos: Path) -> None:
    """A few seconds of plain training; the labels are easy (tests.tiny.picture)."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).train()
    images = [Image.open(file) for name in CLASSES for file in sorted((photos / name).glob("*.jpg"))]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    labels = torch.arange(2).repeat_interleave(len(images) // 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    model.save_pretrained(folder)


@pytest.fixture(scope="package")
def demo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The demo of `trained` in a process of its own: its url, its run folder and the file with what it said on stderr."""
    folder = tmp_path_factory.mktemp("demo")
    code = "import sys; from pipelines.apps.launch import launch; launch(sys.argv[1])"
    env = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads")}
    with (folder / "stderr").open("w") as log:
        server = subprocess.Popen([sys.executable, "-c", code, str(trained)], env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    said = server.stdout.readline()
    assert "http://" in said, (folder / "stderr").read_text()
    yield SimpleNamespace(url=re.findall(r"http://\S+", said)[0], run=trained, log=folder / "stderr")
    server.send_signal(signal.SIGINT)
    rest, _ = server.communicate(timeout=30)
    assert (server.returncode, rest) == (0, "stopped\n")
    assert list((folder / "uploads").rglob("*.*")) == [], "visitors' files are deleted when the server stops"
