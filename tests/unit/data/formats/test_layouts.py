"""Folders that only look like classes, files that cannot be read, tables among folders: read correctly, or reported."""

import json
import logging
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.filtering import Skips
from pipelines.data.image.reading import LabelledImages
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.errors import DataError
from tests.support import tiny, tiny_audio
from tests.support.tiny_audio_sets import files

LABEL, IMAGE, SOUND = DataSpec(("image", "label")), DataSpec(("image",)), DataSpec(("audio", "label"))
HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEMiPrmiafheic" + b"\0" * 400
M4A = (32).to_bytes(4, "big") + b"ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0" + (8).to_bytes(4, "big") + b"mdat" + bytes(400)


def load(folder: Path, needs: DataSpec = LABEL, **section: object) -> Splits:
    return load_splits(DataSection.model_validate({"id": str(folder), **section}), needs)


def classes(folder: Path, n: int = 4, names: tuple[str, ...] = ("forest", "sea")) -> Path:
    return tiny.photos(folder, names, n, splits=(), size=8)


def loose(folder: Path, n: int = 3, name: str = "{}.jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name.format(number))
    return folder


# ---- splits ----


@pytest.mark.parametrize(
    ("train", "other", "role"),
    [
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("training_set", "test_set", "test"),
        ("imagenet-train", "imagenet-val", "validation"),
        ("TrainImages", "ValidImages", "validation"),
        ("trainset", "testset", "test"),
        ("train/train", "test", "test"),
        ("train", "test/Test", "test"),
    ],
)
def test_split_folders_by_other_names(train: str, other: str, role: str, tmp_path: Path) -> None:
    classes(tmp_path / train, 10)
    classes(tmp_path / other, 3)
    loose(tmp_path / "seg_pred" / "seg_pred")
    splits = load(tmp_path)
    assert splits.labels == ["forest", "sea"]
    assert len(splits[role]) == 6
    assert sum(len(splits[name]) for name in SPLITS) == 26
    assert splits.ignored == {"images in seg_pred, which holds no class folders": 3}
    assert all(row["id"].startswith(other) for row in splits[role])
    assert len(load(tmp_path, IMAGE)[role]) == 6  # without labels, too


def test_train_alone_without_class_folders(tmp_path: Path) -> None:
    loose(tmp_path / "train", 6, "cat.{}.jpg")
    with pytest.raises(
        DataError, match=r"train is a split, and holds images without class folders \(train/cat\.0\.jpg\)"
    ):
        load(tmp_path)


def test_a_list_that_no_format_knows(tmp_path: Path) -> None:
    loose(tmp_path / "train")
    (tmp_path / "train" / "_classes.csv").write_text("filename,cat\n0.jpg,1\n")
    with pytest.raises(DataError, match=r"no table .* is read as a list of images \(there is train/_classes\.csv\)"):
        load(tmp_path, columns={"image": "filename"})


def test_texts_whose_names_a_mac_has_written(tmp_path: Path) -> None:
    """The same accent as one character in the image's name, and as two in the text's."""
    for number in range(12):
        (tmp_path / unicodedata.normalize("NFD", f"caf\u00e9 {number}.txt")).write_text(f"text {number}")
    loose(tmp_path, 12, "caf\u00e9 {}.jpg")
    splits = load(tmp_path, DataSpec({"image": "image", "text": "text"}))
    assert {row["text"] for name in SPLITS for row in splits[name]} == {f"text {n}" for n in range(12)}


def test_a_folder_around_the_splits(tmp_path: Path) -> None:
    tiny.photos(tmp_path / "pets" / "archive", n=4, size=8)
    assert [len(load(tmp_path / "pets")[name]) for name in SPLITS] == [8, 8, 8]
    classes(tmp_path / "PetImages" / "PetImages", 10)
    assert load(tmp_path / "PetImages").labels == ["forest", "sea"]
    classes(tmp_path / "one" / "forest", 5, ("monday", "tuesday"))  # a class whose photos are in deeper folders
    classes(tmp_path / "one" / "sea", 5, ("sunday",))
    assert load(tmp_path / "one").labels == ["forest", "sea"]


def test_the_recipe_names_split_folders(tmp_path: Path) -> None:
    for name in ("seg_a", "seg_b"):
        classes(tmp_path / name / name, 6)
    shutil.copytree(tmp_path / "seg_a" / "seg_a", tmp_path / "plain" / "first")
    shutil.copytree(tmp_path / "seg_b" / "seg_b", tmp_path / "plain" / "second")
    with pytest.raises(DataError, match=r"first, second all hold the same folders \(forest, sea\).*data\.train=first"):
        load(tmp_path / "plain")
    for folder, (train, test) in {"plain": ("first", "second"), ".": ("seg_a", "seg_b")}.items():
        splits = load(tmp_path / folder, train=train, test=test)
        assert (splits.labels, splits.source["test"], len(splits.test)) == (["forest", "sea"], test, 12)


@pytest.mark.parametrize(
    ("train", "others", "splits"),
    [
        ("train", ["test"], "test, train"),
        ("train", ["test1"], "test1, train"),
        ("training", ["validation", "evaluation"], "evaluation, training, validation"),
        ("train", ["test", "unlabelled"], "test, train"),
        ("train", ["test", "holdout"], "holdout, test, train"),
        ("train", ["test", "cats"], "test, train"),
        ("x_train", ["x_valid", "extra"], "x_train, x_valid"),
    ],
)
def test_flat_split_folders_hold_no_classes(train: str, others: list[str], splits: str, tmp_path: Path) -> None:
    loose(tmp_path / train, 6, "cat.{}.jpg")
    for name in others:
        loose(tmp_path / name)
    with pytest.raises(
        DataError,
        match=rf": {splits} are splits, .* without class folders \({train}/cat\.0\.jpg\).*columns image and label",
    ):
        load(tmp_path)
    assert len(load(tmp_path, IMAGE, train=train).train) > 0


def test_splits_of_other_classes_are_no_classes(tmp_path: Path) -> None:
    classes(tmp_path / "x_train", 4, ("a", "b"))
    for name, held in (("c", "c, d"), ("flat", "none")):
        folder = tmp_path / "x_test"
        if name == "c":
            classes(folder, 4, ("c", "d"))
        else:
            loose(folder)
        with pytest.raises(DataError, match=rf"x_test, x_train are called like .*\(x_test: {held}; x_train: a, b\)"):
            load(tmp_path)
        shutil.rmtree(folder)
    assert load(tmp_path / "x_train").labels == ["a", "b"]


@pytest.mark.parametrize("test", ["evaluation", "holdout", "Evaluation"])
def test_further_names_of_test(test: str, tmp_path: Path) -> None:
    for name in ("training", "validation", test):
        classes(tmp_path / name)
    splits = load(tmp_path)
    assert (splits.labels, splits.source["test"]) == (["forest", "sea"], test)


def test_classes_called_like_splits(tmp_path: Path) -> None:
    """`train` may be a class among others, and so may folders whose names contain the word."""
    for names in (("train", "bus"), ("train_station", "bus_station"), ("test", "bus"), ("validation", "test")):
        folder = classes(tmp_path / "_".join(names), 5, names)
        assert load(folder).labels == sorted(names)


def test_names_that_look_alike_are_one_class(tmp_path: Path) -> None:
    """A Mac writes accents in another form, and blanks at the end of a name cannot be seen."""
    one, other = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    classes(tmp_path / "train", 6, (one, "sea"))
    classes(tmp_path / "test", 6, (other, "sea "))
    splits = load(tmp_path)
    assert splits.labels == [one, "sea"]
    assert set(splits.test["label"]) == {one, "sea"}
    (tmp_path / "rows.csv").write_text(
        f"image,label\n{''.join(f'test/{one}/{n:03d}.jpg,x{n % 2}' + chr(10) for n in range(6))}"
    )
    assert sum(len(load(tmp_path / "rows.csv")[name]) for name in SPLITS) == 6


def test_linked_folders_and_a_clone_of_class_folders(tmp_path: Path) -> None:
    folder = classes(tmp_path / "clone" / "data", 5)
    (tmp_path / "clone" / "README.md").write_text("# photos\n")
    splits = load(tmp_path / "clone")
    assert (splits.labels, splits.ignored) == (["forest", "sea"], {".md files": 1})
    (tmp_path / "links").mkdir()
    for name in ("forest", "sea"):
        (tmp_path / "links" / name).symlink_to(folder / name)
    (folder / "sea" / "up").symlink_to(tmp_path / "links")  # leads back
    (folder / "sea" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    linked = load(tmp_path / "links")
    assert linked.labels == ["forest", "sea"]
    assert [why.rpartition(": ")[2] for _, why in linked.skipped["train"]] == ["No such file or directory"]


def test_paths_from_the_folder_above(tmp_path: Path) -> None:
    folder = classes(tmp_path / "photos", 5)
    rows = "".join(f"photos/sea/{number:03d}.jpg,x\n" for number in range(5))
    (folder / "rows.csv").write_text(f"image,label\n{rows}")
    with pytest.raises(DataError, match=r"\(/.*photos/photos/sea/000\.jpg\); it is there from the folder above: write"):
        load(folder / "rows.csv")


# ---- files that cannot be read ----


def damaged(path: Path) -> None:
    path.write_bytes(b"no image at all")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def unread(path: Path) -> None:
    path.unlink()
    path.with_suffix(".JXL").write_bytes(b"\xff\x0a")


def recording(path: Path) -> None:
    path.unlink()
    files(path.parent, [f"{path.stem}.wav"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damaged, r"000\.jpg, 001\.jpg, 002\.jpg and 2 more\): not a readable image"),
        (empty, "empty file"),
        (unread, r"000\.JXL.*JXL images cannot be read: convert them"),
        (recording, r"000\.wav.*no image but a recording"),
    ],
)
def test_a_class_without_a_readable_file(spoil: object, words: str, tmp_path: Path) -> None:
    folder = classes(tmp_path, 5, ("bird", "cat", "dog"))
    for path in sorted((folder / "bird").iterdir()):
        spoil(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"{folder}/bird: no image of this class can be read \(.*{words}"):
        load(folder)
    shutil.rmtree(folder / "bird")
    assert load(folder).labels == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "metadata", "beside folders", "split"])
def test_a_class_without_a_file_in_a_table(kind: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    classes(tmp_path / "all", 10, ("a", "b"))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    rows = [{"image": name, "label": name[4:5]} for name in names]
    lost = [{"image": f"all/a/none{number}.jpg", "label": " c "} for number in range(3)]
    path = tmp_path / {"metadata": "metadata.csv", "split": "train.csv"}.get(kind, f"labels.{kind.split()[0]}")
    path = tmp_path / "labels.csv" if kind == "beside folders" else path

    def put(rows: list[dict[str, str]]) -> Path:
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            column = "file_name" if kind == "metadata" else "image"
            path.write_text(f"{column},label\n" + "".join(f"{row['image']},{row['label']}\n" for row in rows))
        return path if kind in ("csv", "jsonl", "parquet") else tmp_path

    if kind == "split":  # a class that only a test split has is not learned
        (tmp_path / "test.csv").write_text("image,label\nnone.jpg,d\nall/a/000.jpg,a\n")
        rows = [row for row in rows if row["image"] != "all/a/000.jpg"]
    words = r"no row of the class 'c' can be used; the first: .*no such file: all/a/none0\.jpg"
    with pytest.raises(DataError, match=words):
        load(put([*rows, *lost]))
    splits = load(put([*rows, *lost[:2], {"image": "all/a/001.jpg", "label": "c"}]))
    assert (splits.labels, len(splits.skipped["train"])) == (["a", "b", "c"], 2)
    for needs in (
        DataSpec(("image", "label"), label_kind="number"),
        DataSpec(("image", "label"), label_kind="classes"),
    ):
        rest = load(put([*rows, *lost]), needs)
        assert len(rest.skipped["train"]) == 3


def test_a_class_of_texts_that_are_all_empty(tmp_path: Path) -> None:

    from pipelines.tasks.text_classification import TextClassification

    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)) + ",c\n,c\n")
    with pytest.raises(DataError, match=r"a\.csv: no row of the class 'c' can be used; the first: a\.csv:22: "):
        load(path, TextClassification().data)


def test_a_folder_without_media_is_no_class(tmp_path: Path) -> None:
    folder = classes(tmp_path, 5)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "1.xml").write_text("<a/>")
    splits = load(folder)
    assert (splits.labels, splits.ignored) == (["forest", "sea"], {".xml files": 1})


def test_files_of_another_kind_count(tmp_path: Path) -> None:
    """They count as rows that cannot be read: a few are reported by name, many are an error."""
    folder = classes(tmp_path / "photos", 10)
    (folder / "sea" / "a.jxl").write_bytes(HEIC)
    (folder / "sea" / "b.mov.m4a").write_bytes(M4A)
    files(folder, ["sea/c.wav", "sea/000.wav"])  # one of them has the name of an image
    splits = load(folder)
    assert splits.ignored == {".wav files": 1}
    whys = [why.removeprefix(f"{folder}/sea/") for _, why in splits.skipped["train"]]
    assert whys[1:] == ["b.mov.m4a: no image but a recording", "c.wav: no image but a recording"]
    assert whys[0].startswith("a.jxl: JXL images cannot be read: convert them to JPEG or PNG, as with `magick")
    (folder / "sea" / "d.psd").write_bytes(HEIC)
    skipped = load(folder).skipped
    with pytest.raises(
        DataError, match=r"4 rows of train cannot be read, 3 of 20 may be.*a\.jxl: JXL images cannot be read"
    ):
        Skips(0.01, skipped, {"train": 20})
    sounds = files(tmp_path / "sounds", [f"{name}/{i}.wav" for name in ("a", "b") for i in range(10)])
    shutil.copy(folder / "sea" / "000.jpg", sounds / "a" / "cover.jpg")
    shutil.copy(folder / "sea" / "000.jpg", sounds / "a" / "0.jpg")  # its spectrogram
    (sounds / "a" / "x.ape").write_bytes(M4A)
    splits = load(sounds, SOUND)
    assert splits.ignored == {".jpg files": 1}
    advice = "ape recordings cannot be read: convert them, as with `ffmpeg -i x.ape x.wav`"
    assert [why.partition(": ")[2] for _, why in splits.skipped["train"]] == ["no recording but an image", advice]


@pytest.mark.parametrize("ending", ["m4a", "webm", "aac", "wma", "mp4"])
def test_recordings_that_need_pyav(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no", "yes"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.{ending}").write_bytes(M4A)
    with pytest.raises(DataError, match=r"/no: no recording of this class can be read .*: not readable audio"):
        load(tmp_path, SOUND)
    monkeypatch.setattr("pipelines.data.audio.reading.can_be_read", lambda: False)
    words = rf"/no: no recording .*: {ending} recordings need PyAV: pip install 'graft-pipelines\[audio-formats\]'; or"
    with pytest.raises(DataError, match=rf"{words} convert them, as with `ffmpeg -i x\.{ending} x\.wav`"):
        load(tmp_path, SOUND)


def test_pages_of_tiff_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = classes(tmp_path, 2)
    page = Image.new("RGB", (8, 8))
    page.save(folder / "sea" / "a.tif", save_all=True, append_images=[page, page])
    page.save(folder / "sea" / "b.tif")
    (folder / "sea" / "c.tif").write_bytes(b"II*\0")
    splits = load(folder)
    rows = splits.train
    with caplog.at_level(logging.WARNING, logger="graft"):
        for name in SPLITS:
            LabelledImages(splits[name], ["forest", "sea"], False)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, messages
    assert "have several pages; only the first is read, and 2 pages are not: a.tif" in messages[0]
    assert len(rows) == 5


# ---- tables among the folders ----


def test_the_users_own_table_goes_before_folder_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = classes(tmp_path, 10)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    (folder / "notes.csv").write_text("when,who\n1,me\n")
    ignored = {"the table notes.csv: it has no column 'image'": 1}
    assert (load(folder).labels, load(folder).ignored) == (["forest", "sea"], ignored)
    lines = "".join(f"{name},{'even' if int(Path(name).stem) % 2 == 0 else 'odd'}\n" for name in names[:-2])
    for header in ("image,label\n", "file_name,label\n"):
        (folder / "labels.csv").write_text(header + lines)
        splits = load(folder)
        assert splits.labels == ["even", "odd"]
        assert "labels.csv has the columns that this task needs" in caplog.text
        assert splits.ignored == {"images that labels.csv does not list": 2, **ignored}
    (folder / "labels.csv").write_text("picture,kind\n" + lines)
    assert load(folder).labels == ["forest", "sea"]
    assert load(folder, columns={"image": "picture", "label": "kind"}).labels == ["even", "odd"]
    (folder / "labels.csv").unlink()
    for name, part in (("train", names[:12]), ("test", names[12:])):
        (folder / f"{name}.csv").write_text(
            "image,label\n" + "".join(f"{one},{Path(one).stem[-1:] < '5'}\n" for one in part)
        )
    splits = load(folder)
    assert (splits.source["test"], splits.labels, len(splits.test)) == ("test", ["False", "True"], 8)


def test_a_path_from_the_wrong_folder_is_named_in_full(tmp_path: Path) -> None:
    folder = loose(tmp_path / "Images" / "train", 4)
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "train/{i}.jpg", "text": "a"}}\n' for i in range(4))
    )
    with pytest.raises(DataError, match=rf"no such file: train/0\.jpg .*{folder}/train/0\.jpg"):
        load(tmp_path / "Images", DataSpec(("image", "text")))
    table = tmp_path / "a.csv"
    table.write_text("image,label\nhttp://127.0.0.1:9/a.png,x\n")
    with pytest.raises(DataError, match=r"image is an address, 'http://127\.0\.0\.1:9/a\.png', which is not fetched"):
        load(table)


# ---- other files on a disk ----


def test_names_links_and_folders_that_cannot_be_read(tmp_path: Path) -> None:
    folder = classes(tmp_path / "a", 4)
    bad = Path(str(folder / "sea") + "/caf\udce9.jpg")
    bad.write_bytes((folder / "sea" / "000.jpg").read_bytes())
    (folder / "sea" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "sea" / "round.jpg").symlink_to(folder / "sea" / "round.jpg")
    (folder / "sea" / "up").symlink_to(folder)
    splits = load(folder)
    whys = sorted(why.rpartition(": ")[2] for _, why in splits.skipped["train"])
    assert whys == ["No such file or directory", "Too many levels of symbolic links", "its name is not UTF-8"]
    odd = Path(str(folder) + "/caf\udce9")
    odd.mkdir()
    (odd / "1.jpg").write_bytes((folder / "sea" / "000.jpg").read_bytes())
    with pytest.raises(DataError, match=r"caf.: no image of this class can be read \(1\.jpg\): its name is not UTF-8"):
        load(folder)
    for name in ("a" * 300, "x\0y", "~nobody-of-this-name/a"):
        with pytest.raises(DataError, match=r"data\.id"):
            load(Path(name))


def test_speech_with_texts_beside_it(tmp_path: Path) -> None:
    for number, text in enumerate(tiny_audio.sentences(12)):
        tiny_audio.write(tmp_path / f"{number:02d}.wav", tiny_audio.spoken(text, number))
        (tmp_path / f"{number:02d}.txt").write_text(text + "\n")
    (tmp_path / "11.txt").unlink()
    (tmp_path / "notes.txt").write_text("of nothing")
    splits = load(tmp_path, DataSpec(("audio", "text"), ("speaker",), group_column="speaker"))
    rows = {row["id"]: row["text"] for name in SPLITS for row in splits[name]}
    assert rows == {f"{number:02d}.wav": text for number, text in enumerate(tiny_audio.sentences(12)) if number < 11}
    assert splits.skipped["train"] == [("11.wav", "11.wav: no transcript 11.txt beside it")]
    assert splits.ignored == {"texts without a recording": 1}


def test_ljspeech(tmp_path: Path) -> None:
    files(tmp_path / "wavs", [f"LJ-{i}.wav" for i in range(14)])
    lines = [f"LJ-{i}|the {i}th|the word {i}" for i in range(10)]
    lines += [
        'LJ-10|"Yes," he said|"Yes, he said',
        "LJ-11|no third text|",
        "LJ-12|two cells",
        "LJ-0|again|again",
        "LJ-99|a|b",
        "LJ-13||",
        "x",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    needs = DataSpec(("audio", "text"), ("speaker",), group_column="speaker")
    for path in (tmp_path, tmp_path / "metadata.csv"):
        splits = load(path, needs)
        rows = {row["id"]: row["text"] for name in SPLITS for row in splits[name]}
        others = {"LJ-10": '"Yes, he said', "LJ-11": "no third text", "LJ-12": "two cells"}
        assert rows == {**{f"LJ-{i}": f"the word {i}" for i in range(10)}, **others}
        assert [why.partition(": ")[0] for _, why in splits.skipped["train"]] == [
            f"metadata.csv:{n}" for n in (14, 15, 16, 17)
        ]
        assert (splits.license, splits.ignored) == (None, {"recordings that metadata.csv does not list": 1})
    with pytest.raises(DataError, match=r"no column 'label' \(it has: audio, text\)"):
        load(tmp_path, SOUND)
    (tmp_path / "metadata.csv").write_text(
        "../../etc/passwd|a|b\nLJ-1|a|b\nLJ-2|a|b\n/LJ-3|a|b\nLJ-4|c|d\nLJ-5|c|d\n" + "y" * 300 + "|a|b\n"
    )
    assert sum(len(load(tmp_path, needs)[name]) for name in SPLITS) == 4


def test_a_hidden_class_is_counted(tmp_path: Path) -> None:
    photos = tiny.photos(tmp_path / "photos", ("cat", "bird", "dog"), n=10, splits=())
    (photos / "cat").rename(photos / ".cat")
    splits = load_splits(DataSection(id=str(photos)), DataSpec(("image", "label")))
    assert (splits.labels, splits.ignored) == (["bird", "dog"], {"images in the hidden folder .cat": 10})


def test_ones_own_table_of_recordings_called_like_spoken_digits(tmp_path: Path) -> None:
    from pipelines.data.loading import format_module

    names = [f"{digit}_george_{number}.wav" for digit in range(3) for number in range(4)]
    files(tmp_path, names)
    assert format_module(DataSection(id=str(tmp_path))).__name__.endswith(".spoken_digits")
    (tmp_path / "train.csv").write_text("audio,text\n" + "".join(f"{name},my own words\n" for name in names))
    splits = load_splits(DataSection(id=str(tmp_path)), DataSpec(("audio", "text")))
    assert set(splits.train["text"]) == {"my own words"}
