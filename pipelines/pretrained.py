"""Load a pretrained transformers model of any kind: its configuration, and weights of which only the head may be new.

No code that comes with a model is run, and no pickle is trusted with more than tensors.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.complaints import suggest
from pipelines.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("graft")

LORA = "pytorch_lora_weights.safetensors"  # an adapter of diffusers, which holds its own configuration


def read_config(folder: Path | None, config: dict | None) -> Any:
    """The configuration of a model folder, or one made from a recipe's `model.config`. Raises ModelError."""
    from transformers import AutoConfig

    try:
        if folder is None:
            return _made(dict(config or {}))
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # the library's own checks raise many kinds
        what = called(folder)
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ModelError(f"{what}: this model needs code of its own; Graft never runs a model's code: choose another model") from error
        raise ModelError(f"{what}: not a model that transformers knows: {first_line(error)}") from error


def _made(fields: dict[str, Any]) -> Any:
    """A configuration of the recipe's own. The library takes any field, so a misspelled one would do nothing."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = fields.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise ModelError(f"model.config.model_type: transformers knows no {kind!r}{suggest(str(kind), list(CONFIG_MAPPING))}")
    made = AutoConfig.for_model(kind, **fields)
    known = AutoConfig.for_model(kind).to_dict()
    strange = [name for name in fields if name not in known and name not in made.attribute_map]
    if strange:
        raise ModelError(f"model.config: {kind} has no field {strange[0]!r}{suggest(strange[0], list(known))}")
    return made


def load_model(
    auto: Any, folder: Path | None, config: Any, head: "Callable[[Any], nn.Module]", *, random: bool = False,
    may_be_new: Iterable[str] = (), mend: "Callable[[Any, Path, dict[str, tuple]], list[str]] | None" = None, hint: str = "",
) -> "nn.Module":  # fmt: skip
    """A model of the class that `auto` picks for `config`, float32, in fresh memory.

    Missing or of another shape may be what `head(model)` holds and what has a part of `may_be_new` in its name;
    `mend(model, folder, {name: saved shape})` may repair others and returns those it has. Raises ModelError when the folder
    holds a model of another kind, a pickle that torch will not read safely, or weights that do not fit.
    """
    import torch

    try:
        if folder is None or random:
            config.architectures = config.architectures or []  # the auto class walks it
            return auto.from_config(config, trust_remote_code=False)
        model, info = auto.from_pretrained(
            folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
        )
    except Exception as error:  # whatever a damaged or strange file brings about: SafetensorError, UnpicklingError, KeyError, ...
        raise ModelError(_why(folder, error)) from error
    if not any(folder.glob("*.safetensors")):
        log.warning("%s has no safetensors: its weights were read from a pickle, tensors only (nothing in it was run)", called(folder))
    own = {id(p) for p in head(model).parameters()}
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {key: tuple(saved) for key, saved, _ in info["mismatched_keys"]}
    new = [key for key in [*info["missing_keys"], *shapes] if key in named and id(named[key]) not in own]
    wrong = [key for key in new if not any(part in key for part in may_be_new)]
    if len(wrong) < len(new):
        fresh = next(key for key in new if key not in wrong)
        log.warning("%s has no %s: it begins with random weights, and stays so if it is frozen", called(folder), fresh.rpartition(".")[0])
    if mend is not None:
        mended = mend(model, folder, {key: shapes[key] for key in wrong if key in shapes})
        wrong = [key for key in wrong if key not in mended]
    if wrong:
        kind = "have another shape" if wrong[0] in shapes else "are missing"
        listed = f"{', '.join(sorted(wrong)[:3])}{' ...' if len(wrong) > 3 else ''} ({len(wrong)} in all)"
        raise ModelError(f"{called(folder)}: weights beyond the head {kind}: {listed}; {hint}")
    with torch.no_grad():  # files are mapped at odd offsets, and convolutions then differ in the last bit
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = tensor.data.clone()
    return model


def trunk(model: Any) -> "nn.Module":
    """The base model: the part that has its name, else (CLIP, SigLIP) the largest."""
    named = dict(model.named_children())
    return named.get(model.base_model_prefix) or max(named.values(), key=lambda m: sum(p.numel() for p in m.parameters()))


def head(model: Any) -> "nn.Module":
    """What stands beside the trunk; a ModuleList where it has several parts. Raises ModelError where nothing does."""
    from torch import nn

    base = trunk(model)
    parts = [m for m in model.children() if m is not base and any(True for _ in m.parameters())]
    if not parts:
        raise ModelError(f"a {model.config.model_type} model has no head of its own beside its trunk; choose another model")
    return parts[0] if len(parts) == 1 else nn.ModuleList(parts)


def read_tensor(folder: Path, *names: str) -> Any:
    """A tensor of a model folder, under the first of these names that there is. Raises ModelError."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in names:
                if name in weights.keys():  # noqa: SIM118 (safe_open is no mapping)
                    return weights.get_tensor(name)
    raise ModelError(f"{called(folder)}: {names[0]} must be resized, which needs weights in safetensors")


def _why(folder: Path | None, error: Exception) -> str:
    from pickle import UnpicklingError

    if folder is not None and not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        return f"{called(folder)}: no weights here (model.safetensors)"
    if isinstance(error, UnpicklingError):
        return f"{called(folder)}: its weights are a pickle that holds more than tensors, and is not run: choose a model with safetensors"
    return f"{called(folder)}: the model cannot be loaded: {first_line(error)}"


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:2])[:300] or type(error).__name__


def called(folder: Path | None) -> str:
    """What a user calls a model folder: one in the hub's cache (models--OWNER--NAME/snapshots/COMMIT) by its id."""
    if folder is None:
        return "model.config"
    cached = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent.name.removeprefix("models--").replace("--", "/") if cached else str(folder)
