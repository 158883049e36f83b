"""A model's layers from input to output: its blocks, what is frozen, and what LoRA may wrap."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import ModelError
from pipelines.utils import shares

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)


def blocks(trunk: "nn.Module") -> "list[nn.Module]":
    """The layers of a trunk in order: the stem (everything before the first block), then the repeated blocks.

    The stem may be empty. The search goes down through containers of similar modules: a ViT's encoder layers, the
    layers in Swin's stages, the residual blocks of ResNet and EfficientNet. A norm or a downsampling between blocks is
    in none of them: `depth_of_parameters` counts it to the block before it. A trunk without repeated blocks (VGG) is
    split into its leaves with parameters.
    """
    from torch import nn

    stem: list[nn.Module] = []
    found: list[nn.Module] = []
    _walk(trunk, stem, found)
    if not found:
        leaves = [m for m in trunk.modules() if next(m.parameters(recurse=False), None) is not None]
        stem, found = leaves[:1], leaves[1:]
    return [nn.ModuleList(stem), *found]


def _walk(module: "nn.Module", stem: "list[nn.Module]", found: "list[nn.Module]") -> None:
    listed = _is_list_of_blocks(module)
    for child in module.children():
        if next(child.parameters(), None) is None:
            continue
        if any(_is_list_of_blocks(part) for part in child.modules()):
            _walk(child, stem, found)
        elif listed:
            found.append(child)
        elif not found:
            stem.append(child)


def _is_list_of_blocks(module: "nn.Module") -> bool:
    """Whether a ModuleList or Sequential holds at least two composite modules of one class."""
    from torch import nn

    if not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return False
    kinds = [type(c) for c in module if next(c.parameters(), None) is not None and next(c.children(), None) is not None]
    return len(kinds) > len(set(kinds))


def depth_of_parameters(model: "nn.Module", layers: "Sequence[nn.Module]") -> dict[str, int]:
    """Parameter name -> index in `layers`.

    A parameter in none of them (a norm between stages) goes with the layer before it.
    """
    # In reverse, so that a shared weight (a language model's output is its input embedding) belongs to the first layer.
    inside = {id(p): index for index, layer in reversed(list(enumerate(layers))) for p in layer.parameters()}
    depth: dict[str, int] = {}
    current = 0
    for name, parameter in model.named_parameters():
        # The head is last in `layers`, but it may come earlier in the model: it does not change `current`.
        found = inside.get(id(parameter))
        if found is not None and found != len(layers) - 1:
            current = found
        depth[name] = current if found is None else found
    return depth


class Layers(list["nn.Module"]):
    """A model's layers, one part of which is its encoder. `model.freeze=encoder` freezes that part."""

    def __init__(self, layers: "Iterable[nn.Module]", encoder: "nn.Module", usually_frozen: bool = False) -> None:
        super().__init__(layers)
        self.encoder = encoder
        self.usually_frozen = usually_frozen  # whether `auto` freezes a pretrained encoder


def how_frozen(layers: "Sequence[nn.Module]", how: str | int, *, pretrained: bool) -> str | int:
    """Resolve `auto` for a model with these layers. Any other value is returned as it is."""
    if how != "auto":
        return how
    return "encoder" if pretrained and isinstance(layers, Layers) and layers.usually_frozen else "none"


def freeze(model: "nn.Module", layers: "Sequence[nn.Module]", how: str | int) -> None:
    """Freeze `none`, the `encoder`, the `backbone` (all but the head), or the stem and a number of blocks after it.

    `layers` is [stem, *blocks, head]. Modules that the task has frozen stay frozen. Raises ModelError for more blocks
    than the model has, and for `encoder` if it has none.
    """
    if how == "encoder":
        if not isinstance(layers, Layers):
            raise ModelError(
                "model.freeze: got encoder, but this model has none that can be frozen alone: "
                "give a number of blocks, or backbone"
            )
        layers.encoder.requires_grad_(False)
        return
    most = len(layers) - 2
    if isinstance(how, int) and how > most:
        raise ModelError(
            f"model.freeze: got {how}, but this model has {most} blocks before its head: give 1 to {most}, or backbone"
        )
    limit = {"none": 0, "backbone": len(layers) - 1}[how] if isinstance(how, str) else how + 1
    parameters = dict(model.named_parameters())
    for name, index in depth_of_parameters(model, layers).items():
        parameters[name].requires_grad_(parameters[name].requires_grad and index >= limit)


def train_mode(model: "nn.Module") -> None:
    """Set training mode.

    Modules that are entirely frozen stay in eval mode, which freezes their BatchNorm and dropout.
    """
    model.train()
    for module in frozen_modules(model):
        module.eval()


def frozen_modules(model: "nn.Module") -> "list[nn.Module]":
    """The outermost modules with parameters, all of which are frozen."""
    found: list[nn.Module] = []
    for child in model.children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            found.append(child)
        else:
            found += frozen_modules(child)
    return found


def keep_in_half(model: "nn.Module", trains: Collection[str], precision: str) -> None:
    """Store frozen weights of products and convolutions in bf16 or fp16; mixed precision would cast them at every step.

    The results are identical to the bit, in half the memory and without the casts. `trains` names the parameters that
    train now or later. Weights with another use are kept in float32: an output layer that is also the input embedding,
    and biases, which Mamba adds in float32.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if kind is None:
        return
    # exact types only: a subclass may use its weight in another way
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)
    owned = [(p, type(m) in kinds) for m in model.modules() for p in m.parameters(recurse=False)]
    elsewhere = {id(p) for p, product in owned if not product}
    training = {id(p) for name, p in model.named_parameters() if name in trains}
    for parameter, product in owned:
        if (
            product
            and parameter.ndim > 1
            and id(parameter) not in elsewhere | training
            and parameter.dtype == torch.float32
        ):
            shares.cast(parameter, kind)


def in_own_memory(module: "Module") -> "Module":
    """Copy a module's weights out of the file that they were read from. Returns the module.

    A weights file is mapped into memory at arbitrary offsets. A convolution with such weights differs in the last bit
    from the same convolution with aligned weights.
    """
    import torch

    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if shares.stored(tensor) is None:
                tensor.data = tensor.data.clone()
    return module


def has_batch_norm(model: "nn.Module") -> bool:
    """Whether a BatchNorm uses batch statistics in training. Such a model depends on the micro-batch size.

    Those of pipelines.models.batch_norm do not.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    frozen = {id(part) for module in frozen_modules(model) for part in module.modules()}
    return any(
        isinstance(m, _BatchNorm) and id(m) not in frozen and not getattr(m, "fixed_statistics", False)
        for m in model.modules()
    )


def checkpoint_gradients(model: Any) -> None:
    """Turn on gradient checkpointing. Raises ModelError if the model does not support it."""
    if getattr(model, "_supports_gradient_checkpointing", False):  # the attribute of diffusers' models
        model.enable_gradient_checkpointing()
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(f"train.gradient_checkpointing: {type(model).__name__} does not support it; leave it out")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def of_model(task: Any, model: Any) -> "list[nn.Module]":
    """The task's layers of a model, with or without an adapter."""
    return task.layers(model.get_base_model() if hasattr(model, "get_base_model") else model)  # type: ignore[no-any-return]


def only_head_trains(task: Any, model: Any) -> bool:
    """Whether the head is the only layer with trainable parameters."""
    head = {id(p) for p in of_model(task, model)[-1].parameters()}
    return all(id(p) in head for p in model.parameters() if p.requires_grad)


def freeze_on(modules: "Mapping[str, nn.Module]", device: Any) -> None:
    """Move the modules that a task runs only forward (`Task.frozen`) to a device, and freeze them."""
    for module in modules.values():
        module.to(device).eval().requires_grad_(False)
