"""Every recipe that Graft ships is complete and valid, with the same header; accelerate reads the launch files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.config import encoders
from pipelines.config.catalog import (
    FIRST,
    FORMER_NAMES,
    HEADER,
    catalog,
    find_recipe,
    header,
    own_data,
    recipe_name,
    recipe_paths,
    run_name,
    score,
)
from pipelines.config.recipe import dump_recipe, load_recipe, task_names
from pipelines.errors import RecipeError
from tests.support.command import graft

RECIPES = recipe_paths()
FOLDER = Path(__file__).parents[3] / "recipes"
LAUNCH = sorted((FOLDER / "launch").glob("*.yaml"))


def test_they_are_all_there() -> None:
    files = [p for p in FOLDER.rglob("*.yaml") if p.parent.name != "launch"]
    assert len(files) == len(RECIPES) >= 25, "two recipes have the same name"
    assert {load_recipe(name).task for name in RECIPES} == set(task_names())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_fits_one_screen(name: str) -> None:
    path = RECIPES[name]
    recipe = load_recipe(path)
    assert recipe.task.replace("-", "_") == path.parent.name
    lines = path.read_text().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 140
    assert recipe.model.revision is None, "a revision needs a source in which it was seen"
    assert recipe.hub.license, "the licence of the weights is known"
    assert yaml.safe_load(dump_recipe(recipe))["train"]["learning_rate"] == recipe.train.learning_rate


@pytest.mark.parametrize("name", RECIPES)
def test_its_header_says_how_to_run_it_and_what_to_expect(name: str) -> None:
    command, values, notes = header(RECIPES[name].read_text())
    assert re.fullmatch(rf"graft train {name}( --data \S+)?", command)
    assert all(values[key] for key in HEADER if key != "takes")
    assert notes.endswith(".")
    for key in ("published", "measured"):
        value = values[key]
        # a score comes with its metric, its split and its source; otherwise the header says that there is none
        assert value.startswith(("none", "not yet")) or re.match(
            r"((f1|exact_match) \d\d\.\d+,|perplexity \d+|fid \d+\.\d+|[a-z_0-9]+ [01]\.\d+) "
            r".*on (test|validation|train) \(.+\)",
            value,
        ), value


def test_the_catalogue_tells_the_same() -> None:
    entries = {entry["name"]: entry for entry in catalog()}
    assert entries.keys() == RECIPES.keys()
    for name, entry in entries.items():
        recipe = load_recipe(name)
        assert (entry["task"], entry["data"]) == (recipe.task, recipe.data.id)
        encoder, config = encoders.place(recipe.model.config), recipe.model.config or {}
        new = f"{config.get('architecture')} on {encoder}" if encoder else config.get("model_type")
        assert entry["model"].startswith(recipe.model.id or new)
        assert encoder is None or "model" in entry["hub"]
        assert Path(entry["path"]) == RECIPES[name]
    assert score("accuracy 0.9 on test (a source)") == "accuracy 0.9 on test"
    assert score("none for this model") == score("not yet") == "-"


# ---- recipes for own data ----


def test_every_task_has_one_first_choice_for_own_data() -> None:
    entries = own_data()
    assert len({entry["task"] for entry in entries}) == 16, "of the tasks that ship"
    first = [entry["name"] for entry in entries if entry["takes"].endswith(FIRST)]
    assert len(first) == 15, "the two tasks of speech recognition share one"
    assert [entry["name"] for entry in entries][: len(first)] == first
    for entry in entries:
        assert load_recipe(entry["name"]).hub.examples == 0 or entry["name"] == "questions_minilm"
        train = load_recipe(entry["name"]).train
        assert (train.min_steps is None) == (train.epochs is None), "a small table trains enough"


def test_former_names_find_their_recipe_and_their_runs() -> None:
    assert len(FORMER_NAMES) == 3
    for former, name in FORMER_NAMES.items():
        assert former not in RECIPES
        assert find_recipe(former) == RECIPES[name]
        assert run_name(former) == former
        assert run_name(name) == name


@pytest.mark.parametrize("inside", ["", "model/"])
def test_the_recipe_of_a_run_gives_the_names_of_that_run(inside: str, tmp_path: Path) -> None:
    run = tmp_path / "pets-lr3e-3"
    (run / "model").mkdir(parents=True)
    path = run / f"{inside}recipe.yaml"
    path.write_text("task: image-classification\n")
    assert (run_name(path), recipe_name(path)) == ("recipe", "recipe")  # no run is there
    (run / "log.jsonl").write_text("")
    assert (run_name(path), recipe_name(path)) == ("pets-lr3e-3", "pets-lr3e-3")
    (run / "results.json").write_text('{"recipe": "pets"}')
    assert (run_name(path), recipe_name(path)) == ("pets-lr3e-3", "pets")


def test_the_list_is_filtered_and_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    everything = graft("recipes").out
    assert max(map(len, everything.splitlines())) <= 80
    found = graft("recipes", "whisper", "laptop").out
    assert re.findall(r"(?m)^  (\w+)", found) == ["speech_whisper_tiny", "librispeech_whisper_tiny_frozen"]
    assert "+ your recordings with transcripts" in found
    assert "* sklearn/digits" in graft("recipes", "digits_vit").out
    assert re.search(r"\n  beans_vit_base +AI-Lab-Makerere/beans\n", everything)
    photos = [entry["name"] for entry in json.loads(graft("recipes", "image-classification", "--json").out)]
    assert photos[:3] == ["photos_efficientnet_b0", "photos_vit_frozen", "beans_vit_base"], "own data come first"
    done = graft("recipes", "wisper")
    assert (done.code, "did you mean whisper?" in done.err) == (2, True)
    assert graft("recipes", "cats_dogs_vit_frozen").out == RECIPES["photos_vit_frozen"].read_text()


def test_a_recipe_without_header_is_listed_with_empty_columns() -> None:
    assert header("task: a\n") == ("", dict.fromkeys(HEADER, ""), "")
    assert header("# graft train x\n# measured: 1\n# a note\n\n# below\ntask: a\n") == (
        "graft train x",
        {"takes": "", "hardware": "", "published": "", "measured": "1"},
        "a note",
    )


def test_the_catalogue_names_a_broken_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.yaml").write_text("task: image-classification\n")
    monkeypatch.setattr("pipelines.config.catalog.recipe_paths", lambda: {"half": tmp_path / "half.yaml"})
    with pytest.raises(RecipeError, match=r"half\.yaml: no complete recipe; `graft check"):
        catalog()


# ---- launch files ----


def test_launch_files_are_all_there() -> None:
    assert [path.stem for path in LAUNCH] == ["deepspeed", "fsdp2", "multi_gpu", "multi_node"]
    assert "UNTESTED" in (FOLDER / "launch/deepspeed.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_accelerate_reads_a_launch_file(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(path))
    kind = {"deepspeed": "DEEPSPEED", "fsdp2": "FSDP"}.get(path.stem, "MULTI_GPU")
    assert config.distributed_type == kind
    assert config.mixed_precision == "no", "the recipe decides the precision"
    assert f"accelerate launch --config_file recipes/launch/{path.name} " in path.read_text()
    known = {action.dest for action in launch_command_parser()._actions}
    for section in (config.fsdp_config, config.deepspeed_config):
        # accelerate silently ignores a key that it does not know
        assert all(key in known for key in section or {}), section


def test_fsdp_is_the_second_version() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(FOLDER / "launch/fsdp2.yaml")).fsdp_config["fsdp_version"] == 2


def test_recipes_are_found_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines", "recipes"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in RECIPES)
