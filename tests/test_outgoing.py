"""What may leave this machine: no token, no local path, no rows, nothing unfinished."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.card import write_card
from pipelines.errors import GraftError, RunError
from pipelines.hub import publish
from pipelines.outgoing import model_files
from tests import tiny
from tests.fake_run import fake_run
from tests.hub import TOKEN, HubServer, hub
from tests.publishing import REPO, finished, remote, run

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
    path.write_text(path.read_text() + extra[name] if name in extra else json.dumps(json.loads(path.read_text()) | {"note": text}))
    with pytest.raises(RunError, match=rf"{name}, line \d+: holds a path of this machine.*nothing was published"):
        publish(run, REPO)
    with pytest.raises(RunError, match="holds a path"):
        publish(run, REPO, dry_run=True)
    assert hub.asked == []


@pytest.mark.parametrize("secret", ["hf_" + "a1B2" * 9, TOKEN])
def test_no_token_goes_out(hub: HubServer, run: Path, secret: str) -> None:
    write_card(run, REPO)
    (run / "model" / "notes.txt").write_text(f"one\nlogin(token='{secret}')\n")
    with pytest.raises(RunError, match=r"notes.txt, line 2: holds an access token") as refused:
        publish(run, REPO)
    assert secret not in str(refused.value)
    assert hub.asked == []


@pytest.mark.parametrize("harmless", ["https://example.org/home/somebody/x", "see /tmp", "hf_hub_download", "up/Users/x", "a /home page"])
def test_harmless_words_go_out(hub: HubServer, run: Path, harmless: str) -> None:
    write_card(run, REPO)
    (run / "model" / "notes.txt").write_text(harmless)
    publish(run, REPO, say=str)
    assert remote(hub)["notes.txt"].decode() == harmless


def test_rows_of_the_data_stay_at_home_unless_the_recipe_shares_them(hub: HubServer, tmp_path: Path) -> None:
    for shared in (0, 2):
        folder = fake_run(tmp_path / str(shared), pictures=False, examples=2, hub={"license": "mit", "examples": shared})
        tiny.vit(folder / "model", labels=("cat", "dog"))
        write_card(folder, REPO)
        if shared:
            publish(folder, REPO, say=str)
            assert {"examples/examples.json", "examples/0.jpg", "examples/1.jpg"} <= set(remote(hub))
        else:
            with pytest.raises(RunError, match="examples: 0"):
                publish(folder, REPO)


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
        (rewrite("model/config.json", '"model_type"', '"_name_or_path": "../weights/vit", "model_type"'), "_name_or_path is a local path"),
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
