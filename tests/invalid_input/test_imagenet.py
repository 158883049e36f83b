"""ImageNet's tree with lists that are missing, wrong or written to do harm.

Every case begins with a tree that is right, and spoils it.
"""

import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec, Splits
from pipelines.errors import DataError
from tests.support import tiny_imagenet as tiny

Change = Callable[[Path], object]
TRUTH, META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
TOP = "ILSVRC/Data/CLS-LOC"


def load(folder: Path) -> Splits:
    return load_splits(DataSection(id=str(folder), test="validation"), DataSpec(("image", "label")))


def put(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def added(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + content)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data


def mat(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = element(14, data)
    return data


ERRORS: dict[str, tuple[str, Change, str]] = {
    "no ground truth": (
        "kaggle",
        lambda folder: (folder / "LOC_val_solution.csv").unlink(),
        r"CLS-LOC/val: images in no class folders, and no list of their classes: put LOC_val_solution.csv",
    ),
    "no meta.mat": (
        "devkit",
        lambda folder: (folder / META).unlink(),
        r"its numbers are ILSVRC2012_ID, which are in another order than the classes: put meta.mat",
    ),
    "number beyond": ("devkit", added(TRUTH, "1001\n"), rf"{TRUTH}:9: '1001' is no ILSVRC2012_ID of meta.mat"),
    "number of a class above": ("devkit", added(TRUTH, "5\n"), rf"{TRUTH}:9: '5' is no ILSVRC2012_ID"),
    "number zero": ("devkit", added(TRUTH, "0\n"), r"'0' is no ILSVRC2012_ID"),
    "text for a number": ("devkit", added(TRUTH, "tench\n"), r"'tench' is no ILSVRC2012_ID"),
    "meta.mat is text": ("devkit", put(META, "hello"), r"meta.mat: no meta.mat of ImageNet's .*: no file of MATLAB 5"),
    "meta.mat is cut off": ("devkit", lambda f: put(META, (f / META).read_bytes()[:200])(f), r"meta.mat: .*cut off"),
    "meta.mat unpacks to 100 MB": (
        "devkit",
        put(META, mat(element(15, zlib.compress(bytes(100 << 20))))),
        r"it unpacks to more than 64 MB",
    ),
    "meta.mat is nested": ("devkit", put(META, mat(nested(5000))), r"structures within structures without end"),
    "meta.mat is packed and nested": (
        "devkit",
        put(META, mat(element(15, zlib.compress(nested(5000))))),
        r"structures within structures without end",
    ),
    "meta.mat without classes": ("devkit", put(META, mat()), r"no meta.mat of ImageNet's development kit"),
    "synset twice": ("kaggle", added("LOC_synset_mapping.txt", "n01440764 x\n"), r"mapping.txt:5: n01440764 a second"),
    "no synset": ("kaggle", added("LOC_synset_mapping.txt", "tench x\n"), r"'tench' is no synset such as n01440764"),
    "long name": ("kaggle", added("LOC_synset_mapping.txt", "n00000001 " + "x" * 400), r"a name of 400 characters"),
    "not UTF-8": ("kaggle", put("LOC_synset_mapping.txt", b"n01440764 \xff\n"), r"not UTF-8 text"),
    "folder of an unknown synset": (
        "kaggle",
        lambda folder: (folder / TOP / "train/n99999999").mkdir(),
        r"n99999999 is no class of LOC_synset_mapping.txt: take it out",
    ),
    "class of no name": (
        "kaggle",
        lambda folder: tiny.picture(folder / "ILSVRC/Data/CLS-LOC/train/n99999999/1.JPEG", 0),
        r"n99999999 is no class of LOC_synset_mapping.txt",
    ),
    "solution without a synset": ("kaggle", added("LOC_val_solution.csv", "x,7\n"), r"'7' does not begin with a syn"),
    "solution with other columns": ("kaggle", put("LOC_val_solution.csv", "a,b\n1,2\n"), r"no column 'ImageId'"),
    "empty class folder": (
        "plain",
        lambda folder: [path.unlink() for path in (folder / "train/n01440764").iterdir()],
        r"train/n01440764: an empty class folder: add images, or remove it",
    ),
    "only test": (
        "kaggle",
        lambda folder: [shutil.rmtree(folder / TOP / name) for name in ("train", "val")],
        r"only images of test, which have no labels",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(tmp_path: Path, case: str) -> None:
    form, change, why = ERRORS[case]
    folder = tiny.tree(tmp_path, form)
    change(folder)
    with pytest.raises(DataError) as error:
        load_splits(
            DataSection(id=str(folder), format="imagenet", test=None if case == "only test" else "validation"),
            DataSpec(("image", "label")),
        )
    assert re.search(why, str(error.value)), str(error.value)
    assert len(str(error.value)) < 500


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">]><annotation><object><name>&b;</name></object></annotation>'
SKIPPED: dict[str, tuple[str, Change, str]] = {
    "image without a class": ("kaggle", lambda f: tiny.picture(f / TOP / "val/x.JPEG", 0), "LOC_val_solution.csv does"),
    "empty file": ("kaggle", put(f"{TOP}/val/{tiny.val(1)}.JPEG", ""), "empty file"),
    "XML with entities": (
        "xml",
        lambda folder: tiny.annotation(folder, 1, "").write_text(BOMB),
        "has a DOCTYPE or is UTF-16, which are not read",
    ),
    "XML that is cut off": (
        "xml",
        lambda folder: tiny.annotation(folder, 1, "").write_text("<annotation><obj"),
        "is no complete XML",
    ),
    "two classes": (
        "xml",
        lambda f: tiny.annotation(f, 1, "".join(f"<object><name>{s}</name></object>" for s in tiny.SYNSETS)),
        "does not name one synset",
    ),
    "no object": ("xml", lambda folder: tiny.annotation(folder, 1, ""), "does not name one synset"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_images_that_are_skipped(tmp_path: Path, case: str) -> None:
    form, change, why = SKIPPED[case]
    folder = tiny.tree(tmp_path, form)
    change(folder)
    splits = load(folder)
    ((id_, said),) = splits.skipped["test"]
    assert id_.startswith(f"{TOP}/val/")
    assert why in said
    assert len(splits.test) == tiny.VAL - (0 if case == "image without a class" else 1)


def test_folders_that_are_no_synsets_are_counted(tmp_path: Path) -> None:
    folder = tiny.tree(tmp_path, "plain")
    tiny.picture(folder / "train/more/1.jpg", 0)
    tiny.picture(folder / "train/2.jpg", 0)
    splits = load_splits(
        DataSection(id=str(folder), format="imagenet", test="validation"), DataSpec(("image", "label"))
    )
    assert splits.ignored == {"files in folders that are not called by a synset": 1}
    assert [why.rpartition(": ")[2] for _, why in splits.skipped["train"]] == ["in no class folder"]
