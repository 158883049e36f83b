"""Figures of classical learners: what their alt texts say, and which of them shows rows."""

import numpy as np
from matplotlib.figure import Figure

from pipelines.plots.baselines import CURVE, Beside, figures, maps_figure
from pipelines.plots.style import AGGREGATE, ROWS, png
from tests.support.fake_baselines import learner, section, usual


def drawn_maps() -> Figure:
    photo = np.full((40, 60, 3), 90, dtype=np.uint8)
    flat, ramp = np.zeros((8, 8)), np.linspace(-1, 1, 64).reshape(8, 8)
    rows = [
        Beside(photo, "cat", ("cat", "dog"), (ramp, flat)),
        Beside(photo[:, :20], "dog", ("dog", "dog"), (ramp, ramp)),
    ]
    return maps_figure(rows, "HOG + linear SVM")


def test_the_curve() -> None:
    found = figures(usual())
    assert list(found) == [CURVE]
    assert found[CURVE].get_gid() == AGGREGATE
    assert found[CURVE].get_label() == (
        "Accuracy on test by the number of training rows: HOG + linear SVM 0.66 with 40 rows, 0.73 with 120 rows, 0.78 "
        "with 400 rows; mobilenet features + k nearest neighbours 0.77 with 40 rows, 0.84 with 120 rows, 0.89 with 400 "
        "rows; the network 0.9 with 400 rows."
    )


def test_without_points_there_is_no_curve() -> None:
    assert figures(section([learner("majority class", "majority", 0.5, 0.4, None)])) == {}
    undefined = usual()
    for curve in undefined["curve"]:
        curve["points"] = [{**point, "value": None} for point in curve["points"]]
    assert figures(undefined) == {}
    alone = usual()
    alone["network"] |= {"metrics": {}, "ci95": {}}
    alone["curve"][0]["points"][0]["ci95"] = None
    assert png(figures(alone)[CURVE])


def test_maps_show_rows() -> None:
    drawn = drawn_maps()
    assert drawn.get_gid() == ROWS
    assert "which has 0 of them wrong, and for the network, which has 1 wrong" in str(drawn.get_label())
    assert png(drawn)
