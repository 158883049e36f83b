"""What language models lose at their targets, without scores of all tokens for the complete vocabulary at once.

2,048 tokens of a vocabulary of 150,000 have 307 million scores. Plain cross-entropy keeps them for its backward pass
and needs as many numbers again twice. Here the last layer works on a part of the targets at a time, and the backward
pass computes that part again (as in TRL's chunked_nll). Values and gradients are those of the plain way.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    # scores [n, vocabulary] in float32 and targets [n] -> tensors [n]; the first is -log p of the targets in nats
    Measure = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

MOST = 2**26  # scores at a time: 256 MB in float32


@dataclass(frozen=True)
class Head:
    """The last layer of a language model: its name in the model, and what the model does with its output."""

    name: str
    after: "Callable[[Tensor], Tensor]"
    vocabulary: int


def nats(scores: "Tensor", targets: "Tensor") -> "tuple[Tensor, ...]":
    """The Measure of training: -log p of every target in nats."""
    from torch.nn import functional as f

    return (f.cross_entropy(scores, targets, reduction="none"),)


def head_of(model: Any, probe: Mapping[str, "Tensor"]) -> Head | None:
    """The last layer of a language model, found by a forward pass of `probe`.

    None if the model does not call it once, or does something unknown with its output.
    """
    import torch

    layer = model.get_output_embeddings()
    if layer is None:
        return None
    name = next((name for name, module in model.named_modules() if module is layer), None)
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            scores = model(**probe).logits
    finally:
        handle.remove()
        model.train(before)
    if name is None or len(outputs) != 1 or outputs[0].shape != scores.shape:
        return None
    vocabulary = int(scores.shape[-1])
    if scores is outputs[0]:
        return Head(name, _unchanged, vocabulary)
    known = (after for after in _known(model.config.get_text_config()) if torch.equal(after(outputs[0]), scores))
    return next((Head(name, after, vocabulary) for after in known), None)


def _unchanged(scores: "Tensor") -> "Tensor":
    return scores


def _known(config: Any) -> "Iterator[Callable[[Tensor], Tensor]]":
    """What models do with the scores of their last layer: limit, divide or multiply them (Gemma, Granite, Cohere)."""
    if cap := getattr(config, "final_logit_softcapping", None):
        yield lambda scores: (scores / cap).tanh() * cap
    if scale := getattr(config, "logits_scaling", None):
        yield lambda scores: scores / scale
        yield lambda scores: scores * scale
    if factor := getattr(config, "logit_scale", None):
        yield lambda scores: scores * factor


def at_targets(
    model: Any,
    head: Head | None,
    fields: Mapping[str, Any],
    labels: "Tensor",
    ignored: int,
    count: int,
    measure: "Measure" = nats,
    *,
    most: int = MOST,
) -> "tuple[Tensor, ...]":
    """`measure` at every target, in order. It calls `model(**fields)` once.

    Targets are the places of `labels` [batch, length] that are not `ignored`; there are `count` of them. At most `most`
    scores exist at a time. With `head` None, or while features of a frozen part are recorded, all scores exist at once.
    """
    import torch

    wanted = labels != ignored
    layer = None if head is None else _layer(model, head.name)
    if head is None or layer is None:
        scores = model(**fields).logits
        return measure((scores[wanted] if scores.ndim > 2 else scores).float(), labels[wanted])
    places = torch.nonzero_static(wanted.flatten(), size=count)[:, 0]  # needs no wait for a GPU, unlike labels[wanted]
    targets = labels.flatten().index_select(0, places)
    with _measured(layer, head, places, targets, measure, max(1, most // head.vocabulary)) as found:
        output = model(**fields).logits
    first, *others = found[0]
    # The loss depends on the model's own output: there, FSDP learns that the backward pass begins.
    return (output if head.after is _unchanged else first + 0.0 * output, *others)


def _layer(model: Any, name: str) -> "nn.Module | None":
    """The layer with this name; None if the model is compiled, or if the feature cache has hooks around the layer."""
    from torch.nn.parallel import DistributedDataParallel

    model = model.module if isinstance(model, DistributedDataParallel) else model
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if model._compiled_call_impl is not None:
        return None
    layer: nn.Module = model
    for part in name.split("."):
        layer = getattr(layer, part)
        if "forward" in vars(layer):
            return None
    return layer


@contextlib.contextmanager
def _measured(
    layer: "nn.Module", head: Head, places: "Tensor", targets: "Tensor", measure: "Measure", size: int
) -> "Iterator[list[tuple[Tensor, ...]]]":
    """Inside the block, the layer takes its inputs at `places` and returns their first measure instead of its scores.

    The layer is still called as a module, so hooks of FSDP and LoRA's own layers work. All measures are appended to the
    list.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    plain = layer.forward
    found: list[tuple[Tensor, ...]] = []

    def part(inputs: "Tensor", wanted: "Tensor") -> "tuple[Tensor, ...]":
        return measure(head.after(plain(inputs)).float(), wanted)

    def forward(hidden: "Tensor", *args: Any, **kwargs: Any) -> "Tensor":
        inputs = hidden.flatten(0, -2).index_select(0, places)
        if len(inputs) <= size:
            found.append(part(inputs, targets))
            return found[0][0]
        pairs = zip(inputs.split(size), targets.split(size), strict=True)
        trains = torch.is_grad_enabled()
        parts = [checkpoint(part, *pair, use_reentrant=False) if trains else part(*pair) for pair in pairs]
        found.append(tuple(torch.cat(each) for each in zip(*parts, strict=True)))
        return found[0][0]

    layer.forward = forward
    try:
        yield found
    finally:
        del layer.forward
