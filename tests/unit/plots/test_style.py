"""The figures: at any size, in any script, with their metadata; and numbers as people read them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.metrics import classification
from pipelines.plots import classification as classification_plots
from pipelines.plots import style
from pipelines.plots.training_curves import learning_figure, metric_figure
from pipelines.reporting.report import curves, save_figures
from pipelines.utils import formatting
from tests.support.fake_run import LABELS, log, many_labels, predictions, write_lines


def opened(figure: Any) -> Image.Image:
    return Image.open(io.BytesIO(style.png(figure)))


@pytest.mark.parametrize("size", [1, 2, 7, 40, 41, 1000])
def test_classification_figures_at_any_number_of_classes(size: int) -> None:
    labels = tuple(f"class {i}" for i in range(size)) if size > 1 else ("one", "other")
    records = predictions(labels, 400, skill=0.7)
    drawn = classification_plots.figures(records, labels)
    for name, figure in drawn.items():
        image = opened(figure)
        assert 700 < image.width < 2800, name
        assert 150 < image.height < 2800, name
        assert len(image.info["Description"]) > 20
    title = " ".join(drawn["confusion_matrix"].get_suptitle().split())
    assert title == ("Confusion matrix" if size <= 40 else f"Confusion matrix: the 30 most confused of {size} classes")


def test_of_many_classes_the_worst_pairs_are_shown() -> None:
    labels = [f"c{i}" for i in range(100)]
    matrix = np.eye(100, dtype=int) * 50
    matrix[7, 93] = 9
    matrix[60, 2] = 8
    figure = classification_plots.confusion_figure(matrix, labels)
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert {"c7", "c93", "c60", "c2"} <= set(ticks)
    assert len(ticks) == 30
    assert "c7 taken for c93, 9 times" in str(figure.get_label())
    assert {"9", "8"} <= {text.get_text() for text in figure.axes[0].texts}


def test_only_aggregate_figures_say_so() -> None:
    records = predictions(LABELS, 50, skill=0.7)
    marks = {
        name: opened(figure).info["Comment"] for name, figure in classification_plots.figures(records, LABELS).items()
    }
    assert marks == {
        "confusion_matrix": "aggregate",
        "calibration": "aggregate",
        "class_balance": "aggregate",
    }
    assert opened(style.canvas(2, 2)).info["Comment"] == "rows"  # a figure without metadata counts as private


def test_labels_of_any_script_and_sign_are_drawn() -> None:
    labels = ("猫", "$\\frac{", "a\nb", "", "🐶", "x" * 300)
    for figure in classification_plots.figures(predictions(labels, 60, skill=0.6), labels).values():
        assert opened(figure).width > 300


def test_labels_of_several_per_row_are_bars() -> None:
    labels = tuple(f"label {i}" for i in range(60))
    figure = classification_plots.average_precision_figure(
        classification.per_class(many_labels(labels, 80), labels, True)
    )
    assert "the 40 lowest of 60" in str(figure.get_label())
    assert len(figure.axes[0].patches) == 40


def test_drawing_leaves_the_global_state_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    save_figures({"loss": learning_figure(log(100, False, "accuracy", 0.9))}, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_the_best_of_all_stages_is_marked() -> None:
    """The exported model is that of its best checkpoint."""
    lines = [{"step": 10, "epoch": 1.0, "stage": "head", "validation": {"wer": 0.1}}]
    lines += [
        {"step": 10 + s, "epoch": s / 10, "stage": "train", "validation": {"wer": w}}
        for s, w in ((10, 0.5), (20, 0.3), (30, 0.4))
    ]
    figure = metric_figure(lines, "wer", "min", before=0.9, after=0.35, interval=[0.3, 0.4])
    assert "best 0.100 at step 10" in str(figure.get_label())
    legend = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert legend == {"validation", "best: 0.10 at step 10", "test: 0.90 before, 0.35 after"}


def test_a_curve_of_one_point_starts_at_step_0() -> None:
    lines = [{"step": 10, "epoch": 1.0, "stage": "train", "validation": {"accuracy": 0.8}}]
    figure = metric_figure(lines, "accuracy", before=0.5, after=0.75)
    ends = [line.get_xydata().tolist() for line in figure.axes[0].get_lines()]
    assert [[0.0, 0.5], [10.0, 0.75]] in ends


@given(st.lists(st.one_of(st.floats(0, 1e6), st.just(float("nan"))), min_size=1, max_size=120))
@settings(max_examples=15, deadline=None)
def test_any_loss_can_be_drawn(tmp_path_factory: pytest.TempPathFactory, losses: list[float]) -> None:
    run = tmp_path_factory.mktemp("run")
    write_lines(
        run / "log.jsonl",
        [
            {"step": i + 1, "epoch": 0.1, "stage": "train", "loss": loss, "learning_rate": 1e-4}
            for i, loss in enumerate(losses)
        ],
    )
    drawn = curves(run, {"metric": {"name": "accuracy", "direction": "max"}, "test": {"metrics": {}, "ci95": {}}})
    assert bool(drawn) is bool(np.isfinite(losses).sum() > 1)
    save_figures(drawn, run / "figures")
    assert len(list((run / "figures").iterdir())) == 2 * len(drawn)  # as PNG and as SVG


# ---- number formats ----


@pytest.mark.parametrize(
    ("formatted", "meant"),
    [
        (formatting.number(None), "–"),
        (formatting.number(float("nan")), "–"),
        (formatting.number(1234), "1,234"),
        (formatting.number(0.97312), "0.973"),
        (formatting.number(0.0), "0.000"),
        (formatting.number(0.00005), "5.00e-05"),
        (formatting.number(1234.56), "1,234.6"),
        (formatting.interval(None), "–"),
        (formatting.interval([0.951, 1.0]), "0.95 to 1.00"),
        (formatting.interval([0.00043, 0.056]), "0.00 to 0.06"),
        (formatting.interval([0.5, 0.5]), "0.500 to 0.500"),
        (formatting.interval([110.2, 138.9]), "110 to 139"),
        (formatting.interval([-0.004, 0.002], "+"), "-0.004 to +0.002"),
        (formatting.score(0.983, [0.95, 1.0]), "0.98"),
        (formatting.score(0.983, [0.981, 0.9849]), "0.983"),
        (formatting.score(0.5, [0.2, 0.9]), "0.5"),
        (formatting.score(1234.56, [1200.0, 1300.0]), "1,235"),
        (formatting.score(0.983, None), "0.983"),
        (formatting.score(None, [0.95, 1.0]), "–"),
        (formatting.score(float("nan"), [0.95, 1.0]), "–"),
        (formatting.score(0.9, [0.8, float("inf")]), "0.900"),
        (formatting.of_rows(0.93812, 32), "0.94"),
        (formatting.of_rows(0.93812, 20_000), "0.938"),
        (formatting.of_rows(83.3333, 32), "83.3"),
        (formatting.of_rows(7, 32), "7"),
        (formatting.of_rows(None, 32), "–"),
        (formatting.epochs(9.2308), "9"),
        (formatting.epochs(1.52), "1.5"),
        (formatting.epochs(0.2541), "0.25"),
        (formatting.duration(3.21), "3.2 s"),
        (formatting.duration(59.9), "60 s"),
        (formatting.duration(75), "1 min 15 s"),
        (formatting.duration(7260), "2 h 1 min"),
        (formatting.large(85_800_194), "85.8 M"),
        (formatting.large(41.03), "41"),
        (formatting.readable_name("balanced_accuracy"), "Balanced accuracy"),
        (formatting.short("a  b\nc", 5), "a b c"),
        (formatting.short("abcdefgh", 5), "abcd…"),
    ],
)
def test_wording(formatted: str, meant: str) -> None:
    assert formatted == meant
