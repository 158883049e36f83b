"""The list of runs, and runs that are found by their short names."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config.recipe import SCORELESS
from pipelines.errors import ModelError
from pipelines.reporting import runs as listing
from pipelines.reporting.runs import find, runs, short_name, source, table, when
from tests.support.command import graft, refused

HOME = Path("runs/image-classification")
TRAIN = {"epochs": 10, "max_steps": None, "head_epochs": 10, "batch_size": 32, "learning_rate": 1e-3, "seed": 0}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def a_run(
    name: str, at: str | None = "2026-11-20T10:00:00Z", *, score: float = 0.962, home: Path = HOME, **train: Any
) -> Path:
    """A run folder with what the list reads; without `at` it is not finished."""
    folder = home / name
    (folder / "model").mkdir(parents=True)
    recipe = {
        "task": home.name,
        "model": {"id": "/somewhere/mobilenet/hf", "weights": "pretrained"},
        "data": {"id": "/somewhere/else/photos"},
        "train": {**TRAIN, **train},
        "hub": {"license": "mit"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    if at:
        scored = {"metrics": {"accuracy": score}, "ci95": {"accuracy": [score - 0.03, score + 0.02]}, "n": 70}
        results = {
            **{"schema": 2, "task": home.name, "name": name, "recipe": "photos", "started": at, "finished": at},
            **{"wall_seconds": 26.1, "metric": {"name": "accuracy", "direction": "max"}, "test": scored},
            **{"train": {"steps": 80}, "data": {"name": "photos"}},
            **{"model": {"id": "hf", "name": "MobileNetV2 (local folder)"}, "environment": {}},
        }
        for path in (folder / "results.json", folder / "model" / "results.json"):
            path.write_text(json.dumps(results))
    else:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last").write_text("step_000012\n")
    return folder


# ---- the list ----


def test_a_row_says_what_the_run_is() -> None:
    a_run("photos")
    a_run("photos-lr3e-3", "2026-11-21T10:00:00Z", score=0.97, learning_rate=3e-3)
    first, second = runs()
    assert (first["name"], second["name"]) == ("photos-lr3e-3", "photos")
    assert first["differs"] == {"train.learning_rate": 3e-3}
    assert second["differs"] == {}
    assert first | {"ci95": None} == {
        "name": "photos-lr3e-3",
        "folder": "runs/image-classification/photos-lr3e-3",
        "task": "image-classification",
        "recipe": "photos",
        "state": "finished",
        "step": 80,
        "date": "2026-11-21T10:00:00Z",
        "started": "2026-11-21T10:00:00Z",
        "finished": "2026-11-21T10:00:00Z",
        "wall_seconds": 26.1,
        "metric": "accuracy",
        "score": 0.97,
        "ci95": None,
        "rows": 70,
        "data": "photos",
        "model": "MobileNetV2 (local folder)",
        "differs": {"train.learning_rate": 3e-3},
        "problem": None,
    }
    assert json.loads(graft("runs", "--json").out) == [first, second]


def test_the_table_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    a_run("photos", "2025-11-20T10:00:00Z")
    a_run("photos-lr3e-3", "2025-11-21T10:00:00Z", score=0.97, learning_rate=3e-3, seed=4, head_epochs=0)
    a_run("photos-epochs20", None, epochs=20)
    a_run("a_name_that_is_far_too_long_for_one_column-and-more", home=Path("runs/text-classification"))
    out = graft("runs").out
    assert max(map(len, out.splitlines())) <= 80, out
    assert "a_name_that_is_far_too_long_for_one_column-and-more" in out
    assert re.search(r"photos-lr3e-3 +Nov 2025  0\.97 \(0\.94 to 0\.99\)  lr 3e-3,", out), out
    assert re.search(r"photos-epochs20 .*stopped at step 12 .* epochs 20", out), out
    assert "image-classification on photos\n" in out
    assert out.index("photos-epochs20") < out.index("photos-lr3e-3")  # the newest first
    assert "last` is the newest" in out


def test_words_select(capsys: pytest.CaptureFixture[str]) -> None:
    a_run("photos")
    a_run("photos-lr3e-3", "2026-11-21T10:00:00Z", learning_rate=3e-3)
    a_run("reviews", home=Path("runs/text-classification"))
    assert [row["name"] for row in runs("LR", "photos")] == ["photos-lr3e-3"]
    assert [row["name"] for row in runs("text-class")] == ["reviews"]
    assert [row["name"] for row in runs("2026-11-21")] == ["photos-lr3e-3"]
    assert runs("nothing") == []
    assert graft("runs", "nothing", "here").out == "no run below runs/ holds 'nothing' and 'here'\n"


def test_a_shipped_recipe_is_what_its_runs_are_compared_with() -> None:
    run = a_run("digits_vit_pretrain", learning_rate=0.5)
    for path in (run / "results.json", run / "model" / "results.json"):
        path.write_text(path.read_text().replace('"photos"', '"digits_vit_pretrain"', 2))
    (row,) = runs()
    assert row["recipe"] == "digits_vit_pretrain"
    assert row["differs"]["train.learning_rate"] == 0.5
    assert not {"data.id", "hub.license"} & row["differs"].keys()


def test_a_setting_that_one_side_lacks_differs_from_its_default() -> None:
    """An adapter is one setting, and recipe.yaml has neither betas nor min_steps if they are not set."""
    lora = {"kind": "lora", "rank": 8, "alpha": 16}

    def changed(run: Path, section: str, **values: Any) -> None:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        recipe[section] |= values
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    for base, adapter in (("plain", None), ("lora", lora)):
        for place, other in enumerate((None, lora, lora | {"rank": 4})):
            run = a_run(f"{base}-{place}", None)
            changed(run, "model", adapter=other)
        changed(a_run(base, min_steps=50), "model", adapter=adapter)
    changed(HOME / "plain-0", "train", betas=[0.9, 0.95], min_steps=50, gradient_checkpointing=True)
    found = {row["name"]: row["differs"] for row in runs()}
    assert found["plain-0"] == {"train.betas": [0.9, 0.95]}
    assert found["plain-1"] == {"model.adapter": lora, "train.min_steps": None}
    assert found["lora-0"] == {"model.adapter": None, "train.min_steps": None}
    assert found["lora-1"] == {"train.min_steps": None}
    assert found["lora-2"] == {"model.adapter.rank": 4, "train.min_steps": None}
    shown = table(runs(), 200)
    assert re.search(r"plain-1 .* no min steps, LoRA of rank 8\n", shown), shown
    assert re.search(r"lora-0 .* no adapter\n", shown), shown
    assert re.search(r"lora-2 .* rank 4\n", shown), shown


def test_lora_shows_against_a_shipped_recipe() -> None:
    from pipelines.config.catalog import recipe_paths
    from pipelines.config.recipe import dump_recipe, load_recipe

    run = a_run("digits_vit_pretrain", None)
    recipe = load_recipe(recipe_paths()["digits_vit_pretrain"], exists=True)
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    assert runs()[0]["differs"] == {}
    raw = yaml.safe_load((run / "recipe.yaml").read_text())
    raw["model"]["adapter"] = {"kind": "lora", "rank": 8}
    raw["options"] |= {"unheard_of": 1, "image_size": raw["options"]["image_size"]}
    (run / "recipe.yaml").write_text(yaml.safe_dump(raw))
    assert runs()[0]["differs"] == {"model.adapter": {"kind": "lora", "rank": 8}}


def test_settings_that_change_no_score_are_those_that_may_change_in_a_run() -> None:
    assert SCORELESS < listing.UNSHOWN
    a_run("photos", gradient_checkpointing=False)
    a_run("photos-2", gradient_checkpointing=True, micro_batch=4, trackers=["csv"])
    assert [row["differs"] for row in runs()] == [{}, {}]


def test_a_broken_run_is_listed_with_what_is_wrong() -> None:
    spoil = {
        "results": ("results.json", "{"),
        "kind": ("results.json", "[1]"),
        "metric": ("results.json", "{}"),
        "yaml": ("recipe.yaml", "soup: [leek"),
        "text": ("recipe.yaml", "soup"),
        "bytes": ("recipe.yaml", "\x00"),
    }
    for name, (file, text) in spoil.items():
        (a_run(name) / file).write_text(text)
    (a_run("gone") / "recipe.yaml").unlink()
    a_run("\x1b[31mred\n")
    found = {row["name"]: row for row in runs()}
    for name in (*spoil, "gone"):
        assert found[name]["state"] == "damaged", name
        assert found[name]["problem"], name
    out = graft("runs").out
    assert "results.json cannot be read" in out
    assert "recipe.yaml is missing" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_run_at_work(tmp_path: Path) -> None:
    folder = a_run("photos", None)
    hold = (
        "import sys; from pathlib import Path; from pipelines.utils.lock import locked\n"
        f"with locked(Path({str(folder / '.lock')!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert runs()[0]["state"] == "training"
        assert "training now" in table(runs())
        other.kill()
    assert runs()[0]["state"] == "stopped"


def test_a_run_that_nobody_can_ask_about() -> None:
    """Its lock cannot be read: it may be going on, so it is not called stopped."""
    folder = a_run("photos", None)
    with socket.socket(socket.AF_UNIX) as unreadable:
        unreadable.bind(str(folder / ".lock"))
    (row,) = runs()
    assert row["state"] == "unfinished"
    assert "  not finished  " in table([row])
    assert a_run("done").is_dir()
    with socket.socket(socket.AF_UNIX) as unreadable:
        unreadable.bind(str(HOME / "done" / ".lock"))
    assert {row["name"]: row["state"] for row in runs()}["done"] == "finished"


def test_older_results_have_no_dates() -> None:
    run = a_run("photos")
    for path in (run / "results.json", run / "model" / "results.json"):
        found = json.loads(path.read_text())
        for key in ("name", "started", "finished", "wall_seconds"):
            del found[key]
        path.write_text(json.dumps(found))
    os.utime(run / "results.json", (1e9, 1e9))
    (row,) = runs()
    assert (row["name"], row["date"], row["finished"], row["wall_seconds"]) == (
        "photos",
        "2001-09-09T01:46:40Z",
        None,
        None,
    )


def test_two_hundred_runs_are_listed_at_once() -> None:
    first = a_run("photos")
    for number in range(199):
        shutil.copytree(first, HOME / f"photos-{number + 2}")
    began = time.perf_counter()
    assert len(runs()) == 200
    assert time.perf_counter() - began < 2  # 0.3 s on an idle core; the test's machine may be busy


def test_dates_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = datetime(2026, 11, 29, 22, 0, tzinfo=UTC)
    dates = ("2026-11-29T21:15:19Z", "2026-11-08T21:15:19Z", "2025-01-08T21:15:19Z")
    assert [when(date, now) for date in dates] == ["21:15", "8 Nov", "Jan 2025"]


# ---- names ----


def test_a_run_is_found_by_its_name() -> None:
    run = a_run("photos-lr3e-3")
    a_run("photos")
    deep = a_run("photos", home=Path("runs/sweeps/image-classification"))
    assert find("photos-lr3e-3") == run
    assert find("image-classification/photos-lr3e-3") == run
    assert find("sweeps/image-classification/photos") == deep
    assert find(str(deep)) == deep
    assert find(str(deep.absolute())) == deep.absolute()
    with pytest.raises(ModelError, match=r"2 runs are called 'photos': .* image-classification/photos, sweeps/image-"):
        find("photos")
    with pytest.raises(ModelError, match=r"no run 'photos-lr3e3' below runs/: did you mean 'photos-lr3e-3'"):
        find("photos-lr3e3")
    assert short_name(run) == "photos-lr3e-3"
    assert short_name(deep) == str(deep)
    assert short_name(Path("elsewhere/run")) == "elsewhere/run"


def test_last_is_the_newest() -> None:
    with pytest.raises(ModelError, match="no run below runs/ here"):
        find("last")
    a_run("photos", "2026-11-20T10:00:00Z")
    newer = a_run("photos-2", "2026-11-21T10:00:00Z")
    assert find("last") == newer == Path(runs()[0]["folder"])
    unfinished = a_run("photos-3", None)  # written just now
    assert find("last") == unfinished
    Path("last").mkdir()
    assert find("last") == unfinished
    (Path("last") / "config.json").write_text("{}")
    assert find("last") == Path("last"), "a model of this name"


def test_what_is_no_run_stays_as_it_is() -> None:
    """A hub id stays one. So does a path, unless a run has this name, which is often that of the folder of its data."""
    run = a_run("photos")
    Path("photos").mkdir()
    Path("plants").mkdir()
    assert source("photos") == str(run) == source("image-classification/photos")
    assert (source("./photos"), source("plants")) == ("./photos", "plants")
    assert source("google/vit-base-patch16-224") == "google/vit-base-patch16-224"
    assert source("gpt2") == "gpt2"
    assert source("\0") == "\0"
    shutil.rmtree("photos")
    assert source("photos") == str(HOME / "photos")


@pytest.mark.parametrize("verb", ["demo", "report", "card", "publish", "evaluate", "predict", "compare"])
def test_a_verb_without_a_run_lists_the_runs(verb: str) -> None:
    a_run("photos-lr3e-3")
    done = graft(verb)
    assert done.code == 2
    assert "photos-lr3e-3" in done.err
    assert f"error: `graft {verb}` needs " in done.err
    assert "`last`" in done.err


def test_verbs_take_short_names() -> None:
    run = a_run("photos-lr3e-3")
    (run / "model" / "config.json").write_text("{}")
    refused(graft("report", "photos-lr3e"), 2, "did you mean 'photos-lr3e-3'")
    refused(graft("publish", "last"), 2, "needs a name on the hub")
    refused(graft("predict", "last"), 2, "`graft predict` needs inputs")
    done = graft("report", "photos-lr3e-3/model")
    refused(done, 2, "no run")
    assert graft("publish", "last", "me/x", "--dry-run").err.startswith(
        "error: runs/image-classification/photos-lr3e-3"
    )


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from pipelines.reporting.runs import find, runs, table; table(runs()); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'accelerate') if m in sys.modules])"
    )
    a_run("digits_vit_pretrain", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr
    assert listing.LAST == "last"
