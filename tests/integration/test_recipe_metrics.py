"""A recipe's `metrics` from end to end: scores in results, report and card; which code runs, and which never does."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from pipelines.config.recipe import load_recipe, validate
from pipelines.errors import HubError, RecipeError, RunError
from pipelines.metrics import modules
from pipelines.publishing.publish import publish
from tests.support import tiny_text
from tests.support.command import graft, refused
from tests.support.hub import USER, HubServer, hub
from tests.support.pages import gradio_page
from tests.support.publishing import impatient
from tests.support.runs import one_thread

__all__ = ["gradio_page", "hub", "impatient", "one_thread"]

pytestmark = pytest.mark.usefixtures("impatient", "one_thread")

SHARE = """
def compute(predictions, references, confidence):
    assert len(confidence) == len(predictions)
    return {"right": sum(p == r for p, r in zip(predictions, references)) / len(predictions)}
"""
CLASS = """
import datasets
import evaluate
from .arithmetic import mean


class MeanClass(evaluate.Metric):
    def _info(self):
        whole = datasets.Value("int32")
        features = datasets.Features({"predictions": whole, "references": whole})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"true": mean(references), "about": "text beside numbers"}
"""
ARITHMETIC = "def mean(values):\n    return sum(values) / len(values)\n"


def evil(mark: Path) -> str:
    """Code that leaves a file where it is run."""
    return f"open({str(mark)!r}, 'w').close()\n\n\ndef compute(predictions, references):\n    return {{'evil': 1.0}}\n"


def settings(data: Path, model: Path, metrics: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": {"id": str(model)},
        "data": {"id": str(data), "workers": 0},
        "options": {"augment": "none"},
        "train": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"},
        "metrics": list(metrics),
    }


def written(folder: Path, recipe: dict[str, Any], **files: str) -> Path:
    """A recipe, and modules in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder / "r.yaml"


def space(hub: HubServer, folder: Path, repo: str, **files: str) -> str:
    """A metric module as the hub has it: a Space. Returns its commit."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    head = "---\ntitle: Mean\nemoji: 📏\ncolorFrom: blue\ncolorTo: red\nsdk: gradio\napp_file: app.py\n---\n"
    (folder / "README.md").write_text(head)
    (folder / "app.py").write_text("raise SystemExit('this is not to be run')\n")
    return hub.add("space", repo, folder)


def held(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


# ---- scores ----


@pytest.fixture(scope="module")
def finished(photo_folder: Path, vit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `run`, and the folder with its recipe and two modules. Read only."""
    folder = tmp_path_factory.mktemp("metrics")
    recipe = settings(photo_folder, vit_folder, ["./share.py", "classes.py"])
    written(folder, recipe, share=SHARE, classes=CLASS, arithmetic=ARITHMETIC)
    done = graft("train", folder / "r.yaml", "--run", folder / "run")
    assert done.code == 0, done.err
    return folder


def test_scores_of_every_split(finished: Path) -> None:
    results = held(finished / "run")
    for split in ("validation", "test"):
        metrics = results[split]["metrics"]
        assert metrics["share_right"] == metrics["accuracy"]
        assert metrics["classes_true"] == 0.5, "names of classes came as numbers, in the model's order"
        assert list(metrics)[-2:] == ["share_right", "classes_true"]
        assert not {"share_right", "classes_true"} & results[split]["ci95"].keys()
    about = {entry["name"]: entry for entry in results["extra_metrics"]}
    assert about["share"]["metrics"] == ["share_right"]
    assert about["share"]["source"].startswith("share.py (sha256 ")
    assert about["classes"]["failed"] is None


def test_report_and_card_show_them_and_say_whose_they_are(finished: Path) -> None:
    run = finished / "run"
    page = (run / "report.html").read_text()
    assert "Share right" in page
    assert "share.py (sha256 " in page
    assert "not part of Graft; without an interval" in page
    card = ModelCard.load(run / "model" / "README.md")
    index = {result.metric_type: result for result in card.data.eval_results}
    assert index["share_right"].metric_value == held(run)["test"]["metrics"]["share_right"]
    assert index["share_right"].metric_args["n"] == 16
    assert "ci95" not in index["share_right"].metric_args
    assert index["share_right"].metric_args["module"].startswith("share.py (sha256 ")
    assert "not part of Graft; without an interval" in card.text


def test_no_local_path_is_published(finished: Path, hub: HubServer) -> None:
    run = finished / "run"
    assert yaml.safe_load((run / "recipe.yaml").read_text())["metrics"] == [
        str(finished / "share.py"),
        str(finished / "classes.py"),
    ]
    assert "metrics" not in yaml.safe_load((run / "model" / "recipe.yaml").read_text())
    publish(run, f"{USER}/pets", say=str)
    text = b"".join(
        data for name, data in hub.files(f"{USER}/pets").items() if name.endswith((".md", ".yaml", ".json"))
    )
    assert str(finished).encode() not in text
    assert not [name for name in hub.files(f"{USER}/pets") if name.endswith(".py")]


def test_check_shows_the_first_values(finished: Path) -> None:
    done = graft("check", finished / "r.yaml")
    assert done.code == 0, done.err
    shown = [line for line in done.out.splitlines() if line.startswith("metric ")]
    assert len(shown) == 2
    assert "share_right" in shown[0]
    assert "8 validation rows, untrained" in shown[0]


def test_the_same_command_trains_nothing_again(finished: Path) -> None:
    before = (finished / "run" / "results.json").read_bytes()
    done = graft("train", finished / "r.yaml", "--run", finished / "run")
    assert done.code == 0, done.err
    assert "is finished; for more" in done.err
    assert (finished / "run" / "results.json").read_bytes() == before


def test_other_metrics_score_a_finished_run_again(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    weights = (run / "model" / "model.safetensors").read_bytes()
    raw = yaml.safe_load((finished / "r.yaml").read_text()) | {"metrics": ["other.py"]}
    recipe = written(tmp_path, raw, other="def compute(predictions, references):\n    return {'n': len(references)}\n")
    done = graft("train", recipe, "--run", run)
    assert done.code == 0, done.err
    metrics = held(run)["test"]["metrics"]
    assert metrics["other_n"] == 16
    assert "share_right" not in metrics
    assert metrics["accuracy"] == held(finished / "run")["test"]["metrics"]["accuracy"]
    assert "other_n" in (run / "model" / "README.md").read_text()
    assert yaml.safe_load((run / "recipe.yaml").read_text())["metrics"] == [str(tmp_path / "other.py")]
    assert (run / "model" / "model.safetensors").read_bytes() == weights


def test_a_score_of_the_task_keeps_its_name_when_a_run_is_scored_again(finished: Path, tmp_path: Path) -> None:
    """`balanced.py` with the key `accuracy` would be called as one of the task's own."""
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    own = held(run)["test"]["metrics"]["balanced_accuracy"]
    raw = yaml.safe_load((finished / "r.yaml").read_text()) | {"metrics": ["balanced.py"]}
    code = "def compute(predictions, references):\n    return {'accuracy': 0.123, 'other': 4}\n"
    done = graft("train", written(tmp_path, raw, balanced=code), "--run", run)
    assert done.code == 0, done.err
    assert "balanced_accuracy" in done.err
    results = held(run)
    assert results["test"]["metrics"]["balanced_accuracy"] == own
    assert results["extra_metrics"][0]["metrics"] == ["balanced_other"]
    done = graft("train", written(tmp_path, raw | {"metrics": []}), "--run", run)
    assert done.code == 0, done.err
    assert held(run)["test"]["metrics"]["balanced_accuracy"] == own
    assert "balanced_other" not in held(run)["test"]["metrics"]


def test_a_run_whose_card_was_not_rewritten_is_scored_again(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    shown = run / "model" / "results.json"
    right = shown.read_text()
    shown.write_text(right.replace("share_right", "share_wrong"))  # as a kill between the two files leaves it
    done = graft("train", finished / "r.yaml", "--run", run)
    assert done.code == 0, done.err
    assert "its predictions are scored" in done.err
    assert json.loads(shown.read_text()) == json.loads(right)


def test_predictions_with_any_line_separator_are_read(tmp_path: Path) -> None:
    from pipelines.utils import files

    records = [{"id": "a", "predicted": "x\u2028y\x85z\u2029"}, {"id": "b", "predicted": "n\nl"}]
    files.write_records(tmp_path / "test.jsonl", records)
    assert files.read_records(tmp_path / "test.jsonl") == records
    with pytest.raises(RunError, match="cannot be read"):
        files.read_records(tmp_path / "none.jsonl")


def test_a_task_without_predictions_is_refused_on_a_finished_run_too(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    for split in ("validation", "test"):
        path = run / "predictions" / f"{split}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({"id": line["id"], "nll": 1.0}) + "\n" for line in lines))
    raw = yaml.safe_load((finished / "r.yaml").read_text()) | {"metrics": ["other.py"]}
    done = graft(
        "train", written(tmp_path, raw, other="def compute(predictions, references):\n    return 1\n"), "--run", run
    )
    refused(done, 2, "gives no prediction that could be compared")


def test_a_failure_after_training_loses_nothing(photo_folder: Path, vit_folder: Path, tmp_path: Path) -> None:
    """The module works on the few rows of the trial and fails on all rows.

    When it is corrected, the same command fills in the score.
    """
    late = (
        "def compute(predictions, references):\n    if len(references) > 8:\n"
        "        open('/nowhere/secret')\n    return {'n': 1}\n"
    )
    recipe = written(tmp_path, settings(photo_folder, vit_folder, ["late.py"]), late=late)
    done = graft("train", recipe, "--run", tmp_path / "run")
    refused(done, 1, "metrics: late failed", "type the same command again")
    assert "late.py fails: FileNotFoundError" in done.err
    assert "(line 3 of late.py)" in done.err
    assert "accuracy on 16 test rows" in done.out
    results = held(tmp_path / "run")
    assert results["extra_metrics"][0]["failed"] == "FileNotFoundError"
    assert not [name for name in results["test"]["metrics"] if name.startswith("late")]
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "it failed, so there is no score" in card
    assert "secret" not in card
    (tmp_path / "late.py").write_text(late.replace("> 8", "> 800"))
    done = graft("train", recipe, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert held(tmp_path / "run")["test"]["metrics"]["late_n"] == 1


def test_a_run_goes_on_with_its_metrics(photo_folder: Path, vit_folder: Path, tmp_path: Path) -> None:
    """A longer run of the same recipe, with metrics that the first run did not have."""
    raw = settings(photo_folder, vit_folder)
    done = graft("train", written(tmp_path, raw), "--run", tmp_path / "run")
    assert done.code == 0, done.err
    raw["metrics"] = ["share.py"]
    done = graft("train", written(tmp_path, raw, share=SHARE), "train.max_steps=4", "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert "going on from step 2" in done.err
    results = held(tmp_path / "run")
    assert results["train"]["steps"] == 4
    assert results["test"]["metrics"]["share_right"] == results["test"]["metrics"]["accuracy"]


def test_evaluate_runs_those_of_a_recipe_and_none_of_a_run(finished: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((finished / "r.yaml").read_text())
    raw |= {"model": {"id": str(finished / "run")}, "metrics": [str(finished / "share.py")]}
    done = graft("evaluate", written(tmp_path, raw), "--json")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["share_right"] == metrics["accuracy"]
    done = graft("evaluate", finished / "run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"].keys() == metrics.keys() - {"share_right"}


def test_what_each_kind_of_text_task_gives(tmp_path: Path) -> None:
    """Records of question answering (lists of accepted answers, and a text) and of regression (numbers)."""
    look = """
def compute(predictions, references, **rest):
    assert "id" in rest and len(rest["id"]) == len(predictions)
    return {kind: float(isinstance(references[0], t)) for kind, t in (("list", list), ("number", float), ("text", str))}
"""
    squad = {
        "task": "question-answering",
        "model": {"id": str(tiny_text.bert(tmp_path / "bert"))},
        "data": {"id": str(tiny_text.squad(tmp_path / "squad", n=4)), "workers": 0},
        "train": {"max_steps": 1, "batch_size": 4},
        "metrics": ["look.py"],
    }
    shown = graft("check", written(tmp_path / "a", squad, look=look))
    assert "look_list 1 " in shown.out, shown.err
    regression = {
        "task": "text-classification",
        "model": {"id": str(tiny_text.distilbert(tmp_path / "distilbert"))},
        "data": {"id": str(tiny_text.labelled(tmp_path / "scores", "number")), "workers": 0},
        "options": {"regression": True},
        "train": {"max_steps": 1, "batch_size": 4},
        "metrics": ["look.py"],
    }
    shown = graft("check", written(tmp_path / "b", regression, look=look))
    assert "look_number 1 " in shown.out, shown.err


# ---- modules of the hub ----


def test_a_module_of_the_hub_at_its_commit(
    hub: HubServer, photo_folder: Path, vit_folder: Path, tmp_path: Path
) -> None:
    first = space(hub, tmp_path / "space", "evaluate-metric/mean", mean=CLASS, arithmetic=ARITHMETIC)
    later = ARITHMETIC.replace("/ len(values)", "/ len(values) + 10")
    second = space(hub, tmp_path / "space", "evaluate-metric/mean", mean=CLASS, arithmetic=later)
    recipe = written(tmp_path, settings(photo_folder, vit_folder, [f"evaluate-metric/mean@{first}"]))
    done = graft("train", recipe, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"evaluate-metric/mean at commit {first} is downloaded, to be run as a metric" in done.err
    results = held(tmp_path / "run")
    assert results["test"]["metrics"]["mean_true"] == 0.5
    assert results["extra_metrics"][0]["source"] == f"evaluate-metric/mean@{first}"
    assert yaml.safe_load((tmp_path / "run/model/recipe.yaml").read_text())["metrics"] == [
        f"evaluate-metric/mean@{first}"
    ]
    assert hub.unknown == [], "nothing else was asked for, and no download was counted"
    records = [{"id": "a", "true": "cat", "predicted": "cat"}]
    (other,) = modules.load([f"evaluate-metric/mean@{second}"])
    assert other.scores(records, ["cat"]) == {"mean_true": 10.0}
    with hub.offline():
        (cached,) = modules.load([f"evaluate-metric/mean@{first}"])
        assert cached.scores(records, ["cat"]) == {"mean_true": 0.0}


def test_modules_that_the_hub_does_not_have(hub: HubServer, tmp_path: Path) -> None:
    commit = space(hub, tmp_path / "space", "evaluate-metric/mean", other=SHARE)
    for entry, words in {
        f"evaluate-metric/absent@{commit}": ["there is no Space 'evaluate-metric/absent'", "evaluate-metric/rouge"],
        f"evaluate-metric/mean@{'0' * 40}": [f"has no commit {'0' * 40}"],
        f"evaluate-metric/mean@{commit}": ["holds no mean.py"],
    }.items():
        with pytest.raises(RecipeError) as caught:
            modules.load([entry])
        assert all(word in str(caught.value) for word in words), str(caught.value)
    with hub.offline(), pytest.raises(HubError, match="cannot be reached"):
        modules.load([f"evaluate-metric/mean@{'1' * 40}"])


# ---- code that never runs ----


@pytest.fixture
def hostile(hub: HubServer, finished: Path, tmp_path: Path) -> tuple[str, Path, Path]:
    """A model repo whose recipe lists a local file and a module of the hub.

    Returns its id, its folder, and the file that they would leave if they ran.
    """
    mark = tmp_path / "it was run"
    commit = space(hub, tmp_path / "space", "evil/code", code=evil(mark))
    folder = Path(shutil.copytree(finished / "run" / "model", tmp_path / "hostile"))
    (folder / "evil.py").write_text(evil(mark))
    raw = yaml.safe_load((folder / "recipe.yaml").read_text())
    raw["metrics"] = ["./evil.py", f"evil/code@{commit}"]
    raw["data"]["id"] = yaml.safe_load((finished / "run" / "recipe.yaml").read_text())["data"]["id"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
    hub.add_model("evil/model", folder)
    return "evil/model", folder, mark


@pytest.mark.usefixtures("gradio_page")
def test_what_came_with_a_model_is_never_run(
    hostile: tuple[str, Path, Path], photo_folder: Path, hub: HubServer, tmp_path: Path
) -> None:
    from pipelines.apps.launch import app
    from pipelines.inference.loading import load

    repo, folder, mark = hostile
    photo = next(photo_folder.rglob("*.jpg"))
    for source in (repo, str(folder)):
        loaded = load(source, device="cpu")
        assert loaded.recipe is not None
        assert loaded.recipe.metrics == []
        for command in (
            ("evaluate", source, "--data", photo_folder, "--allow-overlap"),
            ("predict", source, photo),
            (
                "train",
                written(tmp_path, settings(photo_folder, folder)),
                "--model",
                source,
                "--run",
                tmp_path / source.replace("/", "-"),
            ),
        ):
            done = graft(*command)
            assert done.code == 0, done.err
        assert app(loaded) is not None
    recipe = written(tmp_path / "from", settings(photo_folder, folder))
    assert graft("evaluate", recipe).code == 0
    assert not mark.exists()
    assert not [asked for asked in hub.asked if "spaces" in asked.path]


def test_a_recipe_in_a_models_folder_runs_no_metric(hostile: tuple[str, Path, Path]) -> None:
    _, folder, mark = hostile
    for command in ("check", "train", "evaluate"):
        error = refused(graft(command, folder / "recipe.yaml"), 2, "metrics", "folder of a model", "metrics=[]")
        assert "copy the recipe" in error
    assert not mark.exists()
    assert load_recipe(folder / "recipe.yaml", ["metrics=[]"]).metrics == []


def test_a_run_used_as_model_runs_no_metric(finished: Path, photo_folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    mark = tmp_path / "it was run"
    (run / "evil.py").write_text(evil(mark))
    raw = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump(raw | {"metrics": ["./evil.py"]}))
    recipe = written(tmp_path, settings(photo_folder, run))
    for command in (
        ("train", recipe, "--model", run, "--run", tmp_path / "next"),
        ("evaluate", run),
        ("predict", run, next(photo_folder.rglob("*.jpg"))),
        ("card", run),
        ("report", run),
    ):
        done = graft(*command)
        assert done.code == 0, done.err
    assert not mark.exists()


def test_relative_files_are_taken_from_the_recipe_or_from_where_you_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = written(tmp_path / "recipes", settings(tmp_path / "data", tmp_path / "model", ["../m/share.py"]))
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe).metrics == [str(tmp_path / "m/share.py")]
    assert load_recipe("recipes/r.yaml", ["metrics=[m/other.py]"]).metrics == [str(tmp_path / "m/other.py")]
    assert load_recipe("beans_vit_base", ["metrics=[share.py]"]).metrics == [str(tmp_path / "share.py")]
    assert validate(settings(tmp_path / "data", tmp_path / "model", ["a.py"])).metrics == ["a.py"]
