"""The classics of deep learning: small networks that transformers has no class for.

A recipe chooses one as `model: {config: {model_type: lenet}}`, in a task that exists. Each network is a plain
`nn.Module` with huggingface_hub's PyTorchModelHubMixin: a folder holds config.json and model.safetensors, and the card
shows the code of the class, so a model loads without Graft. The arguments of a network are the keys of its
configuration.

    network = create(config, "ForImageClassification")      # random weights
    network = load(folder, config, "ForImageClassification")
"""

import importlib
import inspect
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from transformers.initialization import no_init_weights

from pipelines.errors import ModelError
from pipelines.models.classic_kinds import KINDS
from pipelines.utils.formatting import short

MOST_WEIGHTS = 5 * 10**8  # VGG-19, the largest of them, has 144 million
TEXTS = ("reads_pairs", "pad_token_id", "eos_token_id")  # what a configuration also says of a model for texts
LARGEST = {int: 2**20, float: 1e6}  # of an argument: a network of a billion layers would fill the memory by its names
MOST = {"num_hidden_layers": 1000, "image_size": 4096}  # as options.image_size


class Classic(nn.Module, PyTorchModelHubMixin):
    """A network with a `trunk` and a `head`, its last layer. Its arguments are plain values with defaults.

    The class is named as in transformers: LeNetForImageClassification. `config` is set where it is created.
    """

    model_type: ClassVar[str]
    base_model_prefix: ClassVar[str] = "trunk"
    config: Any
    unread: frozenset[str] = frozenset()  # names of the weights that were not in the files

    def save_pretrained(self, folder: Path) -> None:  # type: ignore[override]
        """Write config.json and model.safetensors, as PyTorchModelHubMixin reads them."""
        config = self.config
        fields = {
            **{name: getattr(config, name) for name in arguments(type(self))},
            "num_labels": config.num_labels,
            "model_type": self.model_type,
            "architectures": [type(self).__name__],
            "id2label": {str(number): label for number, label in config.id2label.items()},
            "problem_type": config.problem_type,
            **{name: getattr(config, name) for name in TEXTS if getattr(config, name, None) is not None},
        }
        super().save_pretrained(folder, config=fields)


def arguments(network: type[Classic]) -> dict[str, inspect.Parameter]:
    """The arguments of a network but `num_labels`, which comes from the classes of the data."""
    found = inspect.signature(network.__init__).parameters
    return {name: one for name, one in found.items() if name not in ("self", "num_labels")}


def networks(kind: str) -> list[type[Classic]]:
    """The networks of a `model_type`, one for each task that it is for."""
    own = (one for module in _modules(kind) for one in vars(module).values() if isinstance(one, type))
    return [one for one in own if issubclass(one, Classic) and getattr(one, "model_type", None) == kind]


def _modules(kind: str) -> list[Any]:
    # each by its name, so that a Space has the file
    from pipelines.models import classic_audio, classic_autoencoder, classic_images, classic_texts

    known = {one.__name__: one for one in (classic_audio, classic_autoencoder, classic_images, classic_texts)}
    return [known[f"pipelines.models.{module}"] for module in KINDS[kind]]


def recipe_keys(kind: type[Classic]) -> dict[str, Any]:
    """Keys of `model.config` that a network's module reads beside its arguments, with their defaults.

    They are for building the model, and config.json does not hold them.
    """
    return dict(getattr(importlib.import_module(kind.__module__), "RECIPE", {}))


def register(kind: str) -> None:
    """Let transformers read configurations of this `model_type`: with the arguments of its networks for all tasks."""
    if kind in CONFIG_MAPPING:
        return
    fields = {
        # an int is also a number where a float is asked for: `dropout: 0`
        "__annotations__": {
            name: float | int if one.annotation is float else one.annotation for name, one in _fields(kind).items()
        },
        **{name: one.default for name, one in _fields(kind).items()},
        "__module__": __name__,
        "model_type": kind,
    }
    AutoConfig.register(kind, strict(type(f"{kind.title().replace('_', '')}Config", (PretrainedConfig,), fields)))


def _fields(kind: str) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for network in networks(kind):
        given = {
            name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=Any)
            for name, value in recipe_keys(network).items()
        }
        found = {**arguments(network), **given, **found}
    return found


def usual(config: Any, name: str) -> Any:
    """The default of a key of `model.config`."""
    return _fields(config.model_type)[name].default


def forget_recipe_keys(config: Any) -> None:
    """Set keys that only a recipe may give to their defaults: a model folder names no files on this machine."""
    for network in networks(config.model_type):
        for name, default in recipe_keys(network).items():
            setattr(config, name, default)


def kinds(suffix: str) -> list[str]:
    """The kinds with a network whose name ends with `suffix`, so of one task."""
    return [kind for kind in KINDS if any(one.__name__.endswith(suffix) for one in networks(kind))]


def _network(config: Any, suffix: str, folder: Path | None) -> type[Classic]:
    found = next((one for one in networks(config.model_type) if one.__name__.endswith(suffix)), None)
    if found is None:
        raise ModelError(
            f"{_where(folder)}: a {config.model_type} model is not for this task; choose one of "
            f"{', '.join(kinds(suffix))}, or another model"
        )
    own = {*arguments(found), *recipe_keys(found)}
    for name, field in _fields(config.model_type).items():
        # a folder may hold the model of another task, whose trunk this one starts from
        if folder is None and name not in own and getattr(config, name) != field.default:
            raise ModelError(f"model.config: the {config.model_type} model of this task has no {name}: leave it out")
    return found


def _where(folder: Path | None) -> str:
    return "model.config" if folder is None else f"{folder.name}: config.json"


def create(config: Any, suffix: str, folder: Path | None = None) -> Classic:
    """A network with random weights, of the class whose name ends with `suffix`.

    `folder` is where the configuration comes from, None for a recipe. Raises ModelError.
    """
    kind, where = _network(config, suffix, folder), _where(folder)
    given = {name: getattr(config, name) for name in arguments(kind)}
    if "num_labels" in inspect.signature(kind.__init__).parameters:
        given["num_labels"] = config.num_labels
    for name, value in given.items():
        most = MOST.get(name, LARGEST.get(type(value)))
        if most is not None and not abs(value) <= most:  # not NaN either
            raise ModelError(f"{where}: {name} is {value}, and at most {most:,.0f} is allowed")
    try:
        # A configuration may ask for more than the memory holds. Random numbers on "meta" would import the compiler.
        with torch.device("meta"), no_init_weights():
            weights = sum(parameter.numel() for parameter in kind(**given).parameters())
        if weights > MOST_WEIGHTS:
            raise ModelError(
                f"{where}: this {config.model_type} has {weights:,} weights, and {MOST_WEIGHTS:,} are allowed: "
                "choose smaller sizes"
            )
        network = kind(**given)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ModelError(f"{where}: no {config.model_type} can be built: {error}") from error
    network.config = config
    config.architectures = [kind.__name__]
    return network


def load(folder: Path, config: Any, suffix: str, may_be_new: "set[str] | None" = None) -> Classic:
    """The network of a folder, with random weights for the names in its head that the file lacks.

    Raises ModelError if other weights are missing, have another shape, or have no place in the network.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    stated = config.architectures
    network = create(config, suffix, folder)
    try:
        tensors: dict[str, Tensor] = load_file(folder / "model.safetensors")
        with safe_open(folder / "model.safetensors", "pt") as file:
            aliases = file.metadata() or {}
    except FileNotFoundError:
        raise ModelError(f"{folder.name}: no model.safetensors") from None
    except SafetensorError as error:
        raise ModelError(f"{folder.name}: model.safetensors is damaged: {error}") from None
    own = network.state_dict()
    # Of weights that two layers share, a file holds one, and says under which name the other finds it.
    tensors |= {name: tensors[kept] for name, kept in aliases.items() if name in own and kept in tensors}
    fitting = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    shared = {own[name].data_ptr() for name in fitting}  # of two names of one tensor, a file holds one
    missing = [name for name in own if name not in fitting and own[name].data_ptr() not in shared]
    wrong = [name for name in missing if not name.startswith("head.") and name not in (may_be_new or ())]
    of = f" (it is a {stated[0]}, and a {type(network).__name__} is needed)" if _is_other(stated, network) else ""
    if wrong:
        kind = "has another shape" if wrong[0] in tensors else "is missing"
        raise ModelError(f"{folder.name}: its weights do not fit its config.json: {wrong[0]} {kind}{of}")
    if unknown := [name for name in tensors if name not in own and not name.startswith("head.")]:
        raise ModelError(
            f"{folder.name}: its weights do not fit its config.json: no layer here reads {short(unknown[0])}{of}"
        )
    network.load_state_dict(fitting, strict=False)
    network.unread = frozenset(missing)
    return network


def _is_other(stated: Any, network: Classic) -> bool:
    """Whether a folder says that it holds another network than this one, which Graft knows."""
    names = {one.__name__ for one in networks(network.model_type)} - {type(network).__name__}
    return isinstance(stated, list) and bool(stated) and isinstance(stated[0], str) and stated[0] in names
