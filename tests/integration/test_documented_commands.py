"""Every snippet of README.md and docs/ is run as it is printed, page by page, in a folder with tiny data.

The test replaces models and data sets of the hub by tiny ones under their real ids (`served` of the task's own test).
Every recipe gets the settings of `QUICK` and of `served`, as if the user typed them after it. `YOU` is the account of
the hub on loopback. `graft demo` gets one request for its page and is then stopped. A snippet that is not run gives
the reason in a comment (see tests/support/doc_blocks.py).
"""

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.config import recipe as recipes
from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import DataSection, Recipe
from pipelines.diagnostics import guess
from tests.support import (
    tiny,
    tiny_audio,
    tiny_boxes,
    tiny_masks,
    tiny_pictures,
    tiny_text,
    tiny_tfrecords,
    tiny_videos,
    tiny_whisper,
)
from tests.support.command import Done, graft
from tests.support.doc_blocks import ROOT, Block, blocks, commands, pages, snippets
from tests.support.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.support.pages import gradio_page  # noqa: F401 (a fixture)
from tests.support.runs import without_pictures

pytestmark = pytest.mark.integration

QUICK = ("train.max_steps=2", "train.head_epochs=0", "train.precision=fp32", "data.workers=0", "data.max_eval_rows=12")
PART_OF = "photos_efficientnet_b0"
PAGES = [
    str(page.relative_to(ROOT))
    for page in pages()
    if any(b.language != "text" and b.mark not in ("shown", "file") for b in blocks(page))
]
RAN: list[Block] = []


# ---- the reader's folder ----


def reviews(file: Path) -> None:
    rows = [
        f'"{row["text"]}",{row["label"]},author {number % 20}'
        for number, row in enumerate(tiny_text.labelled_rows("class", 90))
    ]
    file.write_text("review,stars,author\n" + "\n".join(rows) + "\n")


def comments(file: Path) -> None:
    rows = [f"comment {number},{number % 2},{number // 2 % 2},{int(number % 3 == 0)}" for number in range(60)]
    file.write_text("text,rude,spam,threat\n" + "\n".join(rows) + "\n")


def notes(folder: Path) -> None:
    folder.mkdir()
    for number, row in enumerate(tiny_text.labelled_rows("class", 40, "notes")):
        (folder / f"{number}.txt").write_text(row["text"])


def recordings(folder: Path) -> None:
    for word in tiny_audio.WORDS:
        for number in range(12):
            tiny_audio.write(folder / word / f"{number}.wav", tiny_audio.spoken(word, number))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name. A page's later snippets find the runs of its earlier ones."""
    folder = tmp_path_factory.mktemp("reader")
    tiny.photos(folder / "photos", ("cat", "dog"), n=20, splits=())
    tiny.photos(folder / "more_photos", ("cat", "dog"), n=4, splits=(), seed=5)
    tiny_pictures.shapes(folder / "captioned", n=30, size=16, captions="txt")
    tiny_boxes.shapes(folder / "boxes", n=30)
    tiny_boxes.shapes(folder / "masks", n=30)
    tiny_masks.shapes(folder / "pixels", n=30)
    tiny_videos.moving_shapes(folder / "videos", count=12, classes=2, frames=12, side=32)
    tiny_tfrecords.videos(folder / "youtube8m", {"validate0000": 60})
    recordings(folder / "sounds")
    tiny_whisper.librispeech(folder / "LibriSpeech")
    reviews(folder / "reviews.csv")
    notes(folder / "notes")
    tiny_text.chats(folder, 40)
    comments(folder / "comments.csv")
    tiny_text.squad(folder / "squad")
    tiny.picture(0, 2, 60, np.random.default_rng(0)).save(folder / "new.jpg")
    shutil.copy(next((folder / "videos").rglob("*.mp4")), folder / "new.mp4")
    tiny_audio.write(folder / "new.wav", tiny_audio.spoken("low mid"))
    return folder


@pytest.fixture
def at_the_reader(reader: Path, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder the current one, use the hub on loopback, and make recipes quick."""
    monkeypatch.chdir(reader)
    monkeypatch.setattr("pipelines.hub.retry.WAITS", (0, 0, 0))
    real, served = recipes.load_recipe, {}
    monkeypatch.setattr(guess, "load_recipe", real)  # a guess looks at all recipes for own data

    def quick(source: Any, overrides: Sequence[str] = (), **others: Any) -> Recipe:
        if Path(source).name == "recipe.yaml":  # the recipe of a run or model is quick already
            return real(source, overrides, **others)
        shipped = real(source)
        key = shipped.model_dump_json()
        if key not in served:
            test = importlib.import_module(f"tests.tasks.test_{shipped.task.replace('-', '_')}")
            served[key] = test.served(shipped, hub, tmp_path / str(len(served)))
        return real(source, [*overrides, *QUICK, *served[key].changes], **others)

    monkeypatch.setattr(recipes, "load_recipe", quick)
    return reader


# ---- running snippets ----


def run_command(line: str, environment: dict[str, str]) -> Done:
    words = shlex.split(line.replace("YOU/", f"{USER}/"))
    words, file = (words[: words.index(">")], words[words.index(">") + 1]) if ">" in words else (words, None)
    if words[0] != "graft":
        modules = {"accelerate": "accelerate.commands.accelerate_cli", "torchrun": "torch.distributed.run"}
        words = [sys.executable, "-m", modules[words[0]], *words[1:]]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        return Done(done.returncode, done.stdout, done.stderr)
    with without_pictures() if words[1] == "train" else contextlib.nullcontext(), asked_once():
        ended = graft(*words[1:])
    if file is not None:
        Path(file).write_text(ended.out)
    if "--json" in words:
        json.loads(ended.out)
    return ended


@contextlib.contextmanager
def asked_once() -> Iterator[None]:
    """A demo answers one request instead of waiting for Ctrl-C."""

    def wait(page: Any) -> None:
        with urllib.request.urlopen(page.local_url, timeout=30) as answer:
            assert answer.status == 200
        page.close(verbose=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.apps.launch.wait", wait)
        yield


def prepare(page: list[Block], environment: dict[str, str]) -> None:
    """Train the runs that this page uses and that another page explains how to train."""
    here = "\n".join(block.text for block in page)
    named = re.findall(
        r"runs/[\w-]+/(\w+)|^graft (?:card|demo|evaluate|predict|publish|report) (\w+)", here, re.MULTILINE
    )
    for name in dict.fromkeys(part for parts in named for part in parts if part in recipe_paths()):
        trains = re.compile(rf"^graft train {name}( .*)?$")
        if list(Path("runs").glob(f"*/{name}")) or any(
            trains.match(line) for block in page for line in commands(block)
        ):
            continue
        every = [
            line for block in snippets() if block.language == "bash" and not block.mark for line in commands(block)
        ]
        done = run_command(next(line for line in every if trains.match(line)), environment)
        assert done.code == 0, done.err


@pytest.mark.usefixtures("gradio_page")
@pytest.mark.parametrize("name", PAGES)
def test_the_snippets_of_a_page_run(name: str, at_the_reader: Path, hub: HubServer) -> None:
    page = blocks(ROOT / name)
    environment = hub.env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    prepare([block for block in page if block.mark != "shown"], environment)
    printed, names = "", {"__name__": "page"}  # a page is read from the top, so its snippets share their names
    for block in page:
        if block.mark == "output":
            expected = re.escape(block.text.strip()).replace(re.escape("..."), ".*")
            assert re.search(rf"(?ms)^{expected}$", printed), f"{block}: printed was\n{printed}"
        if block.language == "text" or block.mark in ("shown", "file"):
            continue
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()), without_pictures():
                exec(compile(block.text, str(block), "exec"), names)
        elif block.language == "yaml":
            complete = "task" in yaml.safe_load(block.text)  # a part of a recipe is read as one of `PART_OF`
            raw = {} if complete else yaml.safe_load(recipe_paths()[PART_OF].read_text())
            recipes.validate({**raw, **yaml.safe_load(block.text)}, str(block))
        else:
            *first, last = commands(block)
            for line in [*first, last]:
                done = run_command(line, environment)
                code = int(block.note) if block.mark == "fails" and line is last else 0
                assert done.code == code, f"{block}: {line}\nexit {done.code}\n{done.out}\n{done.err}"
                printed = done.err
        RAN.append(block)


def test_all_of_them_were_run(request: pytest.FixtureRequest) -> None:
    expected = [block for block in snippets() if block.mark not in ("shown", "file")]
    assert len(expected) >= 40
    chosen = [item for item in request.session.items if item.name.startswith("test_the_snippets_of_a_page_run")]
    assert len(RAN) == len(expected) or len(chosen) < len(PAGES)


# ---- files of a checkout ----


def test_the_task_of_the_page_passes_the_contract(tmp_path: Path) -> None:
    """With the five files of docs/add_a_task.md in a copy of the sources the contract passes, and no file is edited."""
    written = [block for block in blocks(ROOT / "docs" / "add_a_task.md") if block.mark == "file"]
    assert len(written) == 5
    for folder in ("pipelines", "apps", "recipes", "hub_cards", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "fixtures", "benchmarks")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for folder in ("apps", "recipes", "hub_cards"):  # where an installed Graft has them
        (tmp_path / "pipelines" / folder).symlink_to(tmp_path / folder)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for block in written:
        file = tmp_path / block.note
        assert not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
    for file in ("pipelines/tasks/text_scoring.py", "apps/text_scoring.py", "tests/tasks/test_text_scoring.py"):
        lint = [sys.executable, "-m", "ruff", "check", "--no-cache", file]
        done = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    tests = ("tests/tasks/test_text_scoring.py", "tests/unit/config/test_catalog.py")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", *tests]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


# ---- layouts ----


def write(path: Path) -> None:
    """A tiny real file of the kind that its name suggests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Callable[[], Any]] = {
        ".jpg": lambda: Image.new("RGB", (8, 8), "teal").save(path),
        ".wav": lambda: tiny_audio.write(path, tiny_audio.spoken("low")),
        ".csv": lambda: path.write_text("text,label\nfine,good\n"),
        ".json": lambda: path.write_text(json.dumps({"version": "1.1", "data": []})),
        ".txt": lambda: path.write_text("The bridge was made by Ada.\n"),
        ".md": lambda: path.write_text("The bridge was made by Ada.\n"),
    }
    kinds[path.suffix]()


LAYOUTS = [block for page in pages() for block in blocks(page) if block.mark == "layout"]


@pytest.mark.parametrize("block", LAYOUTS, ids=str)
def test_a_layout_is_found(block: Block, tmp_path: Path) -> None:
    from pipelines.data import loading

    paths = block.text.split()
    for path in paths:
        write(tmp_path / path)
    (top,) = {path.split("/")[0] for path in paths}
    found = loading.format_module(DataSection(id=str(tmp_path / top)))
    assert found.__name__.rpartition(".")[2] == block.note


def test_there_are_layouts() -> None:
    assert len(LAYOUTS) >= 10
