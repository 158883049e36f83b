"""The recipe: one YAML file that holds every setting of a run. Unknown keys are errors.

recipe = load_recipe("beans_vit_base", ["train.epochs=1"])
"""

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipelines.config import hub_metadata, renamed
from pipelines.config import overrides as overrides_of
from pipelines.config.catalog import find_recipe, recipe_paths, run_of
from pipelines.config.validation_errors import COMMAND_LINE, explain, keys, suggest
from pipelines.config.yaml_io import Keys, dump, read_file
from pipelines.errors import RecipeError
from pipelines.utils import files
from pipelines.utils.formatting import short


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, got {str(value).lower()}")
    return value


Int = Annotated[int, BeforeValidator(_not_bool)]
Float = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """Base class of every section and of every task's Options. Unknown keys are errors, and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    models: ClassVar[tuple[str, ...]] = ()  # keys whose value may be the folder of a model
    settled: ClassVar[tuple[str, ...]] = ()  # keys that the run sets from its model if they are left out
    of_the_model: ClassVar[tuple[str, ...]] = ()  # keys that a finished model has in its files: no scoring changes them
    learned: ClassVar[tuple[str, ...]] = ()  # keys that say what a trained model learned: its scoring keeps them


def of_a_run(info: ValidationInfo) -> bool:
    """Whether the recipe belongs to a run or model that exists. It is then read even if a new run would refuse it."""
    return bool(info.context and info.context.get("exists"))


class Adapter(Strict):
    kind: Literal["lora"]
    """The kind of adapter; LoRA (Hu et al. 2021) is the only one."""
    rank: Annotated[Int, Field(ge=1, le=1024)] = 16
    """Rank of the update. A higher rank learns more and needs more memory."""
    alpha: Annotated[Float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank. Left out: 2 * rank."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Dropout rate of the adapter's inputs in training."""
    targets: list[str] | None = None
    """Names of modules, or how the names end. Left out: every Linear and Conv2d of the trunk."""


class ModelSection(Strict):
    id: str | None = None
    """Hub id, timm hub id, local folder or run folder."""
    config: dict[str, Any] | None = None
    """Instead of `id`: a transformers configuration (`model_type` and its fields), trained from random weights."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture of `id` and starts from random weights, as a baseline."""
    revision: str | None = None
    """Commit, branch or tag of the model on the hub. Left out: the newest commit. The run records the commit."""
    freeze: Literal["auto", "none", "encoder", "backbone"] | Annotated[Int, Field(ge=1)] = "auto"
    """What does not train: `none`, `backbone` (all but the head), `encoder` (Whisper's encoder, or the convolutions
    before wav2vec2's transformer), or a number of blocks, counted from the input. `auto`: the convolutions of a
    pretrained model of wav2vec2's kind, else none.
    """
    adapter: Adapter | None = None
    """Train a small adapter, and leave the weights of the model unchanged."""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSection":
        if (self.id is None) == (self.config is None):
            raise ValueError("give exactly one of `id` and `config`")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, such as vit")
        if self.adapter is not None and self.freeze not in ("auto", "none", "encoder"):
            raise ValueError("`adapter` freezes the trunk by itself: leave `freeze` out")
        return self


def _text_keys(value: Any) -> Any:
    """The mapping with its whole numbers as text: YAML reads `0: sky` with the number 0."""
    if not isinstance(value, dict):
        return value
    return {str(key) if type(key) is int else key: name for key, name in value.items()}


class DataSection(Strict):
    id: str
    """Hub id, or a local file or folder."""
    config: str | None = None
    """Configuration of a data set on the hub, or part of a format (`esc10` of ESC-50, `split2` of UCF101)."""
    revision: str | None = None
    """Commit, branch or tag of the data set on the hub. Left out: the newest commit. The run records the commit."""
    format: str | None = None
    """Format of the data. Left out: found from the id and the files."""
    train: str | None = None
    """Name of the split to train on."""
    validation: str | None = None
    """Name of the split that decides which checkpoint is the best."""
    test: str | None = None
    """Name of the split for the final scores.

    A split that is left out has its usual name; a missing one is cut from train.
    """
    columns: dict[str, str] = {}
    """The task's column -> the data set's column."""
    label_columns: Annotated[list[str], Field(min_length=2)] | None = None
    """Columns with 0 or 1, each named after its label, in place of one column of labels."""
    label_separator: Annotated[str, Field(min_length=1, max_length=8)] | None = None
    """What stands between the labels of a row in a text, with options.multi_label. Left out: `|`."""
    mask_classes: Annotated[dict[str, str | None], Field(min_length=1), BeforeValidator(_text_keys)] | None = None
    """Class of each value of the masks: `{0: membrane, 255: cell}`, or of each colour (`"r,g,b"` or `"#rrggbb"`).

    `null` stands for pixels that are ignored. Left out: a table of classes in the data, or the values themselves.
    """
    holdout: Annotated[Float, Field(gt=0, le=0.5)] = 0.1
    """Fraction of the train split that is cut off for each missing split."""
    group: str | None = None
    """Column (a speaker, a patient) whose equal values stay in one split; `none` allows overlap.

    Rows with equal content always stay in one split.
    """
    max_train_rows: Annotated[Int, Field(ge=1)] | None = None
    """Largest number of training rows; `data.seed` decides which."""
    max_eval_rows: Annotated[Int, Field(ge=1)] | None = None
    """Largest number of rows of validation and of test; `data.seed` decides which."""
    max_skipped: Annotated[Float, Field(ge=0, le=1)] = 0.01
    """Fraction of a split that may be unreadable before the run stops.

    Above 0, three rows of any split are allowed; 0 allows none.
    """
    workers: Annotated[Int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Number of processes that load examples; `auto` depends on the machine."""
    cache_gb: Annotated[Float, Field(ge=0)] = 10.0
    """Disk space for cached features, in GB; 0 switches the cache off."""
    seed: Int = 0
    """Seed of the cut of missing splits and of `max_*_rows`.

    It is not train.seed, so runs with different seeds share a test split.
    """


Beta = Annotated[Float, Field(ge=0, lt=1)]


class TrainSection(Strict):
    epochs: Annotated[Float, Field(gt=0, le=100_000)] | None = None
    """Number of passes over the training rows; a fraction is allowed."""
    max_steps: Annotated[Int, Field(ge=1)] | None = None
    """Number of optimiser steps, instead of `epochs`."""
    min_steps: Annotated[Int, Field(ge=1)] | None = None
    """Least number of optimiser steps: if `epochs` has fewer, there are more epochs. So a small table trains enough.

    `train.epochs=N` on the command line takes it away, so that there are exactly N epochs.
    """
    head_epochs: Annotated[Int, Field(ge=0, le=1000)] = 0
    """Epochs in which only the head trains, on the frozen trunk, before everything trains."""
    batch_size: Annotated[Int, Field(ge=1, le=1_000_000)] = 32
    """Examples in one optimiser step, over all processes."""
    micro_batch: Annotated[Int, Field(ge=1)] | Literal["auto"] = "auto"
    """Examples on one device at a time."""
    eval_batch_size: Annotated[Int, Field(ge=1)] | Literal["auto"] = "auto"
    """Examples on one device at a time in evaluation."""
    sampling: Literal["length", "random"] = "length"
    """`length` puts examples of similar length into one step, if examples have lengths."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter 2019), or SGD with momentum 0.9."""
    learning_rate: Annotated[Float, Field(gt=0, le=100)] = 5e-5
    """The highest learning rate, reached after the warm-up."""
    head_learning_rate: Annotated[Float, Field(gt=0, le=100)] | None = None
    """Learning rate of the new head. Left out: `learning_rate`."""
    betas: tuple[Beta, Beta] | None = None
    """The betas of AdamW. Left out: those of the task, else 0.9 and 0.999."""
    weight_decay: Annotated[Float, Field(ge=0, le=10)] = 0.01
    """Weight decay; biases and norms have none."""
    layer_decay: Annotated[Float, Field(gt=0, le=1)] | None = None
    """The learning rate of each block is this fraction of the rate of the block above it."""
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[Float, Field(ge=0)] = 0.1
    """Length of the warm-up: below 1 a fraction of all steps, from 1 a number of steps."""
    clip_norm: Annotated[Float, Field(gt=0)] | None = 1.0
    """Gradients with a greater norm are scaled down to it; `null` switches it off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the computation.

    `auto`: bf16 if the hardware supports it and it is faster; fp16 on GPUs with fp16 alone (T4, V100); else fp32.
    Weights that train stay in fp32. fp16 scales the loss, and skips the steps whose gradients overflow.
    """
    tf32: bool = True
    """Whether products in fp32 may round their factors to TF32, on GPUs that have it: several times as fast."""
    baseline: bool = True
    """Whether the test split is scored before training. It shows what the pretrained model can do already, but takes
    the time of one more scoring.
    """
    ema: Annotated[Float, Field(gt=0, lt=1)] | Literal["auto"] | None = "auto"
    """Decay of the moving average of the weights.

    The average is what is evaluated and exported. `auto`: 0.9999 for diffusion, else no average.
    """
    compile: bool = False
    """Compile the model with torch.compile: slower to start, faster afterwards."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of storing them: less memory, more time."""
    metric: str | None = None
    """The score that decides which checkpoint is the best, and when `early_stopping` ends the run; reports show it
    first. Left out: the first one of the task.
    """
    early_stopping: Annotated[Int, Field(ge=1)] | None = None
    """The run ends after this many evaluations without a better score."""
    seed: Int = 0
    """Seed of everything random in training: order, augmentation, dropout, the new head."""
    log_every: Annotated[Int, Field(ge=1)] = 10
    """Steps between two lines of log.jsonl."""
    eval_every: Annotated[Int, Field(ge=1)] | Literal["epoch"] = "epoch"
    """Steps between two evaluations on validation, or `epoch`."""
    save_every: Annotated[Int, Field(ge=1)] | Literal["epoch"] = "epoch"
    """Steps between two checkpoints, or `epoch`."""
    keep: Annotated[Int, Field(ge=1)] = 1
    """Number of newest checkpoints to keep; the best one is always kept."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Trackers that also receive the log; each needs its package (`pip install '.[trackers]'`)."""

    @model_validator(mode="after")
    def _one_duration(self) -> "TrainSection":
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give exactly one of `epochs` and `max_steps`")
        if self.min_steps is not None and self.max_steps is not None:
            raise ValueError("`min_steps` goes with `epochs`; `max_steps` is the number itself: leave `min_steps` out")
        if self.betas is not None and self.optimizer != "adamw":
            raise ValueError(f"`betas` are AdamW's: leave them out, or set `optimizer: adamw` (got {self.optimizer})")
        return self


class HubSection(Strict):
    repo_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """Name of the model on the hub (OWNER/NAME), as the card shows it."""
    private: bool = False
    """Whether `graft publish` creates a private repository."""
    license: str | None = None
    """Licence of the model for the card, as the hub names it."""
    language: str | list[str] | None = None
    """Language code or codes for the card, as the hub names them."""
    tags: list[str] = []
    """Additional tags for the card."""
    examples: Annotated[Int, Field(ge=0, le=50)] = 0
    """Number of test rows that are published with the model, for its card and demo.

    The card shows at most as many rows that the model has wrong. Set it only if you may share the data.
    """
    adapter: bool = False
    """Publish the LoRA adapter alone instead of the merged model."""

    @field_validator("license")
    @classmethod
    def _licence_of_the_hub(cls, name: str | None, info: ValidationInfo) -> str | None:
        return name if name is None or of_a_run(info) else hub_metadata.licence(name)

    @field_validator("language")
    @classmethod
    def _language_of_the_hub(cls, codes: str | list[str] | None, info: ValidationInfo) -> str | list[str] | None:
        for code in [codes] if isinstance(codes, str) else codes or []:
            if not of_a_run(info):
                hub_metadata.language(code)
        return codes


HUB_METRIC = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
HUB_METRIC_LIKE = re.compile(r"[\w.-]+/[\w.-]+(@.*)?")  # a hub id, or an attempt to write one


def metric_module_name(entry: str) -> str:
    """The prefix of a module's scores: ./metrics/my-metric.py -> my_metric, evaluate-metric/rouge@... -> rouge."""
    last = entry.partition("@")[0] if HUB_METRIC.fullmatch(entry) else entry.removesuffix(".py")
    return re.sub(r"\W", "_", last.replace("\\", "/").rpartition("/")[2])


def _metric_module(entry: str) -> str:
    """Check how an entry of `metrics` is written. Whether the module exists shows when it is loaded."""
    why = files.problem(entry)
    if why:
        raise ValueError(f"no file or module can be called {short(entry)!r}: {why}")
    if entry.endswith(".py") or HUB_METRIC.fullmatch(entry):
        return entry
    if HUB_METRIC_LIKE.fullmatch(entry) and not entry.startswith("."):
        repo = entry.partition("@")[0]
        raise ValueError(
            f"{short(entry, 80)} is code from the hub, which runs only with its full commit: {repo}@<40 hexadecimal "
            "digits> "
            "(on its page: Files, History)"
        )
    raise ValueError(
        f"{short(entry, 80)!r} is no metric: give a local file (./my_metric.py) or owner/name@<full commit> of the hub"
    )


def metric_problem(task: Any, name: str) -> str:
    """Why `name` cannot be the headline score of a task with its options; empty if it can."""
    known = task.metrics
    if name in known:
        return ""
    return (
        f"train.metric: {task.name} gives no score {short(name)!r}{suggest(name, known)} "
        f"(with these options: {', '.join(known)})"
    )


class Recipe(Strict):
    task: str
    """What is learned: the name of a task."""
    model: ModelSection
    """What training starts from."""
    data: DataSection
    """What is learned from, and how it is split."""
    options: SerializeAsAny[BaseModel] = None  # type: ignore[assignment]  # the task's Options, filled by the validator
    """Settings of the task."""
    train: TrainSection
    """Settings of training."""
    metrics: list[Annotated[str, AfterValidator(_metric_module)]] = []
    """Additional metrics of validation and test.

    Each is a module of code: a local file (./my_metric.py, relative to the recipe's folder) or a module of the hub with
    its full commit (evaluate-metric/rouge@<commit>). They run only if you name the recipe yourself.
    """
    hub: HubSection = HubSection()
    """Settings of the card and of publishing."""

    @field_validator("metrics")
    @classmethod
    def _different_module_names(cls, entries: list[str]) -> list[str]:
        """Module names must differ, because they are the prefixes of the scores."""
        taken: dict[str, str] = {}
        for entry in entries:
            name = metric_module_name(entry)
            if name in taken:
                raise ValueError(
                    f"{taken[name]} and {entry} would both be called {name}: rename one of the files, or leave one out"
                )
            taken[name] = entry
        return entries

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in task_names():
            raise ValueError(f"unknown task {name!r}{suggest(name, task_names())} (known: {', '.join(task_names())})")
        return name

    @field_validator("model", "data")
    @classmethod
    def _possible(cls, section: Any) -> Any:
        """Refuse an `id` that no file, folder or hub repository can have."""
        why = "" if section.id is None else files.problem(section.id)
        if why:
            raise ValueError(f"no file, folder or hub id can be called {short(section.id)!r} (id): {why}")
        return section

    @field_validator("options", mode="before")
    @classmethod
    def _typed_options(cls, value: Any, info: Any) -> Any:
        if "task" not in info.data:  # the task name is wrong, and that error is enough
            return Strict()
        options = task_class(info.data["task"]).Options
        return (
            value
            if isinstance(value, options)
            else options.model_validate({} if value is None else value, context=info.context)
        )

    @model_validator(mode="after")
    def _adapter_to_publish(self) -> "Recipe":
        if self.hub.adapter and self.model.adapter is None:
            raise ValueError(
                "`hub.adapter` publishes the adapter alone, and there is none: set `model.adapter`, or leave "
                "`hub.adapter` out"
            )
        return self

    @model_validator(mode="after")
    def _known_metric(self, info: ValidationInfo) -> "Recipe":
        name = self.train.metric
        if name is None or of_a_run(info):
            return self
        problem = metric_problem(task_class(self.task)(self.options), name)
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _different_columns(self, info: ValidationInfo) -> "Recipe":
        """Refuse two task columns that read the same data column: the label would be part of the input."""
        if of_a_run(info):
            return self
        spec = task_class(self.task)(self.options).data
        taken: dict[str, str] = {}
        second = [name for name in spec.optional_inputs if name in self.data.columns]
        for column in dict.fromkeys((*spec.columns, *second)):
            own = self.data.columns.get(column, column)
            if own in taken:
                what = f"{taken[own]} and {column} would both be the column {own!r} of the data"
                if getattr(self.options, "prompt", None) and "answer" in (column, taken[own]):
                    advice = f"take {{{own}}} out of the prompt, which ends where the answer is to follow"
                    if own in ("messages", "conversations"):
                        advice = "for conversations, set options.chat=true in place of the prompt"
                    raise ValueError(f"options.prompt: {what}: {advice}")
                raise ValueError(f"data.columns: {what}: name another column for one of them")
            taken[own] = column
        return self

    model_config = ConfigDict(validate_default=True)


# ---- tasks are found by their file names ----


def task_names() -> list[str]:
    folder = resources.files("pipelines.tasks")
    names = (entry.name for entry in folder.iterdir())
    return sorted(name[:-3].replace("_", "-") for name in names if name.endswith(".py") and not name.startswith("_"))


def task_class(name: str) -> Any:
    """The Task subclass in `pipelines/tasks/<name>.py`."""
    module = importlib.import_module(f"pipelines.tasks.{name.replace('-', '_')}")
    return next(v for v in vars(module).values() if isinstance(v, type) and getattr(v, "name", None) == name)


# ---- reading ----


def load_recipe(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    model: str | None = None,
    exists: bool = False,
) -> Recipe:
    """Read, override and validate a recipe. `overrides` are `key=value` strings: `train.epochs=3`, or `epochs=3`.

    `data` and `model` are --data and --model of the command line. A new source also removes the settings that belonged
    to the old one. `exists` is that of `validate`. Raises RecipeError that lists all problems, one per line, with file
    and line.
    """
    path = find_recipe(source)
    raw, lines, problems = read_file(path)
    if data is not None:
        part = "config" if format_declares(_section(raw, "data").get("format"), "KEEPS_CONFIG") else ""
        raw["data"] = {
            **{k: v for k, v in _section(raw, "data").items() if k == part or k not in _OF_THE_SOURCE},
            "id": data,
        }
    if model is not None:
        kept = {k: v for k, v in _section(raw, "model").items() if k not in ("revision", "config")}
        raw["model"] = {**kept, "id": model}
    settings, wrong = overrides_of.read(overrides, known_keys(raw, overrides))
    problems += wrong
    if exists and run_of(path) is not None:
        raw = with_older_meanings(raw, path.parent)
    named = {key for key, _ in settings}
    hub = _section(raw, "hub")
    if (
        data is not None or "data.id" in named
    ):  # the recipe's author allowed to publish rows of their own data, not of this data
        hub.pop("examples", None)
    if model is not None or "model.id" in named:  # and their licence may not fit this model
        hub.pop("license", None)
    for key, value in settings:
        problems += overrides_of.put(raw, lines, key, value)
    typed = lines.get(("metrics",)) == COMMAND_LINE
    if (
        raw.get("metrics")
        and not typed
        and (beside := [name for name in MODEL_FILES if (path.parent / name).is_file()])
    ):
        problems.append(
            f"{path}: metrics: this recipe lies in the folder of a model ({beside[0]}) and may have come with it, and "
            "metrics are code: "
            "copy the recipe to another folder, or type metrics=[]"
        )
    if isinstance(raw.get("metrics"), list):
        shipped = path in recipe_paths().values()
        raw["metrics"] = [local_metric(entry, Path() if typed or shipped else path.parent) for entry in raw["metrics"]]
    return validate(raw, str(path), lines, problems, exists=exists)


def known_keys(raw: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, str]:
    """Every key that an override may set, for the task of the recipe or of the overrides."""
    tasks = [raw.get("task"), *(word[5:] for word in overrides if word.startswith("task="))]
    if tasks[-1] not in task_names():
        return keys(Recipe, Strict) | {"options": "names"}
    return keys(Recipe, task_class(tasks[-1]).Options) | {f"options.{old}": "value" for old in renamed.FROZEN}


class Scoring(NamedTuple):
    """What the scoring of a finished model reads of a recipe."""

    data: DataSection
    options: Any
    train: TrainSection
    asked: frozenset[str] = frozenset()  # keys that the command line set


# keys of it, and sections
SCORED = ("data", "options", *(f"train.{key}" for key in ("eval_batch_size", "metric", "precision", "tf32")))


def for_scoring(found: Scoring, overrides: Sequence[str], *, trained: bool = True) -> Scoring:
    """The same with other values: `data.columns.text=body`, or `columns.text=body`. Raises RecipeError.

    `trained` says that Graft trained the model: then also the options that it learned stay as they are.
    """
    options = type(found.options)
    every = keys(Recipe, options)
    known = {key: kind for key, kind in every.items() if key in SCORED or key.partition(".")[0] in SCORED}
    own = {key for key in overrides if _trains(key.partition("=")[0].strip(), known, every)}
    settings, problems = overrides_of.read([one for one in overrides if one not in own], known)
    problems += [f"command line: {one}: it is a setting of the training, which is over" for one in sorted(own)]
    fixed = {f"options.{key}" for key in (*options.of_the_model, *(options.learned if trained else ()))}
    problems += [
        f"command line: {key}: the model has its own value of it, and the scoring cannot change it: leave it out"
        for key, _ in settings
        if key in fixed
    ]
    sections = ("data", "options", "train")
    raw = {name: getattr(found, name).model_dump(exclude_defaults=True) for name in sections}
    given = {key for key, _ in settings}
    if "data.columns.label" in given:  # these two exclude each other, and the user's wins over the model's
        raw["data"].pop("label_columns", None)
    if "data.label_columns" in given:
        raw["data"].get("columns", {}).pop("label", None)
    for key, value in settings:
        problems += overrides_of.put(raw, {}, key, value)
    made: dict[str, Any] = {}
    for name in sections:
        try:
            made[name] = type(getattr(found, name)).model_validate(raw[name], context={"exists": True})
        except ValidationError as error:
            wrong = error.errors()
            for one in wrong:
                one["loc"] = (name, *one["loc"])
            problems += explain(wrong, "command line", {}, Recipe, type(found.options))
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))
    return Scoring(**made, asked=frozenset(key for key, _ in settings))


def _trains(key: str, known: Mapping[str, str], every: Mapping[str, str]) -> bool:
    """Whether an override is a key of the recipe that has no effect on the scoring of a finished model."""
    return not overrides_of.meant(key, known) and bool(overrides_of.meant(key, every))


MODEL_FILES = ("config.json", "model_index.json", "adapter_config.json", "pytorch_lora_weights.safetensors")


def local_metric(entry: Any, folder: Path) -> Any:
    """An entry of `metrics`; the path of a local file becomes absolute, relative to `folder`."""
    if not isinstance(entry, str) or not entry.endswith(".py") or files.problem(entry):
        return entry
    return str((folder / Path(entry).expanduser()).resolve())


def recipe_of_model(path: Path) -> Recipe:
    """The recipe of a run or of a finished model, without its `metrics`.

    Metrics are code, and the model may be a download: its recipe must never decide which code runs on this machine.
    """
    raw, lines, problems = read_file(path)
    raw.pop("metrics", None)
    return validate(with_older_meanings(raw, path.parent), str(path), lines, problems, exists=True)


def with_older_meanings(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe.yaml of a run or model in `folder`, with what version 0.1 did where it wrote no key.

    That version read special tokens in texts as tokens. Later ones write `special_tokens` into the recipe of every run.
    A model's recipe may lack it, because Spaces of version 0.1 do not know it; then the results in the same folder
    have a later schema.
    """
    options, name = raw.get("options") or {}, raw.get("task")
    if not isinstance(options, dict) or not isinstance(name, str) or name not in task_names():
        return raw
    fields = task_class(name).Options.model_fields
    if "special_tokens" not in fields or "special_tokens" in options or _schema(folder / "results.json") > 1:
        return raw
    return {**raw, "options": {**options, "special_tokens": "keep"}}


def _schema(path: Path) -> int:
    """The schema of results; 0 if there are none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    number = found.get("schema") if isinstance(found, dict) else None
    return number if isinstance(number, int) else 0


LABEL_KEYS = ("label_columns", "label_separator")  # of `data`; they tell how a source writes labels, like `columns`
_OF_THE_SOURCE = ("id", "config", "revision", "format", "columns", *LABEL_KEYS, "train", "validation", "test", "group")


def format_declares(layout: Any, what: str) -> bool:
    """Whether the module of a data format has this constant, set.

    KEEPS_CONFIG: the format has the same parts for every data source (digits 0-4 of MNIST). BUILT_IN: its data come
    with a library, and `data.id` is only a name.
    """
    if not isinstance(layout, str) or not layout.isidentifier():
        return False
    if not resources.files("pipelines.data.formats").joinpath(f"{layout}.py").is_file():
        return False
    return bool(getattr(importlib.import_module(f"pipelines.data.formats.{layout}"), what, False))


def validate(
    raw: dict[str, Any],
    name: str = "recipe",
    lines: dict[Keys, int] | None = None,
    problems: Sequence[str] = (),
    *,
    exists: bool = False,
) -> Recipe:
    """A mapping as a Recipe. Raises RecipeError that lists all problems.

    With `exists`, the recipe belongs to a run or model that exists. Its licence and languages are then not compared
    with the hub's (Graft's list may be older than the model), and its columns and prompt are not checked as for a new
    run.
    """
    raw, moved = renamed.options(raw, exists=exists)
    found = [*problems, *moved, *_no_unicode(raw)]
    try:
        recipe = Recipe.model_validate(raw, context={"exists": exists})
    except ValidationError as error:
        known = isinstance(raw.get("task"), str) and raw["task"] in task_names()
        found += explain(
            error.errors(), name, lines or {}, Recipe, task_class(raw["task"]).Options if known else Strict
        )
    if found:
        raise RecipeError("\n".join(dict.fromkeys(found)))
    return recipe


def _no_unicode(value: Any, where: str = "") -> list[str]:
    """Problems of texts that cannot be written to a file: YAML accepts halves of surrogate pairs, UTF-8 does not."""
    if isinstance(value, dict):
        parts = [(key, f"{where}.{key}".lstrip(".")) for key in value] + [
            (value[key], f"{where}.{key}".lstrip(".")) for key in value
        ]
        return [problem for part, name in parts for problem in _no_unicode(part, name)]
    if isinstance(value, list):
        return [problem for part in value for problem in _no_unicode(part, where)]
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return [f"{ascii(where)[1:-1]}: {value!a} is no Unicode text"]
    return []


def _section(raw: dict[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


# ---- writing ----


# Settings that change the results of a run by rounding at most. They may change while the run is unfinished.
SCORELESS = {f"data.{key}" for key in ("workers", "cache_gb", "max_skipped")}
SCORELESS |= {f"train.{key}" for key in ("micro_batch", "eval_batch_size", "gradient_checkpointing")}
SCORELESS |= {f"train.{key}" for key in ("save_every", "keep", "log_every", "trackers")}
SCORELESS |= {"metrics"}  # metrics score predictions that are stored


# Keys that version 0.1 does not know, and their defaults
NEWER: dict[str, dict[str, bool | float | str | None]] = {
    "data": {"label_columns": None, "label_separator": None, "mask_classes": None},
    "options": {"special_tokens": "text", "chat": False, "white": None, "pretrain": 0.0},
    "train": {"betas": None, "min_steps": None, "metric": None, "tf32": True, "baseline": True},
}


def dump_recipe(recipe: Recipe) -> str:
    """The recipe of a run as YAML, with its default values. `load_recipe` reads it back into an equal recipe.

    Of the keys that version 0.1 does not know, those with their defaults are left out: a Space that was published by
    that version keeps its code, and reads the recipe of every model that is published to it. `special_tokens` is
    written, because runs of that version lack it, and have another value (`with_older_meanings`).
    """
    raw = recipe.model_dump(mode="json")
    if not raw["metrics"]:
        del raw["metrics"]
    written = without_newer(raw)
    if "special_tokens" in raw["options"]:
        kept = {*written["options"], "special_tokens"}
        written["options"] = {key: value for key, value in raw["options"].items() if key in kept}
    return dump(written)


def without_newer(raw: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the keys that version 0.1 does not know, where they have their defaults."""
    return {
        name: {key: value for key, value in part.items() if NEWER[name].get(key, ...) != value}
        if name in NEWER
        else part
        for name, part in raw.items()
    }


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of recipes, with the options of every task. Every key has a description, which editors show."""
    schema = Recipe.model_json_schema()
    del schema["$defs"]["BaseModel"]  # the options of no task
    named, about = (Recipe.model_fields[key].description for key in ("task", "options"))
    schema["properties"]["options"] = {"type": "object", "description": f"{about} Its keys depend on `task`."}
    schema["properties"]["task"]["enum"] = task_names()
    schema["allOf"] = []
    for name in task_names():
        options = task_class(name).Options.model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
        schema["$defs"][name] = options
        rule = {
            "if": {"properties": {"task": {"const": name, "description": named}}, "required": ["task"]},
            "then": {"properties": {"options": {"$ref": f"#/$defs/{name}", "description": f"Settings of {name}."}}},
        }
        schema["allOf"].append(rule)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_with_bounds(json.loads(json.dumps(schema)))}


BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


def _with_bounds(schema: Any) -> Any:
    """The schema with its bounds under the names of JSON schema: pydantic keeps its own if a validator comes before."""
    if isinstance(schema, list):
        return [_with_bounds(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    number = schema.get("type") in ("integer", "number")
    return {BOUNDS.get(key, key) if number else key: _with_bounds(value) for key, value in schema.items()}
