"""`graft baseline` from end to end: a run that was really trained, its results, report and card, and a stop halfway."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from pipelines.baselines import baseline
from tests.support import tiny
from tests.support.command import graft
from tests.support.runs import settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("baseline")
    tiny.photos(here / "photos", n={"train": 10, "validation": 5, "test": 8})
    raw = settings(tiny.vit(here / "vit"), here / "photos")
    (here / "recipe.yaml").write_text(yaml.safe_dump(raw | {"hub": {"license": "mit"}}))
    done = graft("train", here / "recipe.yaml", "--run", here / "run")
    assert done.code == 0, done.err
    return here / "run"


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_a_command_that_is_stopped_changes_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with (
        mock.patch.object(baseline.Study, "_curve", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        baseline.baseline(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_results_report_and_card_show_it(run: Path) -> None:
    before = results(run)
    done = graft("baseline", run)
    assert done.code == 0, done.err
    found = results(run)
    section = found.pop("baselines")
    assert found == before
    names = [one["name"] for one in section["learners"]]
    assert names[0] == "majority class"
    assert {"HOG + linear SVM", "SIFT words + random forest", "features of ViT + k nearest neighbours"} < {*names}
    assert section["verdict"]["sentence"] in done.out
    assert all(name in done.out for name in names)
    report, card = (run / "report.html").read_text(), (run / "model" / "README.md").read_text()
    for page in (report, card):
        assert section["verdict"]["sentence"] in page
        assert "HOG + linear SVM" in page
    assert (run / "figures" / "baselines_rows.svg").is_file()


def test_as_json_it_is_the_section_of_the_results(run: Path) -> None:
    done = graft("baseline", run, "--json")
    assert json.loads(done.out) == results(run)["baselines"]


def test_the_other_commands_take_such_a_run(run: Path) -> None:
    for words in (["report", run], ["card", run], ["compare", run, run], ["publish", run, "me/it", "--dry-run"]):
        done = graft(*words)
        assert done.code == 0, done.err
    assert "baselines" in results(run)
