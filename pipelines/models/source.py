"""Find weights and load finished models: a run folder, a model folder or a hub id, all through one door."""

import inspect
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.errors import DataError, ModelError
from pipelines.files import problem
from pipelines.pretrained import LORA
from pipelines.recipe import ModelSection, Recipe, load_recipe, task_class, task_names
from pipelines.wording import short

if TYPE_CHECKING:
    from torch import nn

    from pipelines.task import Task


DESCRIBED = ("config.json", "model_index.json", LORA)  # a model of transformers or timm, a pipeline of diffusers, an adapter of one


@dataclass(frozen=True)
class Weights:
    """Where a model starts from: a local folder, or a configuration and random weights."""

    folder: Path | None
    config: dict[str, Any] | None = None
    random: bool = False
    name: str = ""  # hub id, or last path component: fit to be published
    base_model: str | None = None  # the nearest hub id up the chain of runs
    revision: str | None = None  # resolved commit of a hub model
    license: str | None = None


def resolve(section: ModelSection) -> Weights:
    """A recipe's model section -> weights on this disk; hub models are downloaded. Raises ModelError or HubError."""
    if section.config is not None:
        return Weights(None, section.config, True, name=f"{section.config['model_type']} from scratch")
    assert section.id is not None
    random = section.weights == "random"
    folder = local_model(section.id)
    if folder is None:
        from pipelines.fetch import download

        folder = download(section.id, section.revision)
        front = front_matter(folder)
        return Weights(folder, None, random, section.id, section.id, folder.name, front.get("license"))
    if section.revision is not None:
        raise ModelError(f"model.revision: {section.id} is a folder here, which has no revisions: leave it out")
    front = front_matter(folder)
    base = front.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    run = folder.parent if folder.name == "model" and (folder.parent / "results.json").is_file() else None
    return Weights(
        folder, None, random, (run or folder).resolve().name, base if isinstance(base, str) else None, None, front.get("license")
    )


def local_model(source: str | Path) -> Path | None:
    """The model folder at a local path (a run's is its model/), or None when `source` has the form of a hub id."""
    why = problem(str(source))
    if why:
        raise ModelError(f"no model can be called {short(str(source))!r}: {why}")
    path = Path(source).expanduser()
    if path.is_dir():
        folder = path / "model" if any((path / "model" / name).is_file() for name in DESCRIBED) else path
        if not any((folder / name).is_file() for name in DESCRIBED):
            unfinished = (path / "recipe.yaml").is_file()
            raise ModelError(
                f"{path}: "
                + ("the run is not finished: run its `graft train` command again" if unfinished else "no model here (config.json)")
            )
        return folder
    if path.exists():
        raise ModelError(f"{path}: a model is a folder or a hub id, this is a file")
    text = str(source)
    if text.startswith((".", "/", "~")) or text.count("/") > 1 or text.startswith("runs/"):
        raise ModelError(f"{text}: no such folder; a model is a run folder, a model folder or a hub id (owner/name)")
    return None


def front_matter(folder: Path) -> dict[str, Any]:
    """What a model folder's README.md says of itself; empty where there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    parts = text.split("---", 2) if text.startswith("---") else []
    try:
        found = yaml.safe_load(parts[1]) if len(parts) == 3 else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass
class Loaded:
    """A finished model: `infer(...)` answers for one input."""

    task: "Task"
    model: "nn.Module"
    folder: Path
    run: Path | None
    recipe: Recipe | None
    results: dict[str, Any] | None
    source: str

    def infer(self, *inputs: Any, **settings: Any) -> Any:
        """The final answer for one input, as the task gives it.

        The columns that the task takes may be given by name, in any order: `infer(context=..., question=...)`. Raises DataError.
        """
        if not self.task.makes:
            inputs = _in_order(self.task, inputs, settings)
        answer = None
        for answer in self.task.infer(self.model, *inputs, **settings):  # noqa: B007 (the last one is the answer)
            pass
        return answer


def input_columns(task: "Task") -> tuple[str, ...]:
    """The columns that `infer` takes, in its order: those that it needs, then those that it can do without."""
    taken = inspect.signature(task.infer).parameters
    return (*task.inputs, *(name for name in task.optional if name in taken and name not in task.inputs))


def _in_order(task: "Task", inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Inputs in the order of the task's columns; those that are given by name are taken out of `named`. Raises DataError."""
    known = input_columns(task)
    if len(inputs) > len(known):
        raise DataError(f"{len(inputs)} inputs: this model takes {' and '.join(known)}")
    given = dict(zip(known, inputs, strict=False))
    for name in [name for name in named if name in known]:
        if name in given:
            raise DataError(f"{name} is given twice: by its place and by its name")
        given[name] = named.pop(name)
    missing = [name for name in task.inputs if name not in given]
    if missing:
        raise DataError(f"this model also needs {' and '.join(missing)}")
    return tuple(given[name] for name in known if name in given)


def load(
    source: str | Path, *, revision: str | None = None, device: str | None = None, task: str | None = None, options: Any = None
) -> Loaded:  # fmt: skip
    """Load a run folder, a model folder or a hub id for inference, on the best device unless one is named.

    A model that Graft did not make is loaded by its pipeline tag, or by `task`; with the task's `options`, else its recipe's.
    Raises ModelError, HubError.
    """
    folder = local_model(source)
    run = None
    if folder is None:
        from pipelines.fetch import download

        folder = download(str(source), revision)
    elif folder.name == "model" and (folder.parent / "recipe.yaml").is_file():
        run = folder.parent
    recipe = read_recipe(run or folder)
    name = task or (recipe.task if recipe else _task_of(folder, str(source)))
    worker = task_class(name)(options or (recipe.options if recipe and recipe.task == name else None))
    results = _read_json(folder / "results.json")
    if (folder / "adapter_config.json").is_file():
        model = _with_adapter(worker, folder)
    elif (folder / LORA).is_file() and not (folder / "model_index.json").is_file():
        model = worker.load_adapter(_base_of(folder), folder)
    else:
        model = worker.load(folder)
    model.to(device or best_device()).eval()
    worker.place(device or best_device())
    return Loaded(worker, model, folder, run, recipe, results, Path(source).name if run else str(source))


def _with_adapter(task: "Task", folder: Path) -> "nn.Module":
    """A published adapter on its base model, merged: the base model's weights are read under the adapter's configuration."""
    from peft import PeftModel

    settings = _read_json(folder / "adapter_config.json") or {}
    name = settings.get("base_model_name_or_path")
    if not name:
        raise ModelError(f"{folder}: an adapter whose adapter_config.json names no base model")
    base = local_model(name)
    if base is None:
        from pipelines.fetch import download

        base = download(name, settings.get("revision"))
    with tempfile.TemporaryDirectory() as place:
        for file in folder.iterdir():
            if file.is_file() and not file.name.startswith("adapter_"):
                shutil.copyfile(file, Path(place) / file.name)
        for file in base.iterdir():
            if file.name.endswith((".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")):
                (Path(place) / file.name).symlink_to(file.resolve())
        model = task.load(Path(place))
    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except Exception as error:  # damaged files, or a base model of another shape
        raise ModelError(f"{folder}: the adapter does not fit its base model {name}: {str(error).splitlines()[0]}") from error


def _base_of(folder: Path) -> Path:
    """The base model of an adapter in diffusers' format, which its file or its card names. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / LORA, "np") as file:
            about = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder / LORA}: cannot be read: {error}") from None
    known = {key.rpartition(".")[2]: value for key, value in about.items()}  # unet.revision
    name = known.get("base_model_name_or_path") or front_matter(folder).get("base_model")
    if not isinstance(name, str):
        raise ModelError(f"{folder}: an adapter that names no base model, nor does its README.md (base_model)")
    base = local_model(name)
    if base is None:
        from pipelines.fetch import download

        base = download(name, known.get("revision"))
    return base


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe of a run folder or a published model; None for a model that Graft did not make."""
    path = folder / "recipe.yaml"
    if not path.is_file() or not (folder / "results.json").is_file():  # other tools call files so, too
        return None
    return load_recipe(path, exists=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file of a model folder holds; None where there is none. Raises ModelError for a damaged one."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)  # NaN: undefined
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: must hold one JSON object, got {type(found).__name__}")
    return found


def _task_of(folder: Path, source: str) -> str:
    front = front_matter(folder)
    tagged = [name for name in task_names() if task_class(name).hub_tag == front.get("pipeline_tag")]
    if len(tagged) == 1:
        return tagged[0]
    config = _read_json(folder / "config.json") or {}
    index = _read_json(folder / "model_index.json") or {}
    kinds = " ".join(config.get("architectures") or []) or str(index.get("_class_name") or config.get("architecture", ""))
    for name in tagged or task_names():  # two tasks may share a tag, as those of speech recognition do: the model's class tells them apart
        timm = name == "image-classification" and "architecture" in config
        if timm or any(kind.endswith(head) for kind in kinds.split() for head in task_class(name).heads):
            return name
    raise ModelError(f"{source}: a model for another task ({kinds or 'no architecture'}); Graft's tasks: {', '.join(task_names())}")


def best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
