"""LoRA adapters: add one to a model, save it without the base model, and load it on its base model."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.errors import ModelError
from pipelines.models.layers import frozen_modules
from pipelines.models.pretrained import LORA
from pipelines.models.source import front_matter, local_model, read_json_object
from pipelines.utils import shares

if TYPE_CHECKING:
    from torch import nn

    from pipelines.task import Task


class AdapterFormat(Protocol):
    """How an adapter is saved without its base model, and how it is loaded on that base model."""

    file: str
    """Name of the file by which an adapter folder is recognised."""
    library: str
    """Library that loads the adapter, as the hub names it (`library_name`)."""

    def save(self, task: "Task", model: Any, folder: Path, base: str, revision: str | None) -> None:
        """Write the model's adapter to a folder, with the other files that are needed to load it."""

    def load(self, task: "Task", folder: Path) -> "nn.Module":
        """Return the base model with the folder's adapter applied. Raises ModelError."""


class Peft:
    """PEFT's own files, together with the base model's configuration and processor."""

    file, library = "adapter_config.json", "peft"

    def save(self, task: "Task", model: Any, folder: Path, base: str, revision: str | None) -> None:
        model.peft_config["default"].base_model_name_or_path = base
        model.peft_config["default"].revision = revision
        task.save(model.get_base_model(), folder)
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        model.save_pretrained(folder)

    def load(self, task: "Task", folder: Path) -> "nn.Module":
        """Return the base model with the adapter merged into its weights.

        The base model's weights are read with the configuration and processor of the adapter folder.
        """
        from peft import PeftModel

        settings = read_json_object(folder / "adapter_config.json") or {}
        name = settings.get("base_model_name_or_path")
        if not name:
            raise ModelError(f"{folder}: an adapter whose adapter_config.json names no base model")
        base = local_model(name)
        if base is None:
            from pipelines.hub.download import download

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
            merged: nn.Module = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
            return merged
        except Exception as error:  # damaged files, or a base model of another shape
            raise ModelError(
                f"{folder}: the adapter does not fit its base model {name}: {str(error).splitlines()[0]}"
            ) from error


class Diffusers:
    """LoRA in diffusers' format, for tasks that have a `pipe`.

    The file names its base model and holds nothing else of it.
    """

    file, library = LORA, "diffusers"

    def save(self, task: Any, model: Any, folder: Path, base: str, revision: str | None) -> None:
        from pipelines.models import stable_diffusion

        stable_diffusion.save_lora(task.pipe, model, folder, base, revision)

    def load(self, task: Any, folder: Path) -> "nn.Module":
        from pipelines.models import stable_diffusion

        if FORMATS[task.hub.adapter_format] is not self:
            raise ModelError(f"{folder}: {task.name} has no adapters of this kind")
        model = task.load(base_of_adapter(folder))
        return stable_diffusion.load_lora(task.pipe, model, folder).eval()  # type: ignore[no-any-return]


FORMATS: dict[str, AdapterFormat] = {"peft": Peft(), "diffusers": Diffusers()}


def format_of(folder: Path) -> AdapterFormat | None:
    """The format of the adapter in a folder; None if the folder holds a model."""
    if (folder / "model_index.json").is_file() and not (folder / Peft.file).is_file():
        return None
    return next((form for form in FORMATS.values() if (folder / form.file).is_file()), None)


def base_of_adapter(folder: Path) -> Path:
    """The base model of an adapter in diffusers' format; the adapter file or its model card names it.

    Raises ModelError.
    """
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
        from pipelines.hub.download import download

        base = download(name, known.get("revision"))
    return base


# of a convolution: MobileNets with TensorFlow's padding read them from outside, and PEFT's wrapper lacks them
READ = ("kernel_size", "stride", "padding", "dilation", "groups", "in_channels", "out_channels")


def add_adapter(model: "nn.Module", head: "nn.Module | None", adapter: Any) -> "nn.Module":
    """Add LoRA to a model through PEFT. A new head trains all its weights.

    LoRA wraps every Linear and Conv2d of the trunk, or only `adapter.targets`. A language model's output layer is not
    wrapped: it often shares its weight with the input embedding, and a merged update would separate the two. Modules
    that the task has frozen are not wrapped either. Raises ModelError if no layer fits.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from torch import nn
    from transformers import PreTrainedModel
    from transformers.pytorch_utils import Conv1D  # GPT-2's Linear, with a transposed weight

    if head is not None:  # PEFT copies it
        shares.fill(head)
    kept = [model.get_output_embeddings()] if isinstance(model, PreTrainedModel) else []
    in_head = {id(m) for m in (*(head.modules() if head is not None else ()), *kept)}
    in_head |= {id(part) for module in frozen_modules(model) for part in module.modules()}
    new_modules = (
        [] if head is None else [head] if any(module is head for module in model.modules()) else list(head.children())
    )
    heads = [name for name, module in model.named_modules() if any(module is part for part in new_modules)]
    fits = {
        n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d, Conv1D)) and id(m) not in in_head
    }
    # PEFT needs a rank that the groups of a grouped convolution divide, so depthwise convolutions are not wrapped
    targets = [n for n, m in fits.items() if not (isinstance(m, nn.Conv2d) and m.groups > 1)]
    if adapter.targets is not None:
        missing = [t for t in adapter.targets if not any(n == t or n.endswith("." + t) for n in fits)]
        if missing:
            kinds = sorted({n.rsplit(".", 1)[-1] for n in fits})
            raise ModelError(
                f"model.adapter.targets: no Linear or Conv2d of the trunk is called {missing[0]!r} "
                f"(there are: {', '.join(kinds)})"
            )
        targets = [n for n in fits if any(n == t or n.endswith("." + t) for t in adapter.targets)]
    if not targets:
        raise ModelError("model.adapter: this model's trunk has no layer that LoRA can wrap; leave adapter out")
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or 2 * adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        modules_to_save=heads or None,
        fan_in_fan_out=all(isinstance(fits[n], Conv1D) for n in targets),
    )
    try:
        adapted = get_peft_model(model, config)
    except RuntimeError as error:  # PEFT looks for the text embedding of a detector whose layers share their head
        raise ModelError(f"model.adapter: LoRA does not fit {type(model).__name__}; leave adapter out") from error
    for part in adapted.modules():
        if isinstance(part, LoraLayer):
            # mixed precision casts what must be cast; otherwise inputs would go to float32 and back
            part.cast_input_dtype_enabled = False
            base = part.get_base_layer()
            for name in READ if isinstance(base, nn.Conv2d) else ():
                setattr(part, name, getattr(base, name))
    return adapted
