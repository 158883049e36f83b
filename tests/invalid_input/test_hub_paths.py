"""A data set of the hub names files that are not its own: the error names them.

None of them is opened, downloaded or shown.
"""

import builtins
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.image.reading import read_image
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, DataSpec
from pipelines.errors import DataError
from tests.support import tiny, tiny_audio
from tests.support.hub import HubServer, hub  # noqa: F401 (a fixture)

PHOTOS, SOUNDS = DataSpec(("image", "label")), DataSpec(("audio", "label"))
SECRET = (1, 254, 3)


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An image of the user. Nothing may open it, not even to read its header."""
    path = tmp_path / "home" / "secret.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 40), SECRET).save(path)
    tiny_audio.write(path.with_suffix(".wav"), tiny_audio.spoken("low"))
    path.with_suffix(".csv").write_text("text,label\nmy password,a\n")
    opened: list[str] = []
    real_open, real_os_open = builtins.open, os.open

    def noted(real: Any) -> Any:
        def call(file: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(file, (str, os.PathLike)) and "secret" in os.path.basename(os.path.realpath(os.fspath(file))):
                opened.append(str(file))
            return real(file, *args, **kwargs)

        return call

    monkeypatch.setattr(builtins, "open", noted(real_open))
    monkeypatch.setattr(io, "open", builtins.open)
    monkeypatch.setattr(os, "open", noted(real_os_open))
    yield path
    assert not opened


def parquet(folder: Path, rows: list[dict[str, Any]], column: str = "image") -> Path:
    """A data set of one file of rows (bytes, path), cats and dogs alternating."""
    import pyarrow
    import pyarrow.parquet
    from datasets import Audio, ClassLabel, Features
    from datasets import Image as ImageFeature

    features = Features(
        {column: ImageFeature() if column == "image" else Audio(), "label": ClassLabel(names=["cat", "dog"])}
    )
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({column: pyarrow.array(rows, kind), "label": [i % 2 for i in range(len(rows))]})
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), folder / "train.parquet")
    return folder


def jpeg(number: int) -> bytes:
    data = io.BytesIO()
    tiny.picture(number % 2, 2, 40, np.random.default_rng(number)).save(data, "JPEG")
    return data.getvalue()


def right(n: int = 20) -> list[dict[str, Any]]:
    return [{"bytes": jpeg(number), "path": f"{number}.jpg"} for number in range(n)]


def load(hub_id: str, needs: DataSpec = PHOTOS, **section: Any) -> Any:
    return load_splits(DataSection(id=hub_id, **section), needs)


def hostile(secret: Path) -> list[str]:
    outside = secret.parent / "link.png"
    outside.symlink_to(secret)
    local = [
        str(secret),
        f"/nowhere/../{secret}",
        "secret.png",
        "../secret.png",
        str(outside),
        "~/secret.png",
        "/dev/zero",
        "",
    ]
    addresses = [f"file://{secret}", f"FILE:{secret}", "http://127.0.0.1:9/a.png", "hf://datasets/tester/mine/a.png"]
    return [*local, *addresses, f"zip://a.png::{secret}", f"{secret}\0.jpg"]


def test_rows_that_name_files_of_the_user(hub: HubServer, secret: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(secret.parent)
    monkeypatch.setenv("HOME", str(secret.parent))
    wanted = hostile(secret)
    hub.add_dataset(
        "tester/hostile", parquet(tmp_path / "set", [*right(), *({"bytes": None, "path": path} for path in wanted)])
    )
    splits = load("tester/hostile")
    assert sum(len(splits[name]) for name in SPLITS) == 20
    assert [id_ for id_, _ in splits.skipped["train"]] == [f"train/{20 + i}" for i in range(len(wanted))]
    whys = [why for _, why in splits.skipped["train"]]
    assert all("not opened" in why or "not fetched" in why or "not unpacked" in why for why in whys), whys
    assert f"train/20: it names the file {str(secret)!r}, which is not in the data set" in whys[0]
    assert sum("not fetched" in why for why in whys) == 4
    for name in SPLITS:
        for row in splits[name]:
            assert read_image(row["image"]).getpixel((20, 20)) != SECRET
    hub.add_dataset("tester/only", parquet(tmp_path / "only", [{"bytes": None, "path": str(secret)}] * 2))
    with pytest.raises(DataError, match=r"none of 2 rows of train can be used; the first: train/0: it names the file"):
        load("tester/only")


def test_recordings_of_a_hub_data_set(hub: HubServer, secret: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(20):
        path = tiny_audio.write(
            tmp_path / "clips" / f"{number}.wav", tiny_audio.spoken(("low", "high")[number % 2], number)
        )
        rows.append({"bytes": path.read_bytes(), "path": path.name})
    rows.append({"bytes": None, "path": str(secret.with_suffix(".wav"))})
    hub.add_dataset("tester/sounds", parquet(tmp_path / "set", rows, "audio"))
    splits = load("tester/sounds", SOUNDS)
    assert splits.skipped["train"] == [
        (
            "train/20",
            f"train/20: it names the file {str(secret.with_suffix('.wav'))!r}, "
            "which is not in the data set: not opened",
        )
    ]


CARD = "---\n{}dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype: string\n---\n"


def test_a_csv_whose_card_calls_a_column_images(hub: HubServer, secret: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text(CARD.format(""))
    (folder / "train.csv").write_text(
        "image,label\n" + "".join(f"{path},cat\n" for path in (secret, "../secret.png", f"file://{secret}"))
    )
    hub.add_dataset("tester/list", folder)
    with pytest.raises(
        DataError, match=r"none of 3 rows of train can be used; the first: train/0: it names the file '.*secret\.png'"
    ):
        load("tester/list")
    (folder / "README.md").unlink()
    hub.add_dataset("tester/plain", folder)
    # a column of text, whatever name the recipe gives it
    with pytest.raises(DataError, match="column 'image' holds no images"):
        load("tester/plain", columns={"image": "image"})


@pytest.mark.parametrize(
    "where", ["{secret}", "../../{secret}", "http://127.0.0.1:9/a.csv", "file://{secret}", "~/secret.csv"]
)
def test_a_card_that_takes_rows_from_this_disk(where: str, hub: HubServer, secret: Path, tmp_path: Path) -> None:
    """The library reads the files that a card's `data_files` name, wherever they are."""
    rows = secret.with_suffix(".csv")
    folder = tmp_path / "set"
    folder.mkdir()
    pattern = where.format(secret=rows)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '{pattern}'\n---\n"
    )
    (folder / "train.csv").write_text("text,label\nx,a\n")
    hub.add_dataset("tester/thief", folder)
    with pytest.raises(DataError, match=r"tester/thief takes rows from outside of itself \('.*which are not read"):
        load("tester/thief", DataSpec(("text", "label")))


def test_another_folder_in_a_card(hub: HubServer, secret: Path, tmp_path: Path) -> None:
    tiny.photos(secret.parent / "mine", n=2, splits=())
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_dir: {secret.parent / 'mine'}\n---\n"
    )
    (folder / "train.csv").write_text("text,label\nx,a\n")
    hub.add_dataset("tester/dir", folder)
    with pytest.raises(DataError, match="takes rows from outside of itself"):
        load("tester/dir")


def test_files_of_the_data_set_itself(hub: HubServer, tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path / "set", n=6, splits=("train", "test"))
    hub.add_dataset("tester/folder", folder)
    splits = load("tester/folder")
    assert [len(splits[name]) for name in SPLITS] == [11, 1, 12]
    assert read_image(splits.train[0]["image"]).size == (40, 40)
    assert min(splits.train["size"]) > 100


def test_a_metadata_of_the_hub(hub: HubServer, secret: Path, tmp_path: Path) -> None:
    for file in ("../../../../../../../../../../.." + str(secret), str(secret), f"file://{secret}"):
        folder = tmp_path / f"set{len(file)}"
        tiny.photos(folder, n=1, splits=("train",))
        lines = [{"file_name": "cat/000.jpg", "label": "cat"}, {"file_name": file, "label": "dog"}]
        (folder / "train" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        hub.add_dataset(f"tester/listed{len(file)}", folder)
        with pytest.raises(DataError, match=r"secret\.png"):
            load(f"tester/listed{len(file)}")


@pytest.mark.parametrize("file", ["cat/000.jpg", "cat/link.png", "../../../../../../../../../../../{secret}"])
def test_an_archive_of_the_hub(file: str, hub: HubServer, secret: Path, tmp_path: Path) -> None:
    """A link or a path with `..` in an archive leads nowhere."""
    photos = tiny.photos(tmp_path / "photos", n=6, splits=())
    (tmp_path / "set").mkdir()
    lines = [
        {"file_name": path.relative_to(photos).as_posix(), "label": "cat"} for path in sorted(photos.rglob("*.jpg"))
    ]
    lines.append({"file_name": file.format(secret=secret), "label": "dog"})
    with zipfile.ZipFile(tmp_path / "set" / "train.zip", "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos).as_posix())
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
        archive.writestr(f"cat/../../../../../../..{secret}", b"x")
        archive.writestr("metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    hub.add_dataset("tester/zip", tmp_path / "set")
    with pytest.raises(DataError, match="tester/zip"):  # the library does not unpack it
        load("tester/zip", DataSpec(("image",)))
