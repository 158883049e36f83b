"""What the demos of image generation show and save, and their Spaces. tests/browser tests them as a visitor."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

from pipelines.data.image.reading import read_notes
from pipelines.errors import DataError, ModelError
from pipelines.generation import requests
from pipelines.inference.loading import Loaded, load
from pipelines.models.diffusion import preview_every
from pipelines.publishing.space import space_folder
from tests.support import tiny_diffusion
from tests.support.pages import gradio_page
from tests.support.spaces import elsewhere, running_imports

__all__ = ["elsewhere", "gradio_page"]

pytestmark = pytest.mark.usefixtures("gradio_page")


def unconditional(folder: Path, seed: int = 1) -> Path:
    blocks: dict[str, Any] = {
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "add_attention": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DModel(sample_size=8, block_out_channels=[8, 16], norm_num_groups=4, layers_per_block=1, **blocks)
        DDIMPipeline(unet, DDPMScheduler(num_train_timesteps=100)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline for each task; read only."""
    root = tmp_path_factory.mktemp("pipelines")
    return {
        "unconditional_image_generation": unconditional(root / "shapes"),
        "text_to_image": tiny_diffusion.stable(root / "painter"),
    }


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Loaded]:
    return {name: load(folder, device="cpu") for name, folder in folders.items()}


def request(name: str, seed: int = 0, steps: int = 4) -> dict[str, Any]:
    return {"seed": seed, "steps": steps} | ({"text": "a red disc", "guidance": 3.0} if name == "text_to_image" else {})


TASKS = ("unconditional_image_generation", "text_to_image")


# ---- previews ----


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("steps", [1, 4, 25])
def test_a_preview_is_called_by_its_step(models: dict[str, Loaded], name: str, steps: int) -> None:
    """The page counts previews. The task decides when there is one."""
    from pipelines.apps.gallery import make

    stride = preview_every(steps)
    notes = [note for *_, note in make(models[name], [request(name, steps=steps)])]
    shown = [int(note.split("step ")[1].split()[0]) for note in notes[:-1]]
    assert shown == [*range(stride, steps, stride), steps]
    assert notes[-1].startswith("1 image. ")


@pytest.mark.parametrize("name", TASKS)
def test_images_are_files_that_say_what_made_them(models: dict[str, Loaded], name: str) -> None:
    from pipelines.apps.gallery import make

    *_, (alone, before, _) = make(models[name], [request(name, 7)])
    *_, (three, _, note) = make(models[name], [request(name, seed) for seed in (6, 7, 8)])
    assert before == []
    assert note.startswith("3 images. ")
    assert [caption for _, caption in three] == ["seed 6", "seed 7", "seed 8"]
    assert len({Path(file).read_bytes() for file, _ in three}) == 3
    assert Path(three[1][0]).read_bytes() == Path(alone[0][0]).read_bytes()  # even if the request asks for another size
    own = {"model": "shapes"} if name == TASKS[0] else {"model": "painter", "prompt": "a red disc", "guidance": 3.0}
    assert requests.read_settings(read_notes(Path(alone[0][0]), "it"), "it") == {**own, "seed": 7, "steps": 4}
    assert Path(alone[0][0]).name == ("shapes-seed-7.png" if name == TASKS[0] else "a-red-disc-seed-7.png")
    infer = models[name].infer(**request(name, 7))
    with Image.open(alone[0][0]) as saved:
        assert saved.tobytes() == infer.tobytes()


def test_seeds_follow_each_other() -> None:
    from pipelines.apps.gallery import seeds

    assert seeds(" 5 ", 3) == [5, 6, 7]
    for bad, words in (("", "no seed"), ("1.5", "no seed"), ("-1", "from 0"), (str(2**63 - 1), "from 0")):
        with pytest.raises(DataError, match=words):
            seeds(bad, 2)


# ---- before and after ----


def tuned(model: Loaded, run: Path | None, source: str | None, **about: Any) -> Any:
    """Treat `model` as if it were a run that started from `source`."""
    recipe = SimpleNamespace(model=SimpleNamespace(id=source))
    facts = {"id": source and Path(source).name, "base_model": None, "revision": None, "random_weights": False, **about}
    results = {"model": facts, "recipe": "tuned"}
    return SimpleNamespace(**{**vars(model), "run": run, "recipe": recipe, "results": results})


def test_the_model_before_stands_beside_it(models: dict[str, Loaded], folders: dict[str, Path], tmp_path: Path) -> None:
    from pipelines.apps.gallery import base_of, make

    base = base_of(tuned(models[TASKS[0]], tmp_path, str(unconditional(tmp_path / "first", seed=2))))
    seen = list(make(models[TASKS[0]], [request(TASKS[0], seed) for seed in (0, 1)], base))
    assert seen[0] == ([], [], "Loading first, the model before fine-tuning …")
    after, before, _ = seen[-1]
    assert [caption for _, caption in after] == [caption for _, caption in before] == ["seed 0", "seed 1"]
    assert [Path(file).name for file, _ in before] == ["first-seed-0.png", "first-seed-1.png"]
    with Image.open(before[0][0]) as image:
        assert image.tobytes() == load(tmp_path / "first", device="cpu").infer(0, steps=4).tobytes()
    once = base.loaded
    again = list(make(models[TASKS[0]], [request(TASKS[0])], base))
    assert base.loaded is once
    assert "Loading" not in again[0][2]


def test_before_and_after_are_made_alike(models: dict[str, Loaded], tmp_path: Path) -> None:
    """The base model's own files name another sampler and another size."""
    from pipelines.apps.gallery import base_of

    ancestral = unconditional(tmp_path / "ancestral", seed=2)
    index = ancestral / "model_index.json"
    index.write_text(index.read_text().replace("DDIMPipeline", "DDPMPipeline"))
    config = ancestral / "unet" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 8', '"sample_size": 16'))
    large = tiny_diffusion.stable(tmp_path / "large", unet={"sample_size": 16})
    for name, source in zip(TASKS, (ancestral, large), strict=True):
        alone = load(source, device="cpu")
        assert alone.infer(**request(name)).size == (models[name].task.size[0] * 2,) * 2  # type: ignore[attr-defined]
        before = base_of(tuned(models[name], tmp_path, str(source))).load()
        assert before.infer(**request(name)).size == before.task.size == models[name].task.size  # type: ignore[attr-defined]
        assert before.task.options == models[name].task.options
    assert models[TASKS[0]].task.options.sampler == "ddim"


def test_steps_end_where_the_task_ends(models: dict[str, Loaded]) -> None:
    assert [models[name].task.generation.settings["steps"].most for name in TASKS] == [100, 500]


def test_where_the_model_before_comes_from(models: dict[str, Loaded], tmp_path: Path) -> None:
    from pipelines.apps.gallery import base_of

    model, here, gone = models[TASKS[0]], str(unconditional(tmp_path / "here")), str(tmp_path / "gone")
    hub = {"id": "me/base", "base_model": "me/base", "revision": "abc"}
    for run, source, about, found in (
        (tmp_path, here, {}, (here, None, "here")),
        (tmp_path, "me/base", hub, ("me/base", "abc", "me/base")),
        (None, "me/base", hub, ("me/base", "abc", "me/base")),
        # the nearest size that is possible
        (tmp_path, gone, {"base_model": "me/first"}, ("me/first", None, "me/first")),
        (None, here, {"base_model": "me/first"}, ("me/first", None, "me/first")),  # a folder on somebody else's machine
    ):
        base = base_of(tuned(model, run, source, **about))
        assert (base.source, base.revision, base.name) == found
    for run, source, about, words in (
        (tmp_path, None, {}, "trained from random weights"),
        (tmp_path, here, {"random_weights": True}, "trained from random weights"),
        (tmp_path, gone, {}, r"\(gone\) is not on the hub, and its folder is not here"),
        (None, here, {}, r"\(here\) is not on the hub"),
    ):
        with pytest.raises(ModelError, match=words):
            base_of(tuned(model, run, source, **about))
    with pytest.raises(ModelError, match="not known"):
        base_of(model)


def test_a_model_before_that_cannot_be_had_is_said_and_the_rest_goes_on(
    models: dict[str, Loaded], tmp_path: Path
) -> None:
    from pipelines.apps.gallery import base_of, make

    (tmp_path / "broken").mkdir()
    base = base_of(tuned(models[TASKS[0]], tmp_path, str(tmp_path / "broken")))
    *_, (after, before, note) = make(models[TASKS[0]], [request(TASKS[0])], base)
    assert (len(after), before) == (1, [])
    assert "The model before fine-tuning cannot be had: " in note
    assert "no model here" in note


# ---- served ----


@pytest.mark.parametrize("name", TASKS)
def test_the_api_gives_files_with_their_settings(models: dict[str, Loaded], name: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    from pipelines.apps import launch

    page = launch.app(models[name])
    launch.serve(page, "127.0.0.1")
    try:
        client = Client(page.local_url, verbose=False, analytics_enabled=False)
        words = name == "text_to_image"
        values = [*(["a red disc"] if words else []), 2, "5", 4, *([3.0] if words else [])]
        _, images, note = client.predict(*values, api_name="/predict")
        found = [requests.read_settings(read_notes(Path(one["image"]), "it"), "it") for one in images["value"]]
        assert [one["seed"] for one in found] == [5, 6]
        assert note.startswith("2 images. ")
        bad = [(len(values) - (3 if words else 2), "x", "no seed"), *([(0, " ", "prompt is needed")] if words else [])]
        for place, value, message in bad:
            with pytest.raises(AppError, match=message) as caught:
                client.predict(*[value if i == place else one for i, one in enumerate(values)], api_name="/predict")
            assert "Traceback" not in str(caught.value)
        assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/predict"]
        client.close()
    finally:
        page.close(verbose=False)


# ---- Spaces ----

SPACE = """
import sys
from pathlib import Path
from pipelines.apps.launch import app
from pipelines.inference.loading import load
import pipelines
assert Path(pipelines.__file__).parent.parent == Path.cwd(), pipelines.__file__
loaded = load(sys.argv[1], device="cpu")
app(loaded)
print(loaded.infer(*sys.argv[2:], steps=2).size)
"""


@pytest.mark.parametrize("name", TASKS)
def test_a_space_holds_what_its_page_reaches(name: str, tmp_path: Path) -> None:
    space = space_folder("me/model", name.replace("_", "-"), tmp_path / "space")
    listed = {line.split("==")[0] for line in (space / "requirements.txt").read_text().splitlines() if "==" in line}
    assert {"diffusers", "torch", "transformers", "gradio", "accelerate"} <= listed
    held = {
        path.relative_to(space / "pipelines").with_suffix("").as_posix() for path in (space / "pipelines").rglob("*.py")
    }
    assert "generation/requests" in held
    assert not {"cli", "evaluation/evaluate", "generation/comparison"} & held
    assert not [name for name in held if name.startswith("training/")]
    used = {one for path in space.rglob("*.py") for one in running_imports(path) if one.startswith("pipelines.")}
    assert len(used) > 10
    missing = [
        one
        for one in used
        if not any(space.joinpath(*one.split("."), *end).with_suffix(".py").is_file() for end in ((), ("__init__",)))
    ]
    assert missing == []


@pytest.mark.integration
def test_a_space_makes_images_where_graft_is_not_installed(
    folders: dict[str, Path], elsewhere: Path, tmp_path: Path
) -> None:
    space = space_folder("me/model", "text-to-image", tmp_path / "space")
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{space}:{elsewhere}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-S", "-c", SPACE, str(folders["text_to_image"]), "a red disc"]
    done = subprocess.run(command, cwd=space, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(16, 16)"
