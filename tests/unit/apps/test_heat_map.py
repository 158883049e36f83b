"""The sentence about a heat map in the demos. tests/browser tests the maps as a visitor meets them."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.pages import gradio_page

__all__ = ["gradio_page"]

pytestmark = pytest.mark.usefixtures("gradio_page")


@pytest.mark.parametrize(
    ("explanation", "words"),
    [
        (None, ""),
        ("<b>", ""),
        ({"occlusion": "<b>"}, ""),
        ({"occlusion": {"rank_correlation": None}}, ""),
        ({"occlusion": {"rank_correlation": "<b>"}}, ""),
        ({"occlusion": {"rank_correlation": 0.12, "passed": True}}, "gives another map (rank correlation 0.12)"),
        ({"occlusion": {"rank_correlation": 0.3, "passed": None}}, "It is not shown"),
        ({"occlusion": {"rank_correlation": 0.6, "passed": False}}, "a partly similar map (rank correlation 0.60)"),
    ],
)
def test_the_page_says_whether_a_map_passed_its_test(explanation: Any, words: str) -> None:
    """results.json of a downloaded model may hold anything."""
    from pipelines.apps.heat_map import tested

    loaded: Any = SimpleNamespace(results=None if explanation is None else {"explanation": explanation})
    found = tested(loaded, "occlusion")
    assert words in found
    assert bool(words) == bool(found)
