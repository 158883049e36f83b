"""YAML as people mean it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.yaml_io import dump, parse, parse_value


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


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=5))
@settings(max_examples=300, deadline=None)
def test_dump_and_parse_are_inverse(value: object) -> None:
    read = parse(dump({"a": value}))[0]["a"]
    assert read == value
    assert repr(read) == repr(value)
