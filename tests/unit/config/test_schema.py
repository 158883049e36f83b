"""The JSON schema of recipes, as an editor uses it: it accepts every recipe and finds what is wrong with one."""

from collections.abc import Iterator
from typing import Any

from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import recipe_schema
from pipelines.config.yaml_io import read_file
from tests.support.json_schema import problems

SCHEMA = recipe_schema()


def described(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every key below a node of the schema, with its description."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "properties":
                yield from ((f"{path}.{key}", about.get("description", "")) for key, about in value.items())
            yield from described(value, f"{path}.{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from described(value, f"{path}.{number}")


def test_every_key_has_a_description_of_a_sentence() -> None:
    found = dict(described(SCHEMA))
    assert len(found) > 160
    short = [path for path, about in found.items() if len(about) < 15 or not about.strip().endswith((".", ":", ":)"))]
    assert short == []


def test_the_schema_accepts_every_shipped_recipe() -> None:
    paths = recipe_paths()
    assert len(paths) > 50
    wrong = {name: list(problems(read_file(path).value, SCHEMA)) for name, path in paths.items()}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_the_schema_finds_what_is_wrong() -> None:
    recipe = read_file(recipe_paths()["photos_efficientnet_b0"]).value
    recipe["options"] |= {"image_sise": 64, "max_length": 3}
    recipe["train"] |= {"lr": 1, "epochs": "three", "batch_size": 0}
    recipe["model"]["freeze"] = "all"
    del recipe["data"]
    found = [problem.partition(":")[0] for problem in problems(recipe, SCHEMA)]
    assert sorted(found) == sorted(
        [
            ".data",
            "model.freeze",
            "options.image_sise",
            "options.max_length",
            "train.batch_size",
            "train.epochs",
            "train.lr",
        ]
    )


def test_an_unfinished_recipe_has_no_errors_of_tasks() -> None:
    assert list(problems({"options": {"image_size": 3}}, SCHEMA)) == [
        f".{key}: missing" for key in ("task", "model", "data", "train")
    ]
