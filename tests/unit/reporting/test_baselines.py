"""Classical learners in the report: every number, every reason, and nothing in a run without them."""

from pathlib import Path

import pytest

from pipelines.plots.baselines import CURVE
from pipelines.reporting.report import write_report
from tests.support.fake_baselines import STATISTICS, WORDS, add_baselines, learner, section, usual
from tests.support.fake_run import fake_run
from tests.unit.reporting.test_report import Page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run(tmp_path / "run", n=30, pictures=False)


def text(page: Page) -> str:
    return " ".join(page.text.split())


def test_the_section_shows_all_that_was_measured(run: Path) -> None:
    found = usual(explanation=WORDS)
    add_baselines(run, found)
    page = Page(write_report(run))
    shown = text(page)
    assert found["verdict"]["sentence"] in shown
    assert all(one["name"] in shown for one in found["learners"])
    assert "HOG + linear SVMC 0.10.780.780.73 to 0.83 +0.12+0.05 to +0.195.3 s31012.3 k" in shown
    order = [shown.index(part) for part in ("The simplest answer", "Hand-made features", "Features of a pretrained")]
    assert order == sorted(order)
    assert shown.index("mobilenet features + k nearest neighbours") > order[2]
    assert "row jane_doe.jpg has no keypoints" in shown
    assert "What HOG measures." in shown
    assert "whiskers purr<b>" in shown  # escaped, so it is a text and no tag
    assert "so the two are measured differently" in shown
    assert "each of 1,000 resamples takes the same rows of both" in shown
    (curve,) = [figure for figure in page.figures() if "by the number of training rows" in str(figure["aria-label"])]
    assert "HOG + linear SVM 0.66 with 40 rows" in str(curve["aria-label"])


def test_importances_regression_and_no_intervals(run: Path) -> None:
    mean = learner("mean", "majority", 2.0, -1.0, None, metric="mse", memory_mb=None, parameters=None)
    found = section([mean], metric="mse", direction="min", network=1.0, resamples=0, explanation=STATISTICS)
    found["network"] |= {"device": "GPU", "memory_mb": None, "seconds": None, "parameters": None}
    add_baselines(run, found)
    shown = text(Page(write_report(run)))
    assert "mean of MFCC 1" in shown
    assert "there is too little to resample" in shown
    assert "lower is better" in shown
    assert "The network was trained on a GPU, whose memory cannot be compared" in shown
    number = {**WORDS, "answers": [{**WORDS["answers"][0], "answer": None}]}
    add_baselines(run, usual(explanation=number))
    assert "Raises the number" in text(Page(write_report(run)))


def test_a_run_without_classical_learners_shows_none(run: Path) -> None:
    before = write_report(run).read_text()
    add_baselines(run, usual())
    path = run / "results.json"
    path.write_text(path.read_text().replace('"baselines"', '"removed"'))
    assert (run / "figures" / f"{CURVE}.svg").is_file()
    assert write_report(run).read_text() == before
    assert not list((run / "figures").glob(f"{CURVE}.*"))
