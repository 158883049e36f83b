"""What must not leave this machine: tokens, local paths, rows, unfinished runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import load_recipe
from pipelines.errors import GraftError, RunError
from pipelines.publishing.card import publish_as, write_card
from pipelines.publishing.privacy import list_export, model_files, own_files
from pipelines.publishing.publish import publish
from tests.support import tiny
from tests.support.fake_run import add_mistakes, fake_run
from tests.support.hub import TOKEN, HubServer, hub
from tests.support.publishing import REPO, finished, remote, run

__all__ = ["finished", "hub", "run"]

PLACES: dict[str, Callable[[Path], str]] = {
    "run": lambda run: str(run),
    "data": lambda run: f"{run.parent}/photos/cat/1.jpg",
    "here": lambda run: f"{Path.cwd()}/data",
    "home": lambda run: f"{Path.home()}/photos",
    "other home": lambda run: "/home/somebody/photos",
    "mac": lambda run: "/Users/somebody/photos",
    "windows": lambda run: r"C:\Users\somebody\photos",
    "url": lambda run: "file:///home/somebody/photos",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["README.md", "results.json", "recipe.yaml", "config.json"])
def test_no_local_path_goes_out(hub: HubServer, run: Path, place: str, name: str) -> None:
    text = PLACES[place](run)
    path = run / "model" / name
    write_card(run, REPO)
    extra = {"README.md": f"\nfrom `{text}`", "recipe.yaml": f"note: {json.dumps(text)}\n"}
    path.write_text(
        path.read_text() + extra[name] if name in extra else json.dumps(json.loads(path.read_text()) | {"note": text})
    )
    with pytest.raises(RunError, match=rf"{name}, line \d+: holds a path of this machine.*nothing was published"):
        publish(run, REPO)
    with pytest.raises(RunError, match="holds a path"):
        publish(run, REPO, dry_run=True)
    assert hub.asked == []


@pytest.mark.parametrize("secret", ["hf_" + "a1B2" * 9, TOKEN])
def test_no_token_goes_out(hub: HubServer, run: Path, secret: str) -> None:
    write_card(run, REPO)
    (run / "model" / "merges.txt").write_text(f"one\nlogin(token='{secret}')\n")
    with pytest.raises(RunError, match=r"merges.txt, line 2: holds an access token") as refused:
        publish(run, REPO)
    assert secret not in str(refused.value)
    assert hub.asked == []


@pytest.mark.parametrize(
    "harmless", ["https://example.org/home/somebody/x", "see /tmp", "hf_hub_download", "up/Users/x", "a /home page"]
)
def test_harmless_words_go_out(hub: HubServer, run: Path, harmless: str) -> None:
    write_card(run, REPO)
    (run / "model" / "merges.txt").write_text(harmless)
    publish(run, REPO, say=str)
    assert remote(hub)["merges.txt"].decode() == harmless


def test_rows_of_the_data_stay_at_home_unless_the_recipe_shares_them(hub: HubServer, tmp_path: Path) -> None:
    for shared in (0, 2):
        folder = fake_run(
            tmp_path / str(shared), pictures=False, examples=2, hub={"license": "mit", "examples": shared}
        )
        tiny.vit(folder / "model", labels=("cat", "dog"))
        write_card(folder, REPO)
        if shared:
            publish(folder, REPO, say=str)
            assert {"examples/examples.json", "examples/0.jpg", "examples/1.jpg"} <= set(remote(hub))
        else:
            with pytest.raises(RunError, match="examples: 0"):
                publish(folder, REPO)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("allowed", [0, 1])
def test_rows_of_the_card_stay_at_home_if_the_recipe_changes(
    hub: HubServer, tmp_path: Path, allowed: int, dry_run: bool
) -> None:
    """A card was written with hub.examples: 2, and then the user edits recipe.yaml of the run."""
    run = fake_run(tmp_path / "run", pictures=False, examples=2, hub={"license": "mit", "examples": 2})
    tiny.vit(run / "model", labels=("cat", "dog"))
    add_mistakes(run, ("the first row", "the second row"))
    assert "the second row" in write_card(run, REPO).read_text()
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("examples: 2", f"examples: {allowed}"))
    with pytest.raises(RunError, match=f"holds 2 rows of the data, but the recipe says `hub.examples: {allowed}`"):
        publish(run, REPO, dry_run=dry_run)
    shutil.rmtree(run / "model" / "examples")
    lines: list[str] = []
    publish(run, REPO, dry_run=dry_run, say=lines.append)
    assert f"written again: the recipe now says `hub.examples: {allowed}`" in lines[0]
    assert ("the first row" in (run / "model" / "README.md").read_text()) == bool(allowed)
    if not dry_run:
        sent = remote(hub)
        assert [name for name in sent if name.startswith(("mistakes/", "examples/"))] == ["mistakes/0.jpg"] * allowed
        assert b"the second row" not in sent["README.md"]
    publish(run, REPO, dry_run=True, say=lines.append)
    assert len([line for line in lines if "written again" in line]) == 1


def test_a_card_shows_no_more_examples_than_the_recipe_allows(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", pictures=False, examples=2, hub={"license": "mit", "examples": 1})
    assert "The folder `examples/` holds 1 row of this data." in write_card(run).read_text()
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("examples: 1", "examples: 0"))
    assert "examples/" not in write_card(run).read_text()


# ---- other files in model/ ----


def strays(run: Path) -> list[str]:
    """Put files that Graft did not write into model/, and return the expected messages."""
    model = run / "model"
    (model / ".env").write_text("SECRET=1")
    (model / "notes.txt").write_text("mine")
    (model / "model-old.safetensors").write_bytes(b"weights of something else")
    (model / "model-00001-of-00002.safetensors").write_bytes(b"a shard that no index names")
    (model / "config2.json").symlink_to("/etc/hostname")
    (model / "linked").symlink_to("/etc")
    (model / ".hidden").mkdir()
    (model / ".hidden" / "config.json").write_text("{}")
    (model / "backup").mkdir()
    (model / "backup" / "model.safetensors").write_bytes(b"old")
    (model / "figures").mkdir(exist_ok=True)
    (model / "figures" / "private.png").write_bytes(b"a figure that the card does not show")
    (model / "figures" / "outside.png").symlink_to("/etc/hostname")
    return [
        ".env: not written by Graft",
        ".hidden/: not written by Graft",
        "backup/: not written by Graft",
        "config2.json: a link",
        "figures/: not written by Graft",
        "linked: a link",
        "model-00001-of-00002.safetensors: not written by Graft",
        "model-old.safetensors: not written by Graft",
        "notes.txt: not written by Graft",
    ]


@pytest.mark.parametrize("listed", [True, False], ids=["a list of the export", "an older run"])
def test_what_graft_did_not_write_stays_at_home(hub: HubServer, run: Path, listed: bool) -> None:
    write_card(run, REPO)
    if listed:
        list_export(run, run / "model")
    publish(run, REPO, say=str)
    before = remote(hub)
    wanted = [f"left out   model/{line}" for line in strays(run)]
    for dry_run in (True, False):
        messages: list[str] = []
        report = publish(run, REPO, dry_run=dry_run, say=messages.append)
        assert [line for line in messages if line.startswith("left out")] == wanted
        assert set(report["model"]["uploaded"]) == (set(before) if dry_run else set())
    assert remote(hub) == before


def test_a_folder_of_graft_s_own_may_hold_strays_too(hub: HubServer, tmp_path: Path) -> None:
    """Examples that the list names and figures that the card shows are published, and no others."""
    folder = fake_run(tmp_path / "run", examples=2, hub={"license": "mit", "examples": 2})
    tiny.vit(folder / "model", labels=("cat", "dog"))
    write_card(folder, REPO)
    publish(folder, REPO, say=str)
    before = remote(hub)
    assert {"examples/examples.json", "examples/0.jpg", "examples/1.jpg"} <= before.keys()
    assert any(name.startswith("figures/") for name in before)
    (folder / "model" / "examples" / "9.jpg").write_bytes(b"another row")
    (folder / "model" / "figures" / "mistakes.png").write_bytes(b"rows of the data")
    (folder / "model" / "figures" / "outside.png").symlink_to("/etc/hostname")
    messages: list[str] = []
    publish(folder, REPO, say=messages.append)
    assert remote(hub) == before
    assert [line.split("model/")[1] for line in messages if line.startswith("left out")] == [
        "examples/9.jpg: not written by Graft",
        "figures/mistakes.png: not written by Graft",
        "figures/outside.png: a link",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md", "results.json"])
def test_a_link_in_the_place_of_a_file_is_refused(hub: HubServer, run: Path, tmp_path: Path, name: str) -> None:
    write_card(run, REPO)
    (run / "model" / name).rename(tmp_path / name)
    (run / "model" / name).symlink_to(tmp_path / name)
    with pytest.raises(RunError, match=rf"{name}: a link, and publish follows none: put the file itself there"):
        publish(run, REPO, dry_run=True)
    assert hub.asked == []


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../../s/private/state.json", "figures/../../log.jsonl", "..\\log.jsonl", "", 3]
)
def test_the_list_of_an_export_names_nothing_outside_of_the_model(hub: HubServer, run: Path, name: Any) -> None:
    write_card(run, REPO)
    list_export(run, run / "model")
    (run / "exported.json").write_text(json.dumps([*json.loads((run / "exported.json").read_text()), name]))
    with pytest.raises(RunError, match="is no path below model/") as error:
        publish(run, REPO, dry_run=True, say=str)
    assert str(run / "exported.json") in str(error.value)
    assert repr(name) in str(error.value)


def test_a_linked_folder_is_not_followed(run: Path, tmp_path: Path) -> None:
    examples = tmp_path / "elsewhere"
    examples.mkdir()
    (examples / "examples.json").write_text('[{"image": "0.jpg"}]')
    (examples / "0.jpg").write_bytes(b"elsewhere")
    (run / "model" / "examples").symlink_to(examples)
    with pytest.raises(RunError, match="examples: a link, and publish follows none"):
        own_files(run)


def test_a_damaged_list_of_examples_is_named(run: Path) -> None:
    (run / "model" / "examples").mkdir()
    (run / "model" / "examples" / "examples.json").write_text("[{")
    with pytest.raises(RunError, match=r"examples\.json: not JSON"):
        own_files(run)


def test_an_example_whose_text_is_a_path_brings_no_file(tmp_path: Path) -> None:
    """A run's hub section changes: its examples are copied. A row may be a text such as ../recipe.yaml."""
    folder = fake_run(tmp_path / "run", pictures=False, hub={"license": "mit", "examples": 1})
    (folder / "examples").mkdir()
    (folder / "secret.txt").write_text("mine")
    (folder / "examples" / "linked.jpg").symlink_to(folder / "secret.txt")
    (folder / "examples" / "examples.json").write_text(
        '[{"image": "../secret.txt", "label": "linked.jpg", "note": "/etc/hostname"}]'
    )
    publish_as(folder, load_recipe(folder / "recipe.yaml", ["hub.license=apache-2.0"]))
    assert [path.name for path in (folder / "model" / "examples").iterdir()] == ["examples.json"]
    assert not (folder / "model" / "secret.txt").exists()


# ---- unfinished runs ----


def gone(*names: str) -> Callable[[Path], Any]:
    def delete(run: Path) -> None:
        for name in names:
            (run / name).unlink()

    return delete


def rewrite(name: str, old: str, new: str) -> Callable[[Path], Any]:
    def edit(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (gone("recipe.yaml"), "no run folder"),
        (gone("model/model.safetensors"), "no weights.*graft train"),
        (gone("model/config.json"), "config.json missing.*graft train"),
        (gone("model/results.json", "model/recipe.yaml"), "recipe.yaml, results.json missing.*graft train"),
        (gone("model/README.md"), r"card .README.md. is missing: type `graft card .*run`"),
        (rewrite("model/recipe.yaml", "id: timm/oxford-iiit-pet", "id: ../photos"), "data.id is a local path"),
        (
            rewrite("model/config.json", '"model_type"', '"_name_or_path": "../weights/vit", "model_type"'),
            "_name_or_path is a local path",
        ),
    ],
)
def test_an_unfit_run_is_told_what_to_do(hub: HubServer, run: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(run)
    with pytest.raises(GraftError, match=message):
        publish(run, REPO)
    assert hub.asked == []


def test_an_adapter_needs_no_other_weights(run: Path) -> None:
    (run / "model" / "config.json").rename(run / "model" / "adapter_config.json")
    (run / "model" / "model.safetensors").rename(run / "model" / "adapter_model.safetensors")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(model_files(run))
