"""Everything that is wrong with a recipe is reported at once, with file and line and helpful words."""

from pathlib import Path

import pytest

from pipelines.config.recipe import load_recipe, task_names
from pipelines.errors import RecipeError

GOOD = """\
task: image-classification
model: {id: some/model}
data: {id: some/data}
train: {epochs: 1}
"""


def complaints(path: Path, *overrides: str, **command_line: str) -> list[str]:
    """The errors, one line each, without the file's path."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, **command_line)
    return str(caught.value).replace(f"{path}:", "").splitlines()


def test_three_typos_are_named_at_once_with_file_and_line(write) -> None:
    path = write("""\
task: image-classification
model: {id: some/model, frezee: backbone}
data: {id: some/data}
options:
  image_sise: 224
train:
  epochs: 1
  lerning_rate: 5e-5
""")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).splitlines() == [
        f"{path}:2: model.frezee: unknown key: did you mean 'freeze'?",
        f"{path}:5: options.image_sise: unknown key: did you mean 'image_size'?",
        f"{path}:8: train.lerning_rate: unknown key: did you mean 'learning_rate'?",
    ]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train: {epochs: 1, lr: 1}", "4: train.lr: unknown key: did you mean 'learning_rate'?"),
        ("train: {epochs: 1, zzz: 1}", "4: train.zzz: unknown key (allowed: epochs, max_steps, min_steps,"),
        ("trian: {epochs: 1}", "4: trian: unknown key: did you mean 'train'?"),
        ("train: {}", "4: train: give exactly one of `epochs` and `max_steps`"),
        ("train: {epochs: 1, max_steps: 1}", "4: train: give exactly one of `epochs` and `max_steps`"),
        ("train: {epochs: yes}", "4: train.epochs: must be a number, got 'yes'"),
        ("train: {epochs: true}", "4: train.epochs: a number is needed, got true"),
        ("train: {epochs: 1, batch_size: true}", "4: train.batch_size: a number is needed, got true"),
        ("train: {epochs: 1, batch_size: 0}", "4: train.batch_size: must be at least 1, got 0"),
        ("train: {epochs: 1, batch_size: 2.5}", "4: train.batch_size: must be a whole number, got 2.5"),
        ("train: {epochs: .inf}", "4: train.epochs: must be a finite number, got inf"),
        ("train: {epochs: 1, ema: 1}", "4: train.ema: must be below 1.0, got 1"),
        (
            "train: {epochs: 1, micro_batch: aut}",
            "4: train.micro_batch: must be a whole number or 'auto', got 'aut': did you mean 'auto'?",
        ),
        ("train: {epochs: 1, micro_batch: 0}", "4: train.micro_batch: must be at least 1, got 0"),
        (
            "train: {epochs: 1, optimizer: adam}",
            "4: train.optimizer: must be 'adamw' or 'sgd', got 'adam': did you mean 'adamw'?",
        ),
        ("train: {epochs: 1, trackers: wandb}", "4: train.trackers: must be a list, got 'wandb'"),
        ("train: 5", "4: train: must be a mapping of keys, got 5"),
        ("train: {epochs: 1}\nhub: {repo_id: mine}", "5: hub.repo_id: must be OWNER/NAME, got 'mine'"),
        ("train: {epochs: 1}\nhub: {license: 2}", "5: hub.license: must be text, got 2: put it in quotes"),
        ("train: {epochs: 1}\n7: 1", "5: 7: unknown key (allowed: task, model, data, options, train, metrics, hub)"),
        ("train: {epochs: 1}\ndata: {id: b}", "5: data: given twice (first on line 3)"),
        ("train: {epochs: 1}\noptions: {mixup: -1}", "5: options.mixup: must be at least 0.0, got -1"),
        (
            "train: {epochs: 1}\noptions: {augment: flip}",
            "5: options.augment: must be 'none', 'crop-flip', 'distort' or 'randaugment', got 'flip'",
        ),
    ],
)
def test_what_is_wrong_is_said(write, change: str, message: str) -> None:
    (line,) = complaints(write(GOOD.replace("train: {epochs: 1}", change)))
    assert line.replace("at least 0,", "at least 0.0,").replace("below 1,", "below 1.0,").startswith(message)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{}", "model: give exactly one of `id` and `config`"),
        ("{id: a, config: {model_type: vit}}", "model: give exactly one of `id` and `config`"),
        ("{config: {hidden_size: 3}}", "model: `config` needs a `model_type`, such as vit"),
        (
            "{id: a, freeze: bakbone}",
            "model.freeze: must be 'auto', 'none', 'encoder' or 'backbone' or a whole number, got 'bakbone': "
            "did you mean 'backbone'?",
        ),
        ("{id: a, freeze: 0}", "model.freeze: must be at least 1, got 0"),
        (
            "{id: a, freeze: 2, adapter: {kind: lora}}",
            "model: `adapter` freezes the trunk by itself: leave `freeze` out",
        ),
        ("{id: a, adapter: {kind: lora, rnk: 4}}", "model.adapter.rnk: unknown key: did you mean 'rank'?"),
        ("{id: a, adapter: {}}", "model.adapter.kind: is missing"),
        (
            "{id: a, adapter: {kind: lora, targets: [1]}}",
            "model.adapter.targets.0: must be text, got 1: put it in quotes",
        ),
        ("{id: a, revision: 12e5}", "model.revision: must be text, got 1200000.0: put it in quotes"),
    ],
)
def test_what_is_wrong_with_the_model_is_said(write, section: str, message: str) -> None:
    assert complaints(write(GOOD.replace("{id: some/model}", section))) == [f"2: {message}"]


def test_an_unknown_task_is_one_error_and_its_options_are_not_judged(write) -> None:
    (line,) = complaints(
        write(GOOD.replace("image-classification", "image-clasification") + "options: {anything: 1}\n")
    )
    advice = f"did you mean 'image-classification'? (known: {', '.join(task_names())})"
    assert line == f"1: task: unknown task 'image-clasification': {advice}"


def test_missing_sections_are_all_named(write) -> None:
    assert complaints(write("")) == [f" {key}: is missing" for key in ("task", "model", "data", "train")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "a recipe is a mapping of keys (task, model, data, ...), got list"),
        ("just words", "a recipe is a mapping of keys (task, model, data, ...), got str"),
        ("task: [1\n", "2: not valid YAML"),
        ("task: a\n\tmodel: b\n", "2: not valid YAML"),
        ("task: !!python/object/apply:os.system [ls]\n", "1: not valid YAML"),
    ],
)
def test_what_is_no_recipe(write, text: str, message: str) -> None:
    (line,) = complaints(write(text))
    assert message in line


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"task: \xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "bytes.yaml")
    with pytest.raises(RecipeError, match="is a folder: a recipe is a YAML file"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"no recipe 'pets_vit_bas': .*: did you mean 'pets_vit_base'"):
        load_recipe("pets_vit_bas")


def test_lines_follow_the_second_of_two_sections(write) -> None:
    """YAML keeps the second value. An error in it is reported once, on its own line."""
    path = write(GOOD + "train:\n  epochs: 2\n  batch_size: 0\n")
    assert complaints(path) == [
        "5: train: given twice (first on line 4)",
        "7: train.batch_size: must be at least 1, got 0",
    ]


def test_wrong_overrides_are_all_named(write) -> None:
    wrong = ["train.epochs", "hub.tags=[a", "task.x=1", "train.batch_size=0", "train.lr=1", "optins.mixup=1", "=3"]
    assert complaints(write(GOOD), *wrong) == [
        "'train.epochs': an override is key=value, such as train.epochs=1: did you mean train.epochs=VALUE?",
        "'hub.tags=[a': the value is not valid YAML (text with braces needs quotes around it, inside of the shell's)",
        "command line: task.x: unknown key; `graft schema` lists all keys",
        "command line: train.lr: unknown key: did you mean train.learning_rate=1?",
        "command line: optins.mixup: unknown key: did you mean options.mixup=1?",
        "'=3': an override is key=value, such as train.epochs=1",
        "command line: train.batch_size: must be at least 1, got 0",
    ]
