"""The Space of a published model: its files, and that it starts where Graft is not installed."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import ModelError
from pipelines.models.classic_kinds import KINDS
from pipelines.publishing import space
from pipelines.publishing.publish import publish
from pipelines.publishing.space import space_folder
from tests.support import hostile, tiny
from tests.support.hub import TOKEN, USER, HubServer, hub
from tests.support.hub_store import front_matter, validate_card
from tests.support.publishing import REPO, finished, run
from tests.support.spaces import check_graft_is_not_installed, cloned, elsewhere, running, running_imports

__all__ = ["elsewhere", "finished", "hub", "run"]

pytestmark = pytest.mark.quick
SPACE = f"{USER}/pets-demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return space_folder(REPO, "image-classification", tmp_path_factory.mktemp("space") / "new")


# ---- its files ----


def test_nothing_else_that_lies_beside_the_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = space_folder(REPO, "image-classification", tmp_path / "plain")
    apps = Path(shutil.copytree(space.apps_folder(), tmp_path / "apps"))
    (apps / "space" / ".env").write_text("SECRET=1")
    (apps / "space" / "notes.txt").write_text("mine")
    (apps / "space" / "config.json").symlink_to("/etc/hostname")
    monkeypatch.setattr(space, "apps_folder", lambda: apps)
    found = space_folder(REPO, "image-classification", tmp_path / "found")
    files = [{path.relative_to(at).as_posix() for path in at.rglob("*") if path.is_file()} for at in (plain, found)]
    assert files[0] == files[1]
    assert {"README.md", "app.py", "requirements.txt"} <= files[0]


def test_it_holds_the_page_and_the_code_that_the_page_reaches(folder: Path) -> None:
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"app.py", "README.md", "requirements.txt"} <= names
    code = names - {"app.py", "README.md", "requirements.txt"}
    assert all(name.startswith("pipelines/") and name.endswith(".py") for name in code)
    needed = {
        "__init__",
        "inference/loading",
        "apps/__init__",
        "apps/parts",
        "apps/launch",
        "apps/image_classification",
        "tasks/image_classification",
    }
    assert {f"pipelines/{name}.py" for name in needed} <= code
    assert (
        not {f"pipelines/{name}.py" for name in ("cli", "__main__", "training/run", "training/loop", "training/optim")}
        & code
    )


def test_every_import_of_its_code_is_in_it_or_required(folder: Path) -> None:
    listed = {line.split("==")[0] for line in (folder / "requirements.txt").read_text().splitlines() if "==" in line}
    owners = importlib.metadata.packages_distributions()
    checked = 0
    for path in folder.rglob("*.py"):
        for name in running_imports(path):
            checked += 1
            top, here = name.split(".")[0], folder.joinpath(*name.split("."))
            if top == "pipelines":
                assert here.with_suffix(".py").is_file() or (here / "__init__.py").is_file(), f"{path}: {name}"
            elif top in owners:
                assert owners[top][0].lower().replace("_", "-") in listed, f"{path}: {name}"
    assert checked > 100


def test_requirements_are_the_versions_here_and_not_graft(folder: Path) -> None:
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert {
        "torch",
        "torchvision",
        "transformers",
        "timm",
        "huggingface-hub",
        "gradio",
        "pydantic",
        "pillow",
        "pyyaml",
    } <= set(pins)
    assert not [name for name in pins if "graft" in name]
    assert all(importlib.metadata.version(name).split("+")[0] == version for name, version in pins.items())
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("task", "models", "own"),
    [
        ("text-to-speech", {"flow_speech", "speecht5", "vocoders", "wavenet"}, {"inflect", "sentencepiece"}),
        ("audio-generation-wavenet", {"wavenet", "wavenet_network"}, set()),
    ],
)
def test_a_space_that_makes_sound_has_its_models_and_measures_nothing(
    task: str, models: set[str], own: set[str], tmp_path: Path
) -> None:
    folder = space_folder(REPO, task, tmp_path / "space")
    listed = {line.split("==")[0] for line in (folder / "requirements.txt").read_text().splitlines() if "==" in line}
    assert models <= {path.stem for path in (folder / "pipelines" / "models").glob("*.py")}
    assert {"soundfile", *own} <= listed
    assert not listed & {"resemblyzer", "speechmos", "onnxruntime"}
    code = {path.stem for path in (folder / "pipelines" / "generation").glob("*.py")}
    assert code == {"__init__", "audio", "requests", "spec"}


def test_a_space_has_the_networks_of_the_classics(folder: Path) -> None:
    networks = {module for modules in KINDS.values() for module in modules}
    assert networks <= {path.stem for path in (folder / "pipelines" / "models").glob("*.py")}


def test_its_front_matter_is_what_a_space_needs(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert validate_card(text, "space") == ([], [])
    card, _ = front_matter(text)
    assert card is not None
    assert (card["sdk"], card["app_file"], card["models"], card["title"]) == ("gradio", "app.py", [REPO], "pets")
    assert card["sdk_version"] == importlib.metadata.version("gradio")
    assert (
        card["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    )  # the default of the hub is older than the versions that we support
    assert "{{" not in text + (folder / "app.py").read_text() + (folder / "requirements.txt").read_text()


def test_titles_that_yaml_would_misread(tmp_path: Path) -> None:
    for name in ("2024", "no", "1e5"):
        card, _ = front_matter(
            (space_folder(f"me/{name}", "image-classification", tmp_path / name) / "README.md").read_text()
        )
        assert card is not None
        assert card["title"] == name


def test_a_task_without_a_demo(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no demo for the task 'no-such-task': publish without --space"):
        space_folder(REPO, "no-such-task", tmp_path)


# ---- publishing it ----


def test_it_is_published_in_one_commit_and_again_in_none(hub: HubServer, run: Path) -> None:
    report = publish(run, REPO, space=SPACE, say=str)
    files = hub.files(SPACE, "space")
    assert set(report["space"]["uploaded"]) == set(files) - {".gitattributes"}
    assert report["space"]["url"] == f"{hub.url}/spaces/{SPACE}"
    again = publish(run, REPO, space=SPACE, say=str)
    assert [again[kind]["commit"] for kind in ("model", "space")] == [None, None]
    assert len(hub.commits(SPACE, "space")) == 2
    assert hub.repo(SPACE, "space").sdk == "gradio"
    assert hub.unknown == []


def test_a_private_model_gets_a_private_space_and_no_token_travels(hub: HubServer, run: Path) -> None:
    publish(run, REPO, private=True, say=str)
    messages: list[str] = []
    report = publish(run, REPO, space=SPACE, say=messages.append)  # the model's repo is already private
    assert report["space"]["private"]
    assert hub.repo(SPACE, "space").private
    assert f"give the Space a secret HF_TOKEN that may read it, on {hub.url}/spaces/{SPACE}/settings" in messages[-1]
    everything = [*hub.files(SPACE, "space").values(), *hub.files(REPO).values()]
    assert not [data for data in everything if TOKEN.encode() in data]


# ---- running it ----


@pytest.mark.integration
def test_the_space_starts_where_graft_is_not_installed_and_answers_as_the_run_does(
    hub: HubServer, run: Path, elsewhere: Path, tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file

    from pipelines.inference.loading import load

    check_graft_is_not_installed(elsewhere, tmp_path)
    publish(run, REPO, private=True, space=SPACE, say=str)
    space = cloned(hub, SPACE, tmp_path / "space")
    photo = tmp_path / "photo.png"
    tiny.picture(0, 2, 48, np.random.default_rng(0)).save(photo)
    here = {answer["label"]: answer["score"] for answer in load(run).infer(Image.open(photo))}

    asked = len(hub.asked)
    uploads, outside = tmp_path / "uploads", tmp_path / "outside"
    outside.mkdir()
    with running(space, elsewhere, {**hub.env, "GRADIO_TEMP_DIR": str(uploads)}) as address:
        client = Client(address, verbose=False)
        there = client.predict(handle_file(str(photo)), api_name="/predict")
        client.close()
        kinds = hostile.places(uploads, outside)
        demo = hostile.Demo(address)
        events = [event for event in demo.events if demo.kinds(event)[:1] == ["image"]]
        others = {event["id"]: demo.usual(event)[1:] for event in events}
        refused = [demo.ask(event, [value, *others[event["id"]]]) for event in events for value in kinds.values()]
        demo.http.close()
    # a visitor of a Space cannot read its files
    assert (len(events), len(refused)) == (2, 2 * 41)
    assert {(answer.status, answer.data, answer.error) for answer in refused} == {(500, None, hostile.REFUSED)}
    assert "Traceback" not in (space / "log.txt").read_text()
    assert there["label"] == max(here, key=lambda label: here[label])
    assert {entry["label"]: entry["confidence"] for entry in there["confidences"]} == pytest.approx(here, rel=1e-5)
    fetched = [a for a in hub.asked[asked:] if REPO in a.path]
    assert any(a.path.endswith("/config.json") for a in fetched)
    assert {a.token for a in fetched} == {TOKEN}  # from the Space's secret
    assert hub.unknown == []
