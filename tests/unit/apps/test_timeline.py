"""The chart of classes over time: its lines, its words, and that no name of a class is markup."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from pipelines.apps import timeline
from pipelines.apps.timeline import Line, Stretch

LABELS = ["walk", "run", "<img src=x onerror=alert(1)>", "jump", "sit", "lie", "stand", "bow"]


def test_the_best_class_and_those_that_are_ever_likely_have_lines() -> None:
    scores = np.full((4, 8), 0.01)
    scores[:, 0] = [0.9, 0.2, 0.2, 0.2]
    scores[1, [1, 3, 4, 5, 6, 7]] = [0.3, 0.2, 0.15, 0.1, 0.08, 0.06]
    ranked = ["walk", "bow", "run", "sit", "jump", "lie", "stand", LABELS[2]]
    shown = timeline.lines(ranked, LABELS, scores)
    assert [line.label for line in shown] == ["walk", "run", "sit", "jump", "lie", "stand"]
    assert shown[0].scores == [0.9, 0.2, 0.2, 0.2]
    assert shown[1].scores == [0.01, 0.3, 0.01, 0.01]
    low = timeline.lines(ranked, LABELS, np.full((4, 8), 0.01))
    assert [line.label for line in low] == ["walk"], "the best class is always shown"


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]], "walk from 0.0 to 3.0 seconds, run from 3.0 to 5.0 seconds"),
        ([[0.9] * 3, [0.1] * 3], "walk from 0.0 to 5.0 seconds"),
    ],
)
def test_the_chart_is_told_in_words(scores: list[list[float]], words: str) -> None:
    shown = [Line("walk", scores[0]), Line("run", scores[1])]
    assert timeline.in_words(shown, [0.0, 1.5, 3.0], 5.0) == f"The likeliest class over time: {words}"


def test_many_changes_are_counted() -> None:
    scores = [place % 2 for place in range(24)]
    shown = [Line("walk", [float(score) for score in scores]), Line("run", [1.0 - score for score in scores])]
    words = timeline.in_words(shown, [float(place) for place in range(24)], 25.0)
    assert words.endswith("run from 6.0 to 7.0 seconds, walk from 7.0 to 8.0 seconds, and 16 more changes")


def test_names_of_classes_are_no_markup() -> None:
    page = timeline.figure("data:video/mp4;base64,AA==", [Line('"><script>{{x}}', [0.5, 0.7])], [0.0, 1.0], 2.0, 3.0)
    assert "<script" not in page
    assert "&quot;&gt;&lt;script&gt;" in page, "in the words for people who do not see the chart"
    found = re.search('data-found="([^"]+)"', page)
    assert found
    assert json.loads(base64.b64decode(found[1])) == {
        "seconds": 3.0,
        "times": [1.0, 2.0],
        "lines": [{"label": '"><script>{{x}}', "scores": [0.5, 0.7]}],
    }
    assert 'viewBox="0 -1.06 3.0 1.08"' in page
    assert re.findall(r'left: [0-9.]+%">([^<]+)<', page) == ["0 s", "1 s", "2 s"]


def test_each_stretch_has_a_frame_and_a_bar() -> None:
    stretches = [Stretch(0.0, 0.5, 1.5), Stretch(0.5, 1.0, 3.0), Stretch(1.0, 1.5, -2.0)]
    page = timeline.strip(stretches, [Image.new("RGB", (640, 480))] * 3)
    assert re.findall(r'data-time="([0-9.]+)" style="--share: ([0-9.]+)"', page) == [
        ("0.250", "0.500"),
        ("0.750", "1.000"),
        ("1.250", "0.000"),
    ]
    assert 'aria-label="0.5 to 1.0 seconds: 100 % of the largest change"' in page
    assert len(page) < 6000, "the frames are small"
