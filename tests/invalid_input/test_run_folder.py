"""A run folder that `graft` cannot use as asked: in use, another recipe's, damaged, or not written by Graft."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import graft, refused
from tests.support.invalid_inputs import World, a_finished_run, a_right_world, a_world, photo, results, weights  # noqa: F401 (fixtures)
from tests.support.runs import without_pictures

# ---- run folders ----


def test_a_run_folder_of_another_recipe(world: World, finished: Path) -> None:
    run = shutil.copytree(finished, world.tmp / "run")
    error = refused(
        world.graft("train", "train.learning_rate=0.5", "options.augment=crop-flip"), 1, "another recipe", "--run"
    )
    assert "train.learning_rate: the run has 0.001, you ask for 0.5" in error
    assert "options.augment: the run has 'none', you ask for 'crop-flip'" in error
    assert results(run) == results(finished)
    assert weights(run) == weights(finished)
    assert world.graft("train").out.startswith("accuracy")  # its own recipe finds it finished


def test_a_run_that_saved_nothing_may_begin_again_otherwise(world: World) -> None:
    nowhere = ["train.learning_rate=100", "train.optimizer=sgd", "train.clip_norm=null", "train.max_steps=50"]
    nowhere += ["train.eval_every=50", "train.save_every=50"]
    refused(world.graft("train", *nowhere), 1, "train.learning_rate")
    assert not (world.tmp / "run" / "checkpoints" / "last").exists()
    with without_pictures():
        assert world.graft("train").code == 0


def test_keys_that_do_nothing_are_named(world: World) -> None:
    with without_pictures():
        done = world.graft("train", "model.freeze=backbone", "train.head_epochs=1", "train.layer_decay=0.9")
    assert "the trunk is frozen, so this changes nothing: train.head_epochs, train.layer_decay" in done.err, done.err


def test_a_run_folder_in_use(world: World) -> None:
    lock = world.tmp / "run" / ".lock"
    lock.parent.mkdir()
    hold = (
        f"import fcntl, sys; f = open({str(lock)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused(world.graft("train"), 1, "run: another `graft train` is at work here", "--run")
        other.kill()  # the folder is free again however the process ends
    with without_pictures():
        assert world.graft("train").code == 0


def not_ours(world: World) -> str:
    (world.tmp / "thesis").mkdir()
    (world.tmp / "thesis" / "chapter1.tex").write_text("x")
    return "thesis"


def not_a_recipe(world: World) -> str:
    (world.tmp / "odd").mkdir()
    (world.tmp / "odd" / "recipe.yaml").write_text("soup: [leek")
    return "odd"


RUNS: dict[str, tuple[Callable[[World], str], list[str]]] = {
    "a file": (lambda w: "recipe.yaml", ["recipe.yaml: cannot be written", "--run"]),
    "below a file": (lambda w: "recipe.yaml/run", ["cannot be written", "--run"]),
    "a place that takes nothing": (lambda w: "/proc/no/run", ["/proc/no/run: cannot be written"]),
    "somebody's folder": (not_ours, ["thesis: not empty", "--run"]),
    "another recipe.yaml": (not_a_recipe, ["odd/recipe.yaml", "--run"]),
    "a folder of the data": (lambda w: str(w.photos / "run"), ["run folder inside of the data", "--run"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_wrong_run_folder(name: str, world: World) -> None:
    make, words = RUNS[name]
    run = make(world)
    refused(world.graft("train", run=run), 1, *words)
    assert not list(world.tmp.rglob("checkpoints"))
    assert not (world.photos / "run").exists()


def test_an_unfinished_run(world: World, finished: Path) -> None:
    run = shutil.copytree(finished, world.tmp / "half")
    shutil.rmtree(run / "model")
    (run / "results.json").unlink()
    for verb, *rest in (["evaluate"], ["predict", photo(world.photos)], ["demo"]):
        refused(graft(verb, run, *rest), 2, "half", "not finished", "graft train")
    for verb, *rest in (["card"], ["publish", "me/half"]):
        refused(graft(verb, run, *rest), 1, "half")


def test_a_damaged_run(world: World, finished: Path) -> None:
    for name, verbs in (
        ("results.json", ("card", "report")),
        ("model/config.json", ("evaluate",)),
        ("recipe.yaml", ("evaluate", "card")),
    ):
        run = shutil.copytree(finished, world.tmp / name.replace("/", "-"))
        (run / name).write_text('{"half": ')
        for verb in verbs:
            refused(graft(verb, run), 2 if verb == "evaluate" or name == "recipe.yaml" else 1, Path(name).name)


def test_a_damaged_checkpoint(world: World, finished: Path) -> None:
    for name in ("model.safetensors", "optimizer_main.safetensors", "state.json"):
        run = shutil.copytree(finished, world.tmp / name)
        path = run / "checkpoints" / "step_000002" / name
        path.write_bytes(path.read_bytes()[:20])
        refused(
            world.graft("train", "train.max_steps=3", run=name), 1, "step_000002", "cannot be read", "an earlier one"
        )


# ---- verbs that take a run ----


@pytest.mark.parametrize("verb", ["card", "report", "publish"])
def test_the_model_folder_of_a_run_is_no_run(verb: str, world: World, finished: Path) -> None:
    run = shutil.copytree(finished, world.tmp / "run")
    more = ["me/x", "--dry-run"] if verb == "publish" else []
    error = refused(
        graft(verb, run / "model", *more), 2, "the folder of a model, and not of the run that made it", f"give {run}"
    )
    assert "unexpected" not in error
    assert not (run / "model" / "model").exists()
    assert not (run / "model" / "report.html").exists()


@pytest.mark.parametrize("verb", ["card", "report", "publish"])
def test_damaged_files_of_a_run_are_named(verb: str, world: World, finished: Path) -> None:
    run = shutil.copytree(finished, world.tmp / "run")
    more = ["me/x", "--dry-run"] if verb == "publish" else []
    kept = (run / "results.json").read_text()
    for text, words in (
        ("{}", "not the results of a run, it lacks task"),
        ("{", "cannot be read"),
        ("[1]", "it lacks task"),
    ):
        (run / "results.json").write_text(text)
        refused(graft(verb, run, *more), 1, f"{run / 'results.json'}: ", words)
    (run / "results.json").write_text(kept)
    (run / "recipe.yaml").write_text("a: [b")
    refused(graft(verb, run, *more), 2, str(run / "recipe.yaml"))


def test_a_model_folder_that_is_a_link_is_not_published(world: World, finished: Path) -> None:
    run = shutil.copytree(finished, world.tmp / "run")
    (run / "model").rename(run / "real")
    (run / "model").symlink_to("real")
    refused(graft("publish", run, "me/x", "--dry-run"), 1, f"{run / 'model'}: a link, and no link is followed")


def test_a_finished_run_says_what_to_raise(world: World, finished: Path) -> None:
    shutil.copytree(finished, world.tmp / "run")
    assert "is finished; for more, raise train.max_steps" in world.graft("train").err


@pytest.mark.parametrize(
    "first", [("train.max_steps=3", "train.epochs=null"), ("train.epochs=null", "train.max_steps=3")]
)
def test_a_length_in_place_of_another(first: tuple[str, str], world: World) -> None:
    from pipelines.config.recipe import load_recipe

    recipe = load_recipe("photos_efficientnet_b0", list(first), data=str(world.photos), model=str(world.vit))
    assert (recipe.train.max_steps, recipe.train.epochs) == (3, None)
