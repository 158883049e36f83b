"""The recipe: overrides on the command line, writing and reading it, and its schema."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pipelines.config.hub_metadata import LANGUAGES, LICENCES
from pipelines.config.recipe import (
    NEWER,
    Adapter,
    Recipe,
    Strict,
    dump_recipe,
    load_recipe,
    recipe_schema,
    task_class,
    task_names,
    validate,
)
from pipelines.errors import RecipeError
from pipelines.utils.files import problem

GOOD = """\
task: image-classification
model: {id: some/model}
data: {id: some/data}
train: {epochs: 1}
"""


# ---- the command line ----


def test_overrides_use_the_recipes_names(write) -> None:
    overrides = [
        "train.learning_rate=3e-4",
        "model.freeze=2",
        "hub.tags=[a, b]",
        "options.augment=crop-flip",
        "data.columns.image=img",
    ]
    recipe = load_recipe(write(GOOD + "hub:\n"), overrides)
    assert recipe.train.learning_rate == 3e-4
    assert recipe.model.freeze == 2
    assert recipe.hub.tags == ["a", "b"]
    assert recipe.options.augment == "crop-flip"
    assert recipe.data.columns == {"image": "img"}


def test_the_last_override_wins(write) -> None:
    assert load_recipe(write(GOOD), ["train.seed=1", "train.seed=2"]).train.seed == 2


def test_epochs_and_max_steps_replace_each_other(write) -> None:
    train = load_recipe(write(GOOD), ["train.max_steps=20"]).train
    assert (train.epochs, train.max_steps) == (None, 20)
    train = load_recipe(write(GOOD.replace("epochs: 1", "max_steps: 9")), ["train.epochs=0.5"]).train
    assert (train.epochs, train.max_steps) == (0.5, None)


def test_new_data_drop_what_belonged_to_the_old(write) -> None:
    old = (
        "{id: a/b, config: c, revision: r, format: digits, columns: {image: i}, "
        "train: a, validation: b, test: c, group: g, holdout: 0.2}"
    )
    for also in ("}", ", label_columns: [rude, spam]}", ", label_separator: ';'}"):
        recipe = write(GOOD.replace("{id: some/data}", old.removesuffix("}") + also))
        data = load_recipe(recipe, data="photos").data
        assert data.model_dump(exclude_defaults=True) == {"id": "photos", "holdout": 0.2}


def test_a_new_model_drops_revision_and_configuration(write) -> None:
    model = load_recipe(
        write(GOOD.replace("{id: some/model}", "{id: a, revision: r, freeze: backbone}")), model="b"
    ).model
    assert model.model_dump(exclude_defaults=True) == {"id": "b", "freeze": "backbone"}
    model = load_recipe(write(GOOD.replace("{id: some/model}", "{config: {model_type: vit}}")), model="b").model
    assert model.model_dump(exclude_defaults=True) == {"id": "b"}


def test_overrides_come_after_new_data_and_model(write) -> None:
    recipe = load_recipe(write(GOOD), ["data.columns.label=breed", "model.revision=abc"], data="d", model="m")
    assert recipe.data.columns == {"label": "breed"}
    assert recipe.model.revision == "abc"


def test_traps_in_a_recipe(write) -> None:
    recipe = load_recipe(
        write(GOOD.replace("epochs: 1", "epochs: 1, learning_rate: 5e-5").replace("id: some/data", "id: no"))
    )
    assert recipe.train.learning_rate == 5e-5
    assert recipe.data.id == "no"


# ---- the object ----


def test_a_recipe_is_frozen() -> None:
    recipe = load_recipe("beans_vit_base")
    for section, key in ((recipe, "task"), (recipe.train, "epochs"), (recipe.options, "augment"), (recipe.model, "id")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, None)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12)
places = words.filter(lambda word: not problem(word))
languages = st.sampled_from([*LANGUAGES, "multilingual"])
recipes = st.fixed_dictionaries(
    {
        "task": st.just("image-classification"),
        "model": st.fixed_dictionaries(
            {"id": places},
            optional={"revision": words, "freeze": st.sampled_from(["none", "backbone"]) | st.integers(1, 99)},
        ),
        "data": st.fixed_dictionaries(
            {"id": places},
            optional={
                "config": words,
                "columns": st.dictionaries(words, words, max_size=2),
                "holdout": st.floats(0.01, 0.5),
                "group": words,
            },
        ),
        "options": st.fixed_dictionaries(
            {}, optional={"image_size": st.integers(4, 999), "mixup": st.floats(0, 1), "dropout": st.floats(0, 0.9)}
        ),
        "train": st.fixed_dictionaries(
            {"epochs": st.floats(0.001, 1000)},
            optional={
                "learning_rate": st.floats(1e-12, 10),
                "micro_batch": st.just("auto") | st.integers(1, 64),
                "ema": st.floats(0.1, 0.99),
            },
        ),
        "hub": st.fixed_dictionaries(
            {},
            optional={
                "license": st.sampled_from(LICENCES),
                "tags": st.lists(words, max_size=3),
                "language": languages | st.lists(languages),
            },
        ),
    }
)


@given(recipes)
@settings(max_examples=100, deadline=None)
def test_dump_and_load_are_inverse(tmp_path_factory: pytest.TempPathFactory, raw: dict) -> None:
    recipe = validate(raw)
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert type(load_recipe(path).options) is type(recipe.options)


def test_a_dump_is_plain_yaml_with_every_default() -> None:
    recipe = load_recipe("cifar10_vit_base")
    plain = yaml.safe_load(dump_recipe(recipe))
    every = json.loads(recipe.model_dump_json())
    # unknown to version 0.1, and not set
    assert every.pop("metrics") == []
    for section, keys in NEWER.items():
        own = {key: usual for key, usual in keys.items() if key in every[section]}
        assert own
        assert {key: every[section].pop(key) for key in own} == own
    assert plain == every
    assert {*plain["train"], *NEWER["train"]} == type(recipe.train).model_fields.keys()


# ---- the schema for editors ----


def sections(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and every model below it."""
    below = [
        a
        for f in kind.model_fields.values()
        for a in (f.annotation, *getattr(f.annotation, "__args__", ()))
        if isinstance(a, type)
    ]
    return [kind, *(s for a in below if issubclass(a, Strict) for s in sections(a))]


def refs(schema: object) -> list[str]:
    if isinstance(schema, dict):
        return [*([schema["$ref"]] if "$ref" in schema else []), *(r for v in schema.values() for r in refs(v))]
    return [r for v in schema for r in refs(v)] if isinstance(schema, list) else []


def test_the_schema_names_every_key_and_its_references_resolve() -> None:
    schema = recipe_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["properties"]["task"]["enum"] == task_names()
    named = {}
    kinds = [*sections(Recipe), *(k for name in task_names() for k in sections(task_class(name).Options))]
    assert Adapter in kinds
    for kind in kinds:
        definition = schema if kind is Recipe else schema["$defs"].get(kind.__name__)
        if definition is None:
            definition = next(schema["$defs"][name] for name in task_names() if task_class(name).Options is kind)
        assert definition["additionalProperties"] is False
        assert definition["properties"].keys() == kind.model_fields.keys()
        named[kind.__name__] = len(kind.model_fields)
    assert sum(named.values()) > 60
    for ref in refs(schema):
        where = schema
        for part in ref.removeprefix("#/").split("/"):
            where = where[part]


def test_each_task_brings_its_options_into_the_schema() -> None:
    schema = recipe_schema()
    rules = {
        r["if"]["properties"]["task"]["const"]: r["then"]["properties"]["options"]["$ref"] for r in schema["allOf"]
    }
    assert rules == {name: f"#/$defs/{name}" for name in task_names()}


def test_what_was_allowed_for_other_data_and_models_is_not_for_these() -> None:
    """A recipe may publish rows of its open data.

    With `--data`, the data are the user's own. Another model may have another licence.
    """
    shipped = load_recipe("beans_vit_base")
    assert shipped.hub.examples > 0
    assert shipped.hub.license
    for other in (load_recipe("beans_vit_base", data="mine"), load_recipe("beans_vit_base", ["data.id=mine"])):
        assert (other.hub.examples, other.hub.license) == (0, shipped.hub.license)
    assert load_recipe("beans_vit_base", model="mine").hub.license is None
    asked = load_recipe("beans_vit_base", ["hub.examples=3", "hub.license=mit"], data="mine", model="mine")
    assert (asked.hub.examples, asked.hub.license) == (3, "mit")


UNLISTED = "hub: {license: openrail-2030, language: [English]}\n"


def test_a_licence_that_is_not_listed_here_is_refused_for_a_new_run_alone(write) -> None:
    """The hub may know more licences than this version: a model with an unknown one can still be read."""
    path = write(GOOD + UNLISTED)
    with pytest.raises(
        RecipeError, match=r"(?s)hub\.license: .*openrail-2030.*hub\.language: .*'English': did you mean 'en'"
    ):
        load_recipe(path)
    recipe = load_recipe(path, exists=True)
    assert (recipe.hub.license, recipe.hub.language) == ("openrail-2030", ["English"])
    assert validate(yaml.safe_load(dump_recipe(recipe)), exists=True) == recipe
    with pytest.raises(RecipeError, match="openrail-2030"):
        validate(yaml.safe_load(dump_recipe(recipe)))


def test_a_prompt_of_before_is_read_from_a_model_alone(write) -> None:
    prompt = "options: {prompt: '{question} {answer}'}\n"
    path = write(GOOD.replace("image-classification", "text-generation") + prompt)
    with pytest.raises(RecipeError, match=r"{answer} is what is to follow the prompt"):
        load_recipe(path)
    assert load_recipe(path, exists=True).options.prompt == "{question} {answer}"


def test_other_data_of_the_same_form_keep_the_part_that_the_recipe_takes(tmp_path: Path) -> None:
    """`--data MNIST` replaces the path of the digits; the recipe's choice of digits stays."""
    from pipelines.config.recipe import task_class
    from pipelines.data.loading import load_splits
    from tests.support import tiny_pictures

    folder = tiny_pictures.idx(tmp_path / "digits", n=100)
    for name, wanted in {
        "mnist_ddpm_pretrain": "01234",
        "mnist_ddpm_transfer": "56789",
        "mnist_ddpm": "0123456789",
    }.items():
        recipe = load_recipe(name, data=str(folder))
        splits = load_splits(recipe.data, task_class(recipe.task)(recipe.options).data)
        assert {label for split in (splits.train, splits.validation, splits.test) for label in split["label"]} == set(
            wanted
        )
    assert load_recipe("esc10_ast_frozen", data="x").data.config == "esc10"
    assert load_recipe("digits_vit_transfer", data="x").data.config is None


# ---- the least number of steps ----


def test_min_steps_goes_with_epochs_and_gives_way_to_a_typed_length() -> None:
    name = "texts_minilm_frozen"
    assert load_recipe(name).train.min_steps == 600
    assert load_recipe(name, ["train.epochs=1"]).train.min_steps is None
    assert load_recipe(name, ["train.max_steps=2"]).train.min_steps is None
    for typed in (["train.epochs=1", "train.min_steps=5"], ["train.min_steps=5", "train.epochs=1"]):
        assert load_recipe(name, typed).train.min_steps == 5
    with pytest.raises(RecipeError, match="`min_steps` goes with `epochs`"):
        load_recipe(name, ["train.max_steps=2", "train.min_steps=5"])
    recipe = load_recipe(name)
    assert validate(yaml.safe_load(dump_recipe(recipe))) == recipe
