"""Classical learners on the card: the sentence and the numbers, and no word of the rows unless it is allowed."""

import json
from pathlib import Path

import pytest

from pipelines.plots.baselines import CURVE, MAPS
from pipelines.plots.style import ROWS
from pipelines.publishing.card import write_card
from pipelines.reporting.report import save_figures
from tests.support.fake_baselines import STATISTICS, WORDS, add_baselines, usual
from tests.support.fake_run import fake_run
from tests.unit.plots.test_baselines import drawn_maps


def written(tmp_path: Path, explanation: dict[str, object] | None = WORDS, examples: int = 0) -> tuple[str, str]:
    """The card, and all other texts of model/."""
    hub = {"license": "apache-2.0", "examples": examples}
    run = fake_run(tmp_path / "run", n=30, pictures=False, hub=hub, examples=examples)
    add_baselines(run, usual(explanation=explanation))
    save_figures({MAPS: drawn_maps()}, run / "figures")
    card = write_card(run, "someone/pets").read_text()
    assert sorted(path.name for path in (run / "model" / "figures").iterdir()) == [f"{CURVE}.png"]
    return card, (run / "model" / "results.json").read_text()


def test_the_card_shows_the_sentence_and_the_numbers(tmp_path: Path) -> None:
    card, results = written(tmp_path)
    assert usual()["verdict"]["sentence"] in card
    assert "| HOG + linear SVM | 0.78 | 0.78 | 0.73 to 0.83 | +0.12 | +0.05 to +0.19 | 5.3 s | 310 |" in card
    assert "neighbours (features of a pretrained network) | 0.89 |" in card
    assert f"figures/{CURVE}.png" in card
    assert json.loads(results)["baselines"]["learners"] == usual()["learners"]
    assert "are measured differently" in card
    assert drawn_maps().get_gid() == ROWS
    for text in (card, results):  # no word of a row is published
        assert not [word for word in ("whiskers", "purr", "bark", "jane_doe") if word in text]


@pytest.mark.parametrize(
    ("explanation", "word"),
    [(WORDS, "whiskers, purr&lt;b"), pytest.param(STATISTICS, "mean of MFCC 1", marks=pytest.mark.integration)],
)
def test_what_may_be_published(tmp_path: Path, explanation: dict[str, object], word: str) -> None:
    card, results = written(tmp_path, explanation, examples=2 if explanation is WORDS else 0)
    assert word in card.replace("\\<", "&lt;")
    assert json.loads(results)["baselines"]["explanation"] == explanation
    assert "jane_doe" not in card + results
