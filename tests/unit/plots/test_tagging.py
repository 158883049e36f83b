"""Figures of videos with many labels."""

from pipelines.metrics import tagging
from pipelines.plots import tagging as plots
from pipelines.plots.style import png

LABELS = [f"label {k}" for k in range(60)]


def test_figures_of_many_labels() -> None:
    records = [
        {
            "id": str(k),
            **tagging.record([LABELS[k]], {LABELS[k]: 0.9, LABELS[k // 2]: 0.4} if k else {LABELS[0]: 0.1}, 1),
        }
        for k in range(50)
    ]
    drawn = plots.figures(records, LABELS)
    assert list(drawn) == ["precision_recall", "average_precision", "class_balance"]
    assert "recall ends at 1.00" in str(drawn["precision_recall"].get_label())
    # 49 right ones, then 49 wrong ones, then the last right one
    assert drawn["precision_recall"].get_suptitle() == "Predictions of all videos: GAP 0.99"
    assert all(png(figure, 60)[:4] == b"\x89PNG" for figure in drawn.values())


def test_figures_of_videos_without_a_label() -> None:
    drawn = plots.figures([{"id": "1", **tagging.record([], {"label 0": 0.3}, 0)}], LABELS)
    assert list(drawn) == ["precision_recall", "average_precision"]
