"""YAML values are read as people mean them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.yaml_io import dump, parse, parse_value, read_file
from pipelines.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("5.0e-5", 5e-5),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("3", 3),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("true", True),
        ("null", None),
        ("'5e-5'", "5e-5"),
        ("[a, 2]", ["a", 2]),
        ("v1.2.3", "v1.2.3"),
        ("e5", "e5"),
        ("-", "-"),
    ],
)
def test_values(text: str, value: object) -> None:
    read = parse_value(text) if text != "-" else parse("a: '-'")[0]["a"]
    assert read == value
    assert type(read) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=5
    )
)
@settings(max_examples=300, deadline=None)
def test_dump_and_parse_are_inverse(value: object) -> None:
    read = parse(dump({"a": value}))[0]["a"]
    assert read == value
    assert repr(read) == repr(value)


def test_a_file_is_read_with_the_lines_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: t\ntrain:\n  epochs: 1\n  epochs: 2\n", encoding="utf-8")
    value, lines, problems = read_file(path)
    assert value == {"task": "t", "train": {"epochs": 2}}
    assert lines == {("task",): 1, ("train",): 2, ("train", "epochs"): 4}
    assert problems == [f"{path}:4: train.epochs: given twice (first on line 3)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"- a\n", "a recipe is a mapping of keys .*, got list"),
        (b"a: [\n", "2: not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"^{path}:? ?.*{message}"):
        read_file(path)
