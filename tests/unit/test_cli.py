"""Fast answers: help, the list of recipes, the error of a recipe. They are slow only if they import a heavy library."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "transformers",
    "gradio",
    "datasets",
    "diffusers",
    "accelerate",
    "peft",
    "timm",
    "matplotlib",
    "sklearn",
    "pandas",
    "scipy",
}
RUN = """
import atexit, os, sys
atexit.register(lambda: open(os.environ["MODULES"], "w").write("\\n".join(sys.modules)))
sys.argv[0] = "graft"
from pipelines.__main__ import main
main()
"""


def graft(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command line in a process of its own. Returns how it ended, and the heavy packages that it imported."""
    modules = tmp_path / "modules.txt"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"MODULES": str(modules)},
        cwd=tmp_path,
    )
    print(f"graft {' '.join(arguments)}: {time.perf_counter() - start:.2f} s")
    return done, HEAVY & set(modules.read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], "Fine-tune"),
        (["train", "--help"], "--smoke"),
        (["recipes"], "pets_vit_base"),
        (["recipes", "pets_vit_base"], "google/vit-base-patch16-224-in21k"),
        (["recipes", "--json"], '"published"'),
        (["schema"], '"learning_rate"'),
        (["--version"], "torch 2."),
    ],
)
def test_an_answer_needs_no_heavy_import(tmp_path: Path, arguments: list[str], answer: str) -> None:
    done, heavy = graft(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer in done.stdout
    assert not heavy


@pytest.mark.parametrize("verb", ["train", "check"])
def test_three_typos_are_answered_at_once(tmp_path: Path, verb: str) -> None:
    (tmp_path / "mine.yaml").write_text("""\
task: image-classification
model: {id: some/model, frezee: backbone}
data: {id: some/data}
options: {image_sise: 224}
train: {epochs: 1, lerning_rate: 5e-5}
""")
    done, heavy = graft(tmp_path, verb, "mine.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.removeprefix("error: ").splitlines() == [
        "mine.yaml:2: model.frezee: unknown key: did you mean 'freeze'?",
        "mine.yaml:4: options.image_sise: unknown key: did you mean 'image_size'?",
        "mine.yaml:5: train.lerning_rate: unknown key: did you mean 'learning_rate'?",
    ]
    assert not heavy


def test_a_recipe_that_does_not_exist(tmp_path: Path) -> None:
    done, heavy = graft(tmp_path, "train", "pets_vit_bas")
    assert done.returncode == 2
    assert done.stderr == (
        "error: no recipe 'pets_vit_bas': no such file, and no shipped recipe has the name: "
        "did you mean 'pets_vit_base'?\n"
    )
    assert not heavy


def test_a_misspelt_folder_needs_no_heavy_import(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    done, heavy = graft(tmp_path, "train", "pets_vit_base", "--data", "photo/")
    assert done.returncode == 2
    assert "photo/ (did you mean photos?)" in done.stderr
    assert not heavy


def test_every_argument_may_be_left_out() -> None:
    """The verb itself says what it needs: pipelines.usage has no words for a parameter that typer misses."""
    import typer

    from pipelines.cli import app

    verbs = typer.main.get_command(app).commands
    assert len(verbs) > 10
    assert [(verb, one.name) for verb, command in verbs.items() for one in command.params if one.required] == []
