"""Large parquet files: the bytes of images stay in an Arrow file, and the rows are those of a small file."""

import io
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data import parquet
from pipelines.data.image.reading import read_image
from pipelines.data.loading import load_splits
from pipelines.data.media import paths
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.utils import cache

NEEDS = DataSpec(("image", "label"))


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(out, "PNG")
    return out.getvalue()


def table(form: str, count: int = 24) -> pyarrow.Table:
    """Rows of two classes; one has no image, and one names a file."""
    cells: list[Any] = [jpeg(number) for number in range(count)]
    if form == "struct":
        cells = [{"bytes": cell, "path": f"{number}.png"} for number, cell in enumerate(cells)]
        cells[5] = {"bytes": None, "path": "own.png"}
        cells[6] = {"bytes": None, "path": None}
    cells[7] = None
    return pyarrow.table({"image": pyarrow.array(cells), "label": [f"class {n % 2}" for n in range(count)]})


def loaded(path: Path) -> Splits:
    return load_splits(DataSection(id=str(path)), NEEDS)


@pytest.mark.parametrize("form", ["struct", "bytes"])
def test_mapped_rows_equal_rows_in_memory(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.png").write_bytes(jpeg(200))
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(table(form), path)
    small = loaded(path)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(parquet, "LARGE", 0)
    monkeypatch.setattr(parquet, "_BATCH", 500)  # a few rows at a time
    large = loaded(path)
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1
    assert large.fingerprint == small.fingerprint
    assert large.skipped == small.skipped
    assert large.contents == small.contents
    for name in SPLITS:
        assert large[name]["id"][:] == small[name]["id"][:]
        assert paths(large[name]) == paths(small[name])
        for one, other in zip(large[name], small[name], strict=True):
            assert read_image(one["image"]).getpixel((0, 0)) == read_image(other["image"]).getpixel((0, 0))
    assert loaded(path).fingerprint == small.fingerprint  # from the kept file


def test_a_hub_data_set_is_mapped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import tiny

    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    folder = tiny.dataset_repo(tmp_path / "pets")
    small = loaded(folder)
    monkeypatch.setattr(parquet, "LARGE", 0)
    large = loaded(folder)
    assert (large.fingerprint, large.labels) == (small.fingerprint, ["cat", "dog"])
    assert large.contents == small.contents
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 2


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A parquet file that is kept as an Arrow file."""
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "LARGE", 0)
    monkeypatch.setattr(cache, "SETTLED", -(10**12))  # the file was written just now
    pyarrow.parquet.write_table(table("bytes"), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.mark.parametrize("kind", ["empty", "file", "zeros", "cut", "incomplete", "leftover"])
def test_a_damaged_table_is_written_again(kind: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = loaded(kept).fingerprint
    (entry,) = (kept.parent / "cache" / "tables").iterdir()
    file = entry / "rows.arrow"
    if kind in ("empty", "file"):
        shutil.rmtree(entry)
        entry.write_text("") if kind == "file" else entry.mkdir()
    elif kind in ("zeros", "cut"):
        content = file.read_bytes()
        file.unlink()  # the file may be mapped, so it is replaced
        file.write_bytes(b"\0" * len(content) if kind == "zeros" else content[:-8])
    elif kind == "incomplete":
        (entry / "complete").unlink()
    else:  # of a killed run: a container may give the same number to its processes
        entry.rename(entry.with_name(f".{entry.name}.{socket.gethostname()}.{os.getpid()}"))
    assert loaded(kept).fingerprint == wanted
    assert list(entry.parent.iterdir()) == [entry]
    monkeypatch.setattr(parquet, "_batches", None)  # the next run reads the entry
    assert loaded(kept).fingerprint == wanted


def test_a_table_is_known_by_more_than_size_and_time(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry() -> Path:
        return parquet.arrow_file(kept, ["label"], lambda batch: batch, "key")

    os.utime(kept, ns=(10**18, 10**18))
    first = entry()
    assert entry() == first
    kept.write_bytes(kept.read_bytes())
    os.utime(kept, ns=(10**18, 10**18))
    assert entry() != first
    second = entry()
    monkeypatch.setattr(parquet, "code", lambda: "of a later Graft")
    assert entry() != second
