"""A finished run: the same command with another hub section, and the run on other data of the same form."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.config.recipe import validate
from pipelines.config.yaml_io import dump
from pipelines.training.run import train
from tests.integration.test_faults import at_most
from tests.support import tiny_text
from tests.support.command import graft, refused
from tests.support.runs import without_pictures


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and its run. The columns of its table have other names than the task's, and six rows are published."""
    folder = tmp_path_factory.mktemp("finished")
    rows = [(tiny_text.passage(tiny_text.Random(n))[0], "even" if n % 2 else "odd") for n in range(40)]
    _table(folder / "texts.csv", ["said", "kind"], rows)
    raw = {
        "task": "text-classification",
        "model": {"id": str(tiny_text.bert(folder / "bert", "BertForSequenceClassification"))},
        "data": {"id": str(folder / "texts.csv"), "columns": {"text": "said", "label": "kind"}, "workers": 0},
        "options": {"max_length": 32},
        "train": {"max_steps": 2, "batch_size": 8, "precision": "fp32"},
        "hub": {"examples": 4, "license": "mit"},
    }
    (folder / "recipe.yaml").write_text(dump(raw))
    with without_pictures():
        assert train(validate(raw), folder / "run", name="texts")
    return folder / "recipe.yaml", folder / "run"


def _table(path: Path, header: list[str], rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_the_hub_section_may_change(finished: tuple[Path, Path]) -> None:
    """The published files change with it: rows are removed, the licence is the new one.

    Rows that the run did not keep are refused.
    """
    recipe, run = finished
    before = (run / "results.json").read_text()
    assert len(json.loads((run / "model" / "examples" / "examples.json").read_text())) == 4
    done = graft("train", recipe, "hub.examples=0", "hub.license=apache-2.0", "hub.private=true", "--run", run)
    assert done.code == 0, done.err
    assert "follow the new hub section" in done.err
    assert not (run / "model" / "examples").exists()
    assert yaml.safe_load((run / "recipe.yaml").read_text())["hub"]["private"] is True
    assert "license: apache-2.0" in (run / "model" / "README.md").read_text()
    assert (run / "results.json").read_text() == before
    assert (
        "is finished; for more"
        in graft("train", recipe, "hub.examples=0", "hub.license=apache-2.0", "hub.private=true", "--run", run).err
    )
    assert graft("train", recipe, "hub.examples=2", "--run", run).code == 0
    assert len(json.loads((run / "model" / "examples" / "examples.json").read_text())) == 2
    refused(
        graft("train", recipe, "hub.examples=40", "--run", run),
        1,
        "hub.examples: the run kept 4 examples, you ask for 40",
    )


def test_a_licence_that_this_version_does_not_know(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """The list of licences is older than the model's licence.

    The model answers, is scored and resumes. A new run and the hub refuse the licence.
    """
    recipe, run = finished[0], shutil.copytree(finished[1], tmp_path / "run")
    for path in (run / "recipe.yaml", run / "model" / "recipe.yaml"):
        raw = yaml.safe_load(path.read_text())
        path.write_text(dump({**raw, "hub": {**raw["hub"], "license": "openrail-2030", "language": "English"}}))
    hub = yaml.safe_load((run / "recipe.yaml").read_text())["hub"]
    asked = [recipe, "hub.license=openrail-2030", "hub.language=English", f"hub.examples={hub['examples']}"]
    for source in (run, run / "model"):
        done = graft("predict", source, "the sword was made")
        assert done.code == 0, done.err
    assert graft("evaluate", run, "--json").code == 0
    done = graft("train", *asked, "--run", run)
    assert done.code == 0, done.err
    assert "is finished; for more" in done.err
    for verb, more in (("train", ["--run", tmp_path / "new"]), ("check", [])):
        refused(graft(verb, *asked, *more), 2, "hub.license", "openrail-2030", "hub.language", "did you mean 'en'")
    refused(
        graft("publish", run, "me/pets", "--dry-run"),
        2,
        "recipe.yaml: hub.language: the hub knows no language 'English'",
    )
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("language: English", "language: en"))
    refused(
        graft("publish", run, "me/pets", "--dry-run"),
        2,
        "recipe.yaml: hub.license: the hub knows no licence 'openrail-2030'",
    )


def test_an_evaluation_halves_its_batch_where_memory_does_not_suffice(finished: tuple[Path, Path]) -> None:
    """Texts have many lengths, so tokens also limit a batch."""
    from pipelines.tasks.text_classification import TextClassification

    _, run = finished
    wanted = json.loads(graft("evaluate", run, "--json").out)
    with at_most(1, TextClassification) as refused_:
        done = graft("evaluate", run, "--json")
    assert done.code == 0, done.err
    assert max(refused_) > 1
    assert re.search(r"out of memory on test: going on with \d+ tokens at a time", done.err)
    found = json.loads(done.out)
    assert found["n"] == wanted["n"]
    assert found["metrics"] == pytest.approx(wanted["metrics"], abs=1e-5)


@pytest.mark.parametrize("header", [["said", "kind"], ["text", "label"]])
def test_other_data_may_be_named_as_its_own_or_as_the_task_s(
    finished: tuple[Path, Path], tmp_path: Path, header: list[str]
) -> None:
    _, run = finished
    other = _table(
        tmp_path / "other.csv", header, [("The song was made by Ada.", "even"), ("The clock was made by Hugo.", "odd")]
    )
    scored = graft("evaluate", run, "--data", other, "--json")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["n"] == 2
    answers = graft("predict", run, other, "--json")
    assert answers.code == 0, answers.err
    assert [answer["input"] for answer in json.loads(answers.out)] == ["other.csv:2", "other.csv:3"]
