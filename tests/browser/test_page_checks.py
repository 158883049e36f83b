"""The measuring of pages itself: it finds each kind of fault, and nothing on a page that has none."""

from typing import Any

import pytest

from tests.support.page_checks import problems

pytestmark = [pytest.mark.browser, pytest.mark.quick]

GOOD = """
<p>Dark on white, and <b style="color: #2b6cb0">blue on white</b>.</p>
<div style="overflow: auto; width: 200px"><div style="width: 3000px">a table that scrolls in its own box</div></div>
<p style="line-height: 1.1">Two lines<br>that are near each other</p>
<p style="opacity: 0; color: white">nobody sees this</p>
<details><summary>closed</summary><p style="color: white">x</p></details>
<div style="background: #123; color: #fff; display: grid"><span>light on dark</span></div>
<svg width="100" height="50" style="color: black">
<path d="M0 0 H100 V50 H0 Z" fill="#000" /><text x="5" y="30" font-size="12" fill="#fff">on black</text></svg>
"""
FAULTS = [
    ('<div style="width: 2000px">wide</div>', "the page is 2008 pixels wide"),
    ('<p style="color: #999">pale</p>', '"pale" (html > body > p) has a contrast of 2.85'),
    ('<p style="color: #000; opacity: .3">thin</p>', "has a contrast of"),
    ('<div style="background: linear-gradient(#fff, #000)">shaded</div>', "has a contrast of 1.00"),
    ('<p style="font-size: 8px">tiny</p>', "is 8.0 pixels high"),
    ('<p>under</p><p style="margin-top: -34px">over</p>', "lies on"),
    (
        '<canvas width="200" height="100" style="border: 1px solid"></canvas><p style="margin-top: -50px">label</p>',
        '"label" (html > body > p) lies on a picture',
    ),
    ('<input placeholder="name" style="background: #888">', '"name"'),
    (
        '<svg width="100" height="50"><path d="M0 0 H100 V50 H0 Z" fill="#222"/><text x="5" y="30">dark</text></svg>',
        '"dark"',
    ),
    (
        '<svg width="100" height="100" viewBox="0 0 400 400"><text x="5" y="90" font-size="20">far</text></svg>',
        "is 5.0 pixels",
    ),
]


def page_of(chromium: Any, body: str) -> list[str]:
    context = chromium.new_context(viewport={"width": 600, "height": 400}, color_scheme="light")
    page = context.new_page()
    page.set_content(f"<!doctype html><html><body>{body}</body></html>")
    found = problems(page)
    context.close()
    return found


def test_a_good_page_has_no_problems(chromium: Any) -> None:
    assert page_of(chromium, GOOD) == []


@pytest.mark.parametrize(("body", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_each_fault_is_found(chromium: Any, body: str, message: str) -> None:
    found = page_of(chromium, body)
    assert found
    assert all(message in line for line in found), found
