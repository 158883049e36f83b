"""Near names: what exists and was probably meant."""

from pathlib import Path

import pytest

from pipelines.utils.files import did_you_mean, near


@pytest.fixture(name="place", autouse=True)
def a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("photos/cat", "data/birds", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "photos/cat/1.jpg").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("photo", "photos"),
        ("Photos/", "photos"),
        ("fotos", "photos"),
        ("photo/cat", "photos/cat"),
        ("photos/cats", "photos/cat"),
        ("photos/cat/1.jpeg", "photos/cat/1.jpg"),
        ("photos/cat/1", "photos/cat/1.jpg"),
        ("dta/birds", "data/birds"),
        ("./pictures/photos", "photos"),
        ("hidden", None),
        ("music", None),
        ("photo/dog", None),
        ("x" * 300, None),
        ("a\0b", None),
        ("", None),
    ],
)
def test_what_was_probably_meant(typed: str, meant: str | None) -> None:
    assert near(typed) == meant
    assert did_you_mean(typed) == (f" (did you mean {meant}?)" if meant else "")


def test_an_absolute_path(place: Path) -> None:
    assert near(str(place / "photo")) == str(place / "photos")
