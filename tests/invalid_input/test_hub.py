"""A hub that refuses or does not answer, and unusable data on it: an error of a line or two that names their ids."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.invalid_input.test_models import pickled
from tests.support import tiny
from tests.support.command import graft, refused
from tests.support.hub import OTHER_TOKEN, HubServer, hub  # noqa: F401 (a fixture)
from tests.support.invalid_inputs import World, a_right_world, a_world, photo  # noqa: F401 (fixtures)


@pytest.fixture
def filled(hub: HubServer, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one correct model and data set, and several incorrect ones. Retries do not wait."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.add_model("tester/vit", world.vit)
    hub.add_dataset("tester/pets", tiny.dataset_repo(world.tmp / "pets", n=6))
    yield hub
    assert not hub.unknown


def other(name: str, **flags: bool) -> Any:
    """A model of another user, gated or private."""
    return lambda server, world: server.add_model(name, world.vit, **flags)


def dataset(name: str, file: str, content: bytes, **flags: bool) -> Any:
    """A data set of one file."""

    def add(server: HubServer, world: World) -> None:
        path = world.tmp / name / file
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        server.add_dataset(name, world.tmp / name, **flags)

    return add


SCRIPT = b"open('ran', 'w')"


def bad_pickle(server: HubServer, world: World) -> None:
    server.add_model("tester/pickle", pickled(world))


def failing(server: HubServer, world: World) -> None:
    server.fail_next(99, 500, "/tester/vit")


# what is wrong -> (what the hub then holds, model or data, override, exit code, words that the error must contain)
HUB: dict[str, tuple[Any, str, str, int, list[str]]] = {
    "no such model": (None, "model=tester/vti", "", 2, ["no model 'tester/vti' on the hub"]),
    "no model's name": (None, "model=a model!", "", 2, ["no folder 'a model!' here", "is no hub id (owner/name)"]),
    "no such revision of a model": (
        None,
        "model=tester/vit",
        "model.revision=v9",
        2,
        ["tester/vit", "no revision 'v9'"],
    ),
    "a gated model": (
        other("stranger/gated", gated=True),
        "model=stranger/gated",
        "",
        2,
        ["is gated", "hf auth login"],
    ),
    "a private model": (
        other("stranger/mine", private=True),
        "model=stranger/mine",
        "",
        2,
        ["no model 'stranger/mine'"],
    ),
    "a pickle": (bad_pickle, "model=tester/pickle", "", 2, ["tester/pickle: ", "is not run"]),
    "a failing hub": (failing, "model=tester/vit", "", 1, ["the hub fails at tester/vit", "500"]),
    "no such data": (
        None,
        "data=tester/pest",
        "",
        2,
        ["no data set 'tester/pest' on the hub", "no such file or folder here"],
    ),
    "no data set's name": (None, "data=my pets", "", 2, ["no file or folder 'my pets' here", "is no hub id"]),
    "no such revision of data": (
        None,
        "data=tester/pets",
        "data.revision=v9",
        2,
        ["data.revision", "no revision 'v9'"],
    ),
    "no such configuration": (None, "data=tester/pets", "data.config=small", 2, ["data.config", "default", "small"]),
    "no such split": (None, "data=tester/pets", "data.validation=dev", 2, ["data.validation", "'dev'", "train, test"]),
    "no such column": (None, "data=tester/pets", "data.columns.label=kind", 2, ["no column 'kind'", "image, label"]),
    "no group column": (None, "data=tester/pets", "data.group=who", 2, ["data.group", "'who'", "image, label"]),
    "a loading script": (
        dataset("tester/script", "script.py", SCRIPT),
        "data=tester/script",
        "",
        2,
        ["tester/script", "script"],
    ),
    "a readme alone": (
        dataset("tester/bare", "README.md", b"hi"),
        "data=tester/bare",
        "",
        2,
        ["tester/bare", "no data"],
    ),
    "no images": (
        dataset("tester/names", "train.csv", b"image,label\na.jpg,cat\n"),
        "data=tester/names",
        "",
        2,
        ["'image'", "no images"],
    ),
    "a broken file": (
        dataset("tester/rot", "train.parquet", b"PAR1?"),
        "data=tester/rot",
        "",
        2,
        ["tester/rot", "Parquet"],
    ),
    "gated data": (dataset("stranger/shut", "train.csv", b"a", gated=True), "data=stranger/shut", "", 2, ["is gated"]),
}


@pytest.mark.parametrize("name", HUB)
def test_wrong_on_the_hub(name: str, filled: HubServer, world: World) -> None:
    prepare, source, override, code, words = HUB[name]
    if prepare is not None:
        prepare(filled, world)
    which, _, hub_id = source.partition("=")
    done = world.graft("check", *([override] if override else []), **{which: hub_id})
    error = refused(done, code, *words)
    assert "snapshots" not in error  # a path in the cache, which a user does not know
    assert not (world.tmp / "ran").exists()
    assert not Path("ran").exists()


def test_the_hub_is_down(filled: HubServer, world: World) -> None:
    right = world.graft("check", data="tester/pets", model="tester/vit")
    assert right.code == 0, right.err
    with filled.offline():
        refused(world.graft("check", model="tester/other"), 1, "cannot be reached", "tester/other", "network")
        refused(world.graft("check", data="tester/other"), 1, "tester/other", "cannot be reached", "network")
        cached = world.graft(
            "check", data="tester/pets", model="tester/vit"
        )  # a file that was downloaded before is still used, and the command reports this
    assert cached.code == 0, cached.err
    assert "data set tester/pets comes from the cache" in cached.err
    assert "tester/vit comes from the cache" in cached.err


def test_labels_of_hub_data(filled: HubServer, world: World) -> None:
    """Numbers become the data set's names. -1 and missing values are no labels. Of lists, each part is named."""
    from datasets import ClassLabel, Dataset, Features, Image, List

    from pipelines.config.recipe import DataSection
    from pipelines.data.loading import load_splits
    from pipelines.data.schema import DataSpec

    content, kinds = photo(world.photos).read_bytes(), ClassLabel(names=["emu", "cat", "dog"])
    for name, label, values in (
        ("single", kinds, [2, 1, -1, None] + [1, 2] * 9),
        ("lists", List(kinds), [[1, 2], [], [2]] * 8),
    ):
        # each row differs
        photos = [{"path": None, "bytes": content + bytes([number])} for number in range(len(values))]
        rows = Dataset.from_dict({"photo": photos, "kind": values}, Features({"photo": Image(), "kind": label}))
        (world.tmp / name / "data").mkdir(parents=True)
        rows.to_parquet(world.tmp / name / "data" / "train-00000-of-00001.parquet")
        filled.add_dataset(f"tester/{name}", world.tmp / name)
    section = DataSection(id="tester/single", columns={"label": "kind"})
    splits = load_splits(section, DataSpec(("image", "label")))
    assert splits.labels == ["cat", "dog"]
    assert [id_ for id_, _ in splits.skipped["train"]] == ["train/2", "train/3"]
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 20
    several = load_splits(
        DataSection(id="tester/lists", columns={"label": "kind"}), DataSpec(("image", "label"), label_kind="classes")
    )
    assert several.train["label"][:3] == [["cat", "dog"], [], ["dog"]] or several.labels == ["cat", "dog"]


def test_publishing_without_right(filled: HubServer, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.graft("train").code == 0
    run = world.tmp / "run"
    refused(graft("publish", run, "stranger/pets"), 1, "no right to write to stranger/pets", "tester/")
    filled.add_model("tester/other", shutil.copytree(world.vit, world.tmp / "other"))
    refused(graft("publish", run, "tester/other"), 1, "tester/other holds what Graft did not publish", "another name")
    refused(graft("publish", run, "pets"), 1, "'pets'", "OWNER/NAME")
    with filled.offline():
        refused(graft("publish", run, "tester/new"), 1, "cannot be reached")
    for token, words in ((OTHER_TOKEN, ["no right"]), ("hf_wrong", ["does not accept the token", "hf auth login"])):
        monkeypatch.setenv("HF_TOKEN", token)
        refused(graft("publish", run, "tester/new"), 1, *words)
    monkeypatch.delenv("HF_TOKEN")
    refused(graft("publish", run, "tester/new"), 1, "no token", "nothing was published")
    assert ("model", "tester/new") not in filled.repos
    monkeypatch.setenv("HF_TOKEN", filled.settings["HF_TOKEN"])
    assert graft("publish", run, "tester/new").code == 0  # the hub still works for the correct model
    refused(graft("evaluate", "tester/new"), 2, "tester/new", "not on the hub", "--data")
