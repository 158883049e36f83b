"""Recipes, run folders, published models and Spaces of version 0.1 work with this version.

tests/fixtures/version_0_1 holds them. That version wrote them before its code moved into packages; the README.md there
says how.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from gradio_client import Client, handle_file

from pipelines.config.recipe import load_recipe
from tests.support.command import graft
from tests.support.hub import USER, HubServer, hub
from tests.support.runs import ROOT, lines, one_thread
from tests.support.spaces import cloned, elsewhere, running

__all__ = ["elsewhere", "hub", "one_thread"]

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.quick]

FIXTURES = ROOT / "tests" / "fixtures" / "version_0_1"
MODEL, SPACE = f"{USER}/pets", f"{USER}/pets-demo"
FOLDER = "__FOLDER__"  # stands for the folder in which version 0.1 ran


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as version 0.1 left it, as the current folder.

    It holds vit, photos, recipe.yaml, stopped, finished and published_space.
    """
    for archive in sorted(FIXTURES.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path, filter="data")
    for run in ("stopped", "finished"):
        path = tmp_path / run / "recipe.yaml"
        text = path.read_text()
        assert FOLDER in text
        path.write_text(text.replace(FOLDER, str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def old_hub(hub: HubServer, desk: Path) -> HubServer:
    """The hub as version 0.1 left it: it holds the run's model folder and the Space."""
    hub.add_model(MODEL, desk / "finished" / "model")
    hub.add("space", SPACE, desk / "published_space")
    return hub


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def test_its_recipes_are_accepted(desk: Path) -> None:
    """The recipe that a user wrote, and the two complete ones in the run folder and in the model."""
    for path in ("recipe.yaml", "finished/recipe.yaml", "finished/model/recipe.yaml"):
        written = yaml.safe_load((desk / path).read_text())
        found = load_recipe(desk / path, exists=True).model_dump(mode="json")
        for section in ("model", "data", "options", "train", "hub"):
            assert written[section].items() <= found[section].items(), f"{path}: {section}"


def test_a_stopped_run_goes_on(desk: Path) -> None:
    """The same command trains the four steps that are left, and ends where an undisturbed run ended."""
    before = lines(desk / "stopped")
    assert before[-1]["step"] == 2
    done = graft("train", "recipe.yaml", "--run", "stopped")
    assert done.code == 0, done.err
    after, finished = lines(desk / "stopped"), lines(desk / "finished")
    assert after[: len(before)] == before
    assert [entry["step"] for entry in after] == [2, 4, 6, 6]
    assert [e["validation"] for e in after if "validation" in e] == [
        pytest.approx(e["validation"]) for e in finished if "validation" in e
    ]
    ended, wanted = results(desk / "stopped"), results(desk / "finished")
    assert (ended["train"]["steps"], ended["train"]["best_step"]) == (6, 4)
    for split in ("validation", "test"):
        assert ended[split]["metrics"] == pytest.approx(wanted[split]["metrics"], abs=1e-6)
    assert ended["baseline"]["metrics"] == pytest.approx(wanted["before"]["metrics"], abs=1e-6)
    assert ended["data"] == wanted["data"]


def test_a_finished_run_is_finished(desk: Path) -> None:
    before = (desk / "finished" / "results.json").read_bytes()
    done = graft("train", "recipe.yaml", "--run", "finished")
    assert done.code == 0, done.err
    assert "is finished; for more" in done.err
    assert (desk / "finished" / "results.json").read_bytes() == before


def test_a_finished_run_goes_on_for_longer(desk: Path) -> None:
    done = graft("train", "recipe.yaml", "train.max_steps=8", "--run", "finished")
    assert done.code == 0, done.err
    assert [entry["step"] for entry in lines(desk / "finished")] == [2, 4, 6, 6, 8, 8]
    assert results(desk / "finished")["train"]["steps"] == 8


def test_a_finished_run_is_evaluated(desk: Path) -> None:
    wanted = results(desk / "finished")
    for split in ("validation", "test"):
        done = graft("evaluate", "finished", "--split", split, "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert found["n"] == wanted[split]["n"] == 20
        assert found["metrics"] == pytest.approx(wanted[split]["metrics"], abs=1e-6)


def test_a_finished_run_predicts(desk: Path) -> None:
    records = map(json.loads, (desk / "finished" / "predictions" / "test.jsonl").read_text().splitlines())
    wanted = {str(desk / "photos" / record["id"]): record["scores"] for record in records}
    done = graft("predict", "finished", desk / "photos" / "test", "--json")
    assert done.code == 0, done.err
    found = {
        answer["input"]: {one["label"]: one["score"] for one in answer["output"]} for answer in json.loads(done.out)
    }
    assert len(found) == 20
    assert found == {name: pytest.approx(scores, abs=1e-6) for name, scores in wanted.items()}


def test_its_card_and_report_are_written_again(desk: Path) -> None:
    run = desk / "finished"
    wanted = results(run)
    (run / "model" / "README.md").unlink()
    assert not (run / "report.html").exists()
    for verb in ("card", "report"):
        done = graft(verb, "finished")
        assert done.code == 0, done.err
    card, report = (run / "model" / "README.md").read_text(), (run / "report.html").read_text()
    _, front, text = card.split("---\n", 2)
    assert "Undefined" not in card + report
    assert str(desk) not in card
    scores = yaml.safe_load(front)["model-index"][0]["results"][0]["metrics"]
    assert {one["type"]: one["value"] for one in scores} == wanted["test"]["metrics"]
    for shown in (text, report):
        assert "0.37" in shown  # calibration error after training
        assert "0.333" in shown  # macro F1 before training


def test_it_is_published_over_what_that_version_published(old_hub: HubServer, desk: Path) -> None:
    """Graft recognises both repositories as its own. One commit each turns them into what this version publishes."""
    old_code = {name for name in old_hub.files(SPACE, "space") if name.startswith("pipelines/")}
    commits = {kind: len(old_hub.commits(repo, kind)) for kind, repo in (("model", MODEL), ("space", SPACE))}
    assert graft("card", "finished").code == 0
    done = graft("publish", "finished", MODEL, "--space", SPACE)
    assert done.code == 0, done.err
    assert {kind: len(old_hub.commits(repo, kind)) for kind, repo in (("model", MODEL), ("space", SPACE))} == {
        kind: count + 1 for kind, count in commits.items()
    }
    published = old_hub.files(MODEL)
    for name in ("README.md", "results.json", "model.safetensors"):
        assert published[name] == (desk / "finished" / "model" / name).read_bytes()
    code = {name for name in old_hub.files(SPACE, "space") if name.startswith("pipelines/")}
    assert "pipelines/weights.py" in old_code - code  # the old names are gone
    assert "pipelines/inference/loading.py" in code - old_code
    assert graft("publish", "finished", MODEL, "--space", SPACE).out.count("nothing has changed, no new commit") == 2
    assert old_hub.unknown == []


def test_a_new_run_starts_from_the_published_model(old_hub: HubServer, desk: Path) -> None:
    done = graft("train", "recipe.yaml", "--model", MODEL, "--run", "next")
    assert done.code == 0, done.err
    found, first = results(desk / "next"), results(desk / "finished")
    assert found["model"]["id"] == MODEL
    assert found["model"]["revision"] == old_hub.commits(MODEL)[-1].sha
    assert found["data"]["test"]["trained_before"] == 0
    assert found["baseline"]["metrics"] == pytest.approx(
        first["test"]["metrics"], abs=1e-6
    )  # it begins where the first run ended


def test_the_published_model_answers(old_hub: HubServer, desk: Path) -> None:
    photo = desk / "photos" / "test" / "cat" / "000.jpg"
    answers = [json.loads(graft("predict", source, photo, "--json").out)[0]["output"] for source in (MODEL, "finished")]
    assert [one["label"] for one in answers[0]] == ["cat", "dog"]
    assert answers[0] == answers[1]


@pytest.mark.integration
def test_its_space_serves_what_this_version_publishes(old_hub: HubServer, desk: Path, elsewhere: Path) -> None:
    """A Space that is not published again runs its old code on the new model."""
    assert graft("train", "recipe.yaml", "--run", "stopped").code == 0
    done = graft("publish", "stopped", MODEL)
    assert done.code == 0, done.err
    photo = shutil.copy(desk / "photos" / "test" / "cat" / "000.jpg", desk / "photo.jpg")
    (wanted,) = json.loads(graft("predict", "stopped", photo, "--json").out)
    with running(
        cloned(old_hub, SPACE, desk / "space"), elsewhere, {**old_hub.env, "GRADIO_TEMP_DIR": str(desk / "uploads")}
    ) as address:
        client = Client(address, verbose=False)
        found = client.predict(handle_file(str(photo)), api_name="/predict")
        client.close()
    scores = {one["label"]: one["score"] for one in wanted["output"]}
    assert {one["label"]: one["confidence"] for one in found["confidences"]} == pytest.approx(scores, rel=1e-5)
