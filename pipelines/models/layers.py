"""What a model is made of, from input to output: its blocks, what is frozen, where LoRA goes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)


def blocks(trunk: "nn.Module") -> "list[nn.Module]":
    """A trunk in order: the stem (all that stands before the first block, maybe empty), then its repeated blocks.

    Walks down through containers of like modules: a ViT's encoder layers, the layers in Swin's stages, the residual blocks
    of ResNet and EfficientNet. A norm or a downsampling between blocks is in none: `depth_of_parameters` puts it with
    the block before it. A trunk that repeats nothing (VGG) is cut into its parametrised leaves.
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
    """A list or sequence of two or more composite modules of one kind."""
    from torch import nn

    if not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return False
    kinds = [type(c) for c in module if next(c.parameters(), None) is not None and next(c.children(), None) is not None]
    return len(kinds) > len(set(kinds))


def depth_of_parameters(model: "nn.Module", layers: "Sequence[nn.Module]") -> dict[str, int]:
    """Parameter name -> index in `layers`. What belongs to none (a norm between stages) goes with the layer before it."""
    # backwards: a weight that two layers share (a language model's output is its input embedding) belongs to the first
    inside = {id(p): index for index, layer in reversed(list(enumerate(layers))) for p in layer.parameters()}
    depth: dict[str, int] = {}
    current = 0
    for name, parameter in model.named_parameters():
        # the head is last in `layers` wherever it stands in the module: it does not move the cursor
        found = inside.get(id(parameter))
        if found is not None and found != len(layers) - 1:
            current = found
        depth[name] = current if found is None else found
    return depth


class Layers(list["nn.Module"]):
    """A model's layers where one part of it is its encoder, which may be frozen by that name."""

    def __init__(self, layers: "Iterable[nn.Module]", encoder: "nn.Module", usually_frozen: bool = False) -> None:
        super().__init__(layers)
        self.encoder = encoder
        self.usually_frozen = usually_frozen  # where it is pretrained and the recipe leaves it to the model


def how_frozen(layers: "Sequence[nn.Module]", how: str | int, *, pretrained: bool) -> str | int:
    """What `auto` means for a model with these layers; anything else is what it is."""
    if how != "auto":
        return how
    return "encoder" if pretrained and isinstance(layers, Layers) and layers.usually_frozen else "none"


def freeze(model: "nn.Module", layers: "Sequence[nn.Module]", how: str | int) -> None:
    """Freeze `none`, the `encoder`, the `backbone` (all but the head), or a number of blocks from the input, the stem with them.

    `layers` is [stem, *blocks, head]. What the task has frozen stays so. Raises ModelError for more blocks than there are, and for
    an encoder where there is none.
    """
    if how == "encoder":
        if not isinstance(layers, Layers):
            raise ModelError(
                "model.freeze: got encoder, but this model has none that can be frozen alone: give a number of blocks, or backbone"
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
    """Training mode for what trains; wholly frozen modules stay in eval, so BatchNorm and dropout in them are frozen too."""
    model.train()
    for module in frozen_modules(model):
        module.eval()


def frozen_modules(model: "nn.Module") -> "list[nn.Module]":
    """The outermost modules that have parameters, none of which trains."""
    found: list[nn.Module] = []
    for child in model.children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            found.append(child)
        else:
            found += frozen_modules(child)
    return found


def keep_in_bf16(model: "nn.Module", trains: Collection[str]) -> None:
    """Keep in bf16 what mixed precision would cast at every step: weights of products and convolutions that never train.

    The same numbers to the bit, in half the memory and without the casts. `trains` names the parameters that do, or will. What
    may be read in another way stays as it is: an output that is the input embedding too, and biases, which Mamba adds in float32.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kinds = (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        Conv1D,
    )  # and none that is derived of them: it may do more with its weight
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
            parameter.data = parameter.data.to(torch.bfloat16)


def in_own_memory(module: "Module") -> "Module":
    """Copy a module's weights out of the file that they were read from. Returns the module.

    A file is mapped into memory at odd offsets. Convolutions of weights there differ in the last bit from the same ones elsewhere.
    """
    import torch

    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.data = tensor.data.clone()
    return module


def has_batch_norm(model: "nn.Module") -> bool:
    """Whether any BatchNorm would use batch statistics in training: such a model depends on the micro-batch."""
    from torch.nn.modules.batchnorm import _BatchNorm

    frozen = {id(part) for module in frozen_modules(model) for part in module.modules()}
    return any(isinstance(m, _BatchNorm) and id(m) not in frozen for m in model.modules())


def checkpoint_gradients(model: Any) -> None:
    if getattr(model, "_supports_gradient_checkpointing", False):  # diffusers' name for it
        model.enable_gradient_checkpointing()
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(f"train.gradient_checkpointing: {type(model).__name__} does not support it; leave it out")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def of_model(task: Any, model: Any) -> "list[nn.Module]":
    """The task's layers of a model, whether it has an adapter or not."""
    return task.layers(model.get_base_model() if hasattr(model, "get_base_model") else model)  # type: ignore[no-any-return]


def only_head_trains(task: Any, model: Any) -> bool:
    """Whether no parameter below the head trains."""
    head = {id(p) for p in of_model(task, model)[-1].parameters()}
    return all(id(p) in head for p in model.parameters() if p.requires_grad)


def freeze_on(modules: "Mapping[str, nn.Module]", device: Any) -> None:
    """Move what a task only runs forward (`Task.frozen`) to a device, and keep it from learning."""
    for module in modules.values():
        module.to(device).eval().requires_grad_(False)
