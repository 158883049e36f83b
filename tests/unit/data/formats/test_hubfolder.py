"""Data sets of the hub in a local folder, as a clone or as save_to_disk wrote them.

Parts of a split are joined, classes have their names, and only files inside the folder are read.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.image.reading import read_image
from pipelines.data.loading import format_module, load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.errors import DataError
from tests.invalid_input.test_hub_paths import jpeg, parquet, right
from tests.support import tiny

NEEDS = DataSpec(("image", "label"))


def load(path: Path, **section: Any) -> Splits:
    return load_splits(DataSection(id=str(path), **section), NEEDS)


def format_name(path: Path) -> str:
    return format_module(DataSection(id=str(path))).__name__.rpartition(".")[2]


def cloned(folder: Path) -> Path:
    """A clone: two parts of train and one of test, with its README."""
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        written = parquet(folder / f"part{number}", right(20) if number == 0 else right(10)) / "train.parquet"
        (folder / "data").mkdir(exist_ok=True)
        written.rename(folder / "data" / f"{name}.parquet")
        written.parent.rmdir()
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n---\n# pets\n")
    return folder


def test_a_clone(tmp_path: Path) -> None:
    folder = cloned(tmp_path / "pets")
    splits = load(folder)
    assert (splits.labels, splits.hub_id) == (["cat", "dog"], None)
    assert splits.source == {"train": "train", "validation": "cut from train", "test": "test"}
    assert [len(splits[name]) for name in SPLITS] == [
        28,
        2,
        10,
    ]  # ten rows of train are also in test: validation has none of these
    assert load(folder / "data").fingerprint == splits.fingerprint
    read_image(splits.test[0]["image"])
    for name in ("small", "large"):
        shutil.copytree(folder / "data", tmp_path / "two" / name)
    with pytest.raises(DataError, match=r"data\.config: .* has the configurations large, small; got none: name one"):
        load(tmp_path / "two")
    chosen = load(tmp_path / "two", config="small")
    assert chosen.ignored == {"files of the configuration 'large'": 3}
    (folder / "data" / "train-00001-of-00002.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(DataError, match=r"00001-of-00002\.parquet: a pointer of Git LFS.*git lfs pull"):
        load(folder)
    (folder / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1?")
    with pytest.raises(DataError, match=r"00001-of-00002\.parquet: not a readable parquet file"):
        load(folder)


def test_a_parquet_file_that_names_its_classes(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "pets", right())
    for path in (folder, folder / "train.parquet"):
        assert format_name(path) == "hubfolder"
        assert load(path).labels == ["cat", "dog"]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "train.parquet")
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), folder / "train.parquet")
    assert format_name(folder) == "table"
    assert load(folder).labels == ["0", "1"]


def test_a_class_without_a_file_in_a_clone(tmp_path: Path) -> None:
    dogs = [{"bytes": None, "path": f"{i}.jpg"} if i % 2 else row for i, row in enumerate(right())]
    folder = parquet(tmp_path / "pets", dogs)
    with pytest.raises(DataError, match=r"the class 'dog' can be used; the first: train/1: no such file: .*1\.jpg"):
        load(folder)
    shutil.rmtree(folder)
    splits = load(parquet(folder, [*dogs[:-1], right()[-1]]), max_skipped=0.5)
    assert (splits.labels, len(splits.skipped["train"])) == (["cat", "dog"], 9)


def test_files_of_a_clone_lie_in_its_folder(tmp_path: Path) -> None:
    photos = tiny.photos(tmp_path / "pets" / "images", n=10, splits=())
    secret = tmp_path / "secret.png"
    Image.new("RGB", (40, 40)).save(secret)
    (photos / "link.png").symlink_to(secret)
    inside = [f"images/{name}/{i:03d}.jpg" for i in range(10) for name in ("cat", "dog")]
    outside = [
        str(secret),
        "../secret.png",
        "images/link.png",
        f"file://{secret}",
        "http://127.0.0.1:9/a.png",
        "images/none.jpg",
    ]
    rows = [{"bytes": None, "path": path} for path in [*inside, str(photos / "cat" / "000.jpg"), *outside]]
    written = parquet(tmp_path / "made", rows) / "train.parquet"
    written.rename(tmp_path / "pets" / "train.parquet")
    splits = load(tmp_path / "pets", max_skipped=0.5)
    assert sum(len(splits[name]) for name in SPLITS) == 21
    assert [why.partition(": ")[2].partition(" ")[0] for _, why in splits.skipped["train"]] == [
        "it",
        "it",
        "it",
        "its",
        "its",
        "no",
    ]
    assert {Path(row["image"]["path"]).suffix for row in splits.train} == {".jpg"}
    read_image(splits.train[0]["image"])
    assert min(splits.train["size"]) > 100


def test_a_parquet_without_a_description_names_files_of_its_folder(tmp_path: Path) -> None:
    """A program, perhaps somebody else's, wrote a path next to a place for bytes. A plain path is the user's own."""
    import pyarrow
    import pyarrow.parquet

    photos = tiny.photos(tmp_path / "pets" / "images", n=5, splits=())
    secret = tmp_path / "secret.png"
    Image.new("RGB", (40, 40)).save(secret)
    (photos / "link.png").symlink_to(secret)
    path = tmp_path / "pets" / "all.parquet"
    inside = [str(photos / "cat" / "000.jpg")]
    inside += [f"images/{name}/{i:03d}.jpg" for i in range(5) for name in ("cat", "dog")]
    outside = [str(secret), "../secret.png", "images/link.png"]

    def write(images: list[Any]) -> None:
        labels = [name for _ in images for name in ("a", "b")][: len(images)]
        pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": labels}), path)

    for given in (path, path.parent):
        write([{"bytes": None, "path": one} for one in [*inside, *outside, "..\\secret.png", "images/none.jpg"]])
        assert format_name(given) == "table"
        splits = load(given)
        assert sum(len(splits[name]) for name in SPLITS) == len(inside)
        *whys, missing = [why.partition(": ")[2] for _, why in splits.skipped["train"]]
        assert len(whys) == 4
        assert all(why.startswith("image: it names the file") and why.endswith("not opened") for why in whys)
        assert missing.startswith("no such file: images/none.jpg")
        write([*inside, *outside])
        assert not load(given).skipped["train"]


@pytest.mark.parametrize("parted", [True, False])
def test_what_save_to_disk_wrote(parted: bool, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["emu", "cat"])})

    def part(n: int) -> Dataset:
        rows = {"image": [{"bytes": jpeg(i), "path": None} for i in range(n)], "label": [i % 2 for i in range(n)]}
        return Dataset.from_dict(rows, features=features)

    folder = tmp_path / "saved"
    (DatasetDict(train=part(20), test=part(8)) if parted else part(20)).save_to_disk(folder)
    splits = load(folder)
    assert splits.labels == ["emu", "cat"]
    assert [len(splits[name]) for name in SPLITS] == ([18, 2, 8] if parted else [16, 2, 2])
    state = (folder / "train" if parted else folder) / "state.json"
    about = json.loads(state.read_text())
    about["_data_files"][0]["filename"] = "../../other.arrow"
    state.write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"names the file '\.\./\.\./other\.arrow', which is not in its folder"):
        load(folder)
    state.write_text("{")
    with pytest.raises(DataError, match=r"state\.json: cannot be read as what save_to_disk writes"):
        load(folder)


def saved(folder: Path, text: str, *splits: str) -> Path:
    from datasets import Dataset, DatasetDict

    images = [{"bytes": jpeg(i), "path": None} for i in range(20)]
    data = Dataset.from_dict({"image": images, "label": [i % 2 for i in range(20)]}, features=features(text))
    (DatasetDict(dict.fromkeys(splits, data)) if splits else data).save_to_disk(folder)
    return folder


def features(text: str) -> Any:
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    return Features({"image": ImageFeature(), "label": ClassLabel(names=[f"{text}0", f"{text}1"])})


@pytest.mark.parametrize("name", ["../private", "{private}", "link", "..", ".", "train/../../private", "", 3])
def test_a_saved_data_set_names_its_own_splits_only(name: Any, tmp_path: Path) -> None:
    private, folder = saved(tmp_path / "private", "secret"), saved(tmp_path / "saved", "own", "train")
    (folder / "link").symlink_to(private)
    assert load(folder).labels == ["own0", "own1"]
    name = name.format(private=private) if isinstance(name, str) else name
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", name]}))
    with pytest.raises(DataError, match=r"dataset_dict\.json: names the split .*, which is no folder in .*: not read"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"splits": "train"}', '{"splits": {"train": 1}}'])
def test_a_list_of_splits_that_is_none(text: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", "own", "train")
    (folder / "dataset_dict.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset_dict\.json: .*: save the data set again"):
        load(folder)


@pytest.mark.parametrize("key", ["_data_files", "_indices_data_files"])
@pytest.mark.parametrize("name", ["../../private/data-00000-of-00001.arrow", "link.arrow", 3])
@pytest.mark.parametrize("split", ["train", ".hidden"])
def test_a_saved_data_set_names_its_own_files_only(key: str, name: Any, split: str, tmp_path: Path) -> None:
    private, folder = saved(tmp_path / "private", "secret"), saved(tmp_path / "saved", "own", split)
    (folder / split / "link.arrow").symlink_to(private / "data-00000-of-00001.arrow")
    state = folder / split / "state.json"
    about = json.loads(state.read_text())
    about[key] = [*about.get(key, []), {"filename": name}]
    state.write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"state\.json: names the file .*, which is not in its folder: not read"):
        load(folder)
