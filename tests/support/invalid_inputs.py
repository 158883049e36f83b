"""Invalid data for tests/invalid_input/test_recipes_and_data.py.

Each case builds it in an empty folder from correct data.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import tiny
from tests.support.command import RECIPE, Done, graft


@dataclass
class World:
    """What a case may use: an empty folder, and correct photos and a correct model, which it must not change."""

    tmp: Path
    photos: Path  # train, validation and test with 4 cats and 4 dogs each
    flat: Path  # 12 cats and 12 dogs in class folders, no splits
    vit: Path

    def graft(self, verb: str, *arguments: Any, data: Any = None, model: Any = None, run: str = "run") -> Done:
        """A verb on a recipe, with this data and model. Everything else is correct."""
        recipe = self.tmp / "recipe.yaml"
        recipe.write_text(RECIPE)
        where = ["--run", self.tmp / run] if verb == "train" else []
        return graft(verb, recipe, "--data", data or self.photos, "--model", model or self.vit, *where, *arguments)

    def copy(self, source: Path | None = None, name: str = "data") -> Path:
        return Path(shutil.copytree(source or self.photos, self.tmp / name))


@pytest.fixture(scope="session", name="right")
def a_right_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("right")
    photos, flat = tiny.photos(root / "photos", n=4), tiny.photos(root / "flat", n=12, splits=())
    return {"photos": photos, "flat": flat, "vit": tiny.vit(root / "vit")}


@pytest.fixture(name="world")
def a_world(tmp_path: Path, right: dict[str, Path]) -> Iterator[World]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads wait for one another longer than models this small compute
    yield World(tmp_path, **right)
    torch.set_num_threads(threads)


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="session", name="finished")
def a_finished_run(right: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run on the photos. Read only."""
    world = World(tmp_path_factory.mktemp("finished"), **right)
    done = world.graft("train")
    assert done.code == 0, done.err
    return world.tmp / "run"


# ---- folders ----


def photo(folder: Path) -> Path:
    return folder / "train" / "cat" / "000.jpg"


def spoiled(world: World, count: int, spoil: Callable[[bytes], bytes] = lambda data: data[:300]) -> Path:
    """The photos; the first `count` cats of train are damaged: cut short, unless `damage` does something else."""
    data = world.copy()
    for path in sorted((data / "train" / "cat").iterdir())[:count]:
        path.write_bytes(spoil(path.read_bytes()))
    return data


def all_empty(world: World) -> Path:
    data = world.copy(world.flat)
    for path in data.rglob("*.jpg"):
        path.write_bytes(b"")
    return data


def without(world: World, *folders: str) -> Path:
    data = world.copy()
    for folder in folders:
        shutil.rmtree(data / folder)
    return data


def with_file(world: World, name: str) -> Path:
    """The photos and one more file. A name that ends in / is an empty folder."""
    data = world.copy()
    if name.endswith("/"):
        (data / name).mkdir(parents=True)
    else:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo(data), data / name)
    return data


def empty(world: World, *names: str) -> Path:
    """Empty folders."""
    (world.tmp / "data").mkdir()
    for name in names:
        (world.tmp / "data" / name).mkdir()
    return world.tmp / "data"


def bombs(world: World) -> Path:
    data = world.copy()
    for i in range(4):  # 20 kB each, 190 megapixels
        Image.new("1", (19_000, 10_000)).save(data / "train" / "cat" / f"bomb{i}.png")
    return data


# ---- tables ----


def rows() -> list[tuple[str, str]]:
    return [(f"flat/{name}/{i:03d}.jpg", name) for i in range(12) for name in ("cat", "dog")]


def csv(header: str = "image,label", line: str = "{},{}", more: str = "") -> str:
    """The flat photos as a csv: 24 rows, lines 2 to 25, and `more` from line 26."""
    return "\n".join([header, *(line.format(*row) for row in rows())]) + f"\n{more}"


def jsonl(*more: Any) -> str:
    """The flat photos as lines of JSON, 1 to 24, and `more` from line 25."""
    return "".join(
        json.dumps(row) + "\n" for row in [*({"image": image, "label": label} for image, label in rows()), *more]
    )


def table(world: World, name: str, text: str | bytes) -> Path:
    """A table in the folder that holds `flat/`."""
    (world.tmp / "flat").symlink_to(world.flat)
    (world.tmp / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return world.tmp / name


def labelled(world: World, *labels: Any, image: Any = "flat/cat/000.jpg") -> Path:
    """The photos in a jsonl file, and more rows with these labels."""
    return table(world, "a.jsonl", jsonl(*({"image": image, "label": label} for label in labels)))


def parquet(world: World, keep: float) -> Path:
    """The first bytes of a parquet file."""
    import pyarrow
    import pyarrow.parquet

    path = world.tmp / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"] * 9, "label": ["a"] * 9}), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def twice(world: World) -> Path:
    data = empty(world)
    (data / "train.csv").write_text(csv())
    (data / "train.jsonl").write_text(jsonl())
    return data
