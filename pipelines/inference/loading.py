"""Load a finished model for inference, from a run folder, a model folder or the hub."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import LABEL_KEYS, Recipe, recipe_of_model, task_class, task_names
from pipelines.config.validation_errors import suggest
from pipelines.errors import DataError, ModelError
from pipelines.models.adapters import format_of
from pipelines.models.layers import freeze_on
from pipelines.models.source import LIBRARIES, front_matter, local_model, read_json_object
from pipelines.reporting.results import current

if TYPE_CHECKING:
    from torch import nn

    from pipelines.task import Task

# how architectures of torchvision begin that classify videos
VIDEO_MODELS = ("r3d_", "mc3_", "r2plus1d_", "s3d", "mvit_", "swin3d_")


@dataclass
class Located:
    """A finished model whose files are found, and whose weights are not loaded. It is found without torch.

    The task knows which inputs the model takes.
    """

    task: "Task"
    folder: Path
    run: Path | None
    recipe: Recipe | None
    results: dict[str, Any] | None
    source: str
    columns: dict[str, str] = field(default_factory=dict)
    """Names of columns that the user gave, before those of the model's own data: task column -> column of the data."""

    def load(self, device: str | None = None) -> "Loaded":
        """The model on `device`, or else on the best device. Raises ModelError."""
        form = format_of(self.folder)
        model = self.task.load(self.folder) if form is None else form.load(self.task, self.folder)
        model.to(device or best_device()).eval()
        freeze_on(self.task.frozen, device or best_device())
        return Loaded(self.task, model, self.folder, self.run, self.recipe, self.results, self.source, self.columns)


@dataclass
class Loaded:
    """A finished model. `infer(...)` returns its answer for one input."""

    task: "Task"
    model: "nn.Module"
    folder: Path
    run: Path | None
    recipe: Recipe | None
    results: dict[str, Any] | None
    source: str
    columns: dict[str, str] = field(default_factory=dict)
    """Names of columns that the user gave, before those of the model's own data: task column -> column of the data."""

    def infer(self, *inputs: Any, **settings: Any) -> Any:
        """The final answer for one input, as the task defines it.

        The task's input columns may be given by name, in any order: `infer(context=..., question=...)`. Raises
        DataError.
        """
        if self.task.generation is None:
            inputs = _in_order(self.task, inputs, settings)
        answer = None
        for partial in self.task.infer(self.model, *inputs, **settings):
            answer = partial
        return answer


def input_columns(task: "Task") -> tuple[str, ...]:
    """The columns that `infer` takes, in its order: first the required ones, then the optional ones."""
    return (*task.data.input_columns, *task.data.optional_inputs)


def _in_order(task: "Task", inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Inputs in the order of the task's columns. Inputs given by name are removed from `named`. Raises DataError."""
    known = input_columns(task)
    if len(inputs) > len(known):
        raise DataError(f"{len(inputs)} inputs: this model takes {' and '.join(known)}")
    given = dict(zip(known, inputs, strict=False))
    for name in [name for name in named if name in known]:
        if name in given:
            raise DataError(f"{name} is given twice: by its place and by its name")
        given[name] = named.pop(name)
    missing = [name for name in task.data.input_columns if name not in given]
    if missing:
        raise DataError(f"this model also needs {' and '.join(missing)}")
    return tuple(given[name] for name in known if name in given)


def load(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | None = None,
    task: str | None = None,
    options: Any = None,
) -> Loaded:
    """Load a run folder, a model folder or a hub id for inference, on `device` or else the best device.

    A model that Graft did not train needs `task`, or its pipeline tag decides the task. `options` are the task's
    options; they default to those of the model's recipe. Raises ModelError, HubError.
    """
    return locate(source, revision=revision, task=task, options=options).load(device)


def locate(source: str | Path, *, revision: str | None = None, task: str | None = None, options: Any = None) -> Located:
    """Find the files of a finished model as `load` does, without its weights. Raises ModelError, HubError."""
    folder = local_model(source)
    run = None
    if folder is None:
        from pipelines.hub.download import download

        folder = download(str(source), revision)
    elif folder.name == "model" and (folder.parent / "recipe.yaml").is_file():
        run = folder.parent
    recipe = read_recipe(run or folder)
    name = task or (recipe.task if recipe else _task_of(folder, str(source)))
    worker = task_class(name)(options or (recipe.options if recipe and recipe.task == name else None))
    read = worker.data.from_model
    if read is not None:
        read(folder)
    results = read_json_object(folder / "results.json")
    results = current(results) if results is not None else None
    return Located(worker, folder, run, recipe, results, Path(source).name if run else str(source))


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe of a run folder or a published model; None for a model that Graft did not train."""
    path = folder / "recipe.yaml"
    if not path.is_file() or not (folder / "results.json").is_file():  # other tools also write files with this name
        return None
    return recipe_of_model(path)


def _task_of(folder: Path, source: str) -> str:
    front = front_matter(folder)
    tagged = [name for name in task_names() if task_class(name).hub.pipeline_tag == front.get("pipeline_tag")]
    if len(tagged) == 1:
        return tagged[0]
    config = read_json_object(folder / "config.json") or {}
    if config.get("model_type") in LIBRARIES:  # its `architecture` is not one of timm
        kind = str(config.get("architecture"))
        if kind.startswith(("deeplabv3", "fcn_", "lraspp")):
            return "image-segmentation"
        if kind.startswith(VIDEO_MODELS):
            return "video-classification"
        return "instance-segmentation" if kind.startswith("maskrcnn") else "object-detection"
    if config.get("model_type") == "video_features":
        return "video-classification"
    if "_model_class" in config:  # segmentation-models-pytorch wrote it
        return "image-segmentation"
    index = read_json_object(folder / "model_index.json") or {}
    kinds = " ".join(config.get("architectures") or []) or str(
        index.get("_class_name") or config.get("architecture", "")
    )
    for name in (
        tagged or task_names()
    ):  # two tasks may have the same tag (speech recognition), and the model's class decides
        timm = name == "image-classification" and "architecture" in config
        if timm or any(kind.endswith(head) for kind in kinds.split() for head in task_class(name).hub.architectures):
            return name
    raise ModelError(
        f"{source}: a model for another task ({kinds or 'no architecture'}); Graft's tasks: {', '.join(task_names())}"
    )


def check_device(name: str | None) -> None:
    """Raise ModelError if this machine has no device of this name."""
    if name is None or name == "cpu":
        return
    import torch

    here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    here += ["cuda"] * (len(here) > 1) + ["mps"] * torch.backends.mps.is_available()
    if name not in here:
        raise ModelError(
            f"--device {name}: this machine has no such device{suggest(name, here)} (it has: {', '.join(here)})"
        )


def best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def data_columns(model: Loaded | Located) -> dict[str, str]:
    """Task column -> name of the column: the one that the user gave, else that of the model's own data."""
    return (dict(model.recipe.data.columns) if model.recipe else {}) | model.columns


def label_keys(model: Loaded | Located) -> dict[str, Any]:
    """How the model's own data write labels, as settings of `data`. A column of labels that the user names wins."""
    found = {key: getattr(model.recipe.data, key) for key in LABEL_KEYS} if model.recipe else {}
    return found | ({"label_columns": None} if "label" in model.columns else {})
