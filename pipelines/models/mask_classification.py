"""Models of transformers that find masks with queries: Mask2Former, MaskFormer, EoMT.

A query gives a class, or "no object", and a mask. The same model finds things (instance segmentation), the class of
every pixel (semantic), or both (panoptic).

EoMT trains with masked attention, which is switched off block by block, as its authors do it: the share of queries
that keep it falls from 1 to 0 with the power 0.9 of what is left. It is off in every evaluation and in every saved
model. Which queries keep it is drawn from torch's generator, which the trainer seeds as for dropout.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.losses import mask_classification as losses
from pipelines.models import layers as model_layers
from pipelines.models import pretrained
from pipelines.utils import shares

EOMT = ("eomt", "eomt_dinov3")  # a plain ViT: inputs have one size
KINDS = ("mask2former", "maskformer", *EOMT)
SIDE = 640  # pixels, of a model that does not know its size
STRIDE = 32  # of the encoders of Mask2Former and MaskFormer
POWER = 0.9  # of the annealing of EoMT's masked attention
HINT = "is it a model of this kind?"
HEAD = re.compile(r"class_predictor|mask_embedder|mask_head|upscale_block|query|(.*\.)?mask_predictor")
UNUSED = re.compile(r"pixel_level_module\.encoder\.(swin|model)\.layernorm\.")
OF_CLASSES = re.compile(r"class_predictor\.(weight|bias)")


def build(source: Any, labels: Sequence[str], image_size: int | None) -> tuple[nn.Module, Any, int]:
    """The model of a folder, or of a configuration with random weights; its image processor; the side of its input.

    Its head keeps the rows of classes that the model knows by name. Raises ModelError.
    """
    config = _checked(pretrained.read_config(source.folder, source.config), source.folder)
    known = [str(config.id2label[index]) for index in range(config.num_labels)]
    read: Any = None
    if source.folder is not None and not source.random:
        read = _read(source.folder, config)
    processor, side = _processor(source.folder, config, image_size)
    fits = config.model_type not in EOMT or config.image_size == side
    if read is None or known != list(labels) or not fits:
        wanted = type(config).from_dict(config.to_dict())
        pretrained.name_classes(wanted, list(labels))
        if not fits:
            wanted.image_size = side
        try:
            model: Any = _auto().from_config(wanted, dtype=torch.float32)
        except Exception as error:  # the libraries of backbones raise many kinds
            what = pretrained.called(source.folder)
            raise ModelError(f"{what}: no model can be built: {pretrained.first_line(error)}") from error
        if read is not None:
            _take_over(read, model, known, list(labels))
    else:
        model = read
    _freeze_unused(model)
    losses.install(model)
    return model, processor, side


def load(folder: Path) -> tuple[nn.Module, Any, int]:
    """What `build` gives, for a saved model; in eval mode. Raises ModelError."""
    config = _checked(pretrained.read_config(folder, None), folder)
    model: Any = _read(folder, config)
    _freeze_unused(model)
    losses.install(model)
    return model.eval(), *_processor(folder, config, None)


def save(model: Any, processor: Any, folder: Path) -> None:
    mask_attention(model, None)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _auto() -> Any:
    from transformers import AutoModelForUniversalSegmentation

    return AutoModelForUniversalSegmentation


def _read(folder: Path, config: Any) -> Any:
    return pretrained.load_model(_auto(), folder, config, lambda model: nn.ModuleList(), hint=HINT)


def _checked(config: Any, folder: Path | None) -> Any:
    kind, what = config.model_type, pretrained.called(folder)
    if kind not in KINDS:
        why = "asks each image a question in words" if kind == "oneformer" else "is not of this kind"
        raise ModelError(f"{what}: a {kind} model {why}; choose one of {', '.join(KINDS)}")
    if kind == "mask2former":
        config.use_auxiliary_loss = True  # without it the library's forward pass fails
    return config


def _processor(folder: Path | None, config: Any, image_size: int | None) -> tuple[Any, int]:
    """The image processor, set to the size of the model's input, and the side of this input.

    Mask2Former and MaskFormer get a square that the image is stretched to. EoMT gets one that is padded.
    """
    from transformers import IMAGE_PROCESSOR_MAPPING, AutoImageProcessor

    own = folder is not None and (folder / "preprocessor_config.json").is_file()
    if own:
        try:
            processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a damaged file raises many kinds
            what = f"{pretrained.called(folder)}: preprocessor_config.json cannot be read"
            raise ModelError(f"{what}: {pretrained.first_line(error)}") from error
    else:
        kinds: Any = IMAGE_PROCESSOR_MAPPING[type(config)]  # its type is that of an older version
        processor = kinds["torchvision"]()
    plain = config.model_type in EOMT
    step = int(config.patch_size) if plain else STRIDE
    given = {key: value for key, value in dict(processor.size).items() if value}
    usual = min(given.get("height", 0), given.get("width", 0)) or given.get("shortest_edge", SIDE)
    side = int(image_size or (config.image_size if plain else usual if own else SIDE))
    if side % step:
        if image_size is not None or plain:
            raise ModelError(f"options.image_size: got {side}: this model needs a multiple of {step}")
        side = -(-side // step) * step
    if plain:
        processor.size = {"shortest_edge": side, "longest_edge": side}
        processor.do_pad, processor.do_split_image = True, False
    else:
        processor.size = {"height": side, "width": side}
    return processor, side


def _freeze_unused(model: nn.Module) -> None:
    """Freeze the last norm of Swin, whose output no part of the model takes."""
    for name, parameter in model.named_parameters():
        if UNUSED.search(name):
            parameter.requires_grad_(False)


def _take_over(read: nn.Module, model: nn.Module, known: list[str], labels: list[str]) -> None:
    """Copy weights from one model to another with other classes; of classes that both know by name, their rows.

    A weight of equal shape that is a placeholder stays one. Of the others the values are read.
    """
    old: Mapping[str, Any] = read.state_dict(keep_vars=True)
    new: Mapping[str, Any] = model.state_dict(keep_vars=True)
    pairs = [(row[0], place) for place, label in enumerate(labels) if (row := pretrained.rows_of(known, [label]))]
    with torch.no_grad():
        for name, tensor in new.items():
            given, source = old[name], shares.stored(old[name])
            same = given.shape == tensor.shape and not OF_CLASSES.fullmatch(name)
            if same and source is not None:
                tensor.data = shares.placeholder(tensor.shape, tensor.dtype)
                shares.put(tensor, source)
                continue
            values = shares.values(given)
            if OF_CLASSES.fullmatch(name):
                for before, after in pairs:
                    tensor[after] = values[before]
                tensor[-1] = values[-1]  # "no object"
            elif same:
                tensor.copy_(values)
            elif name.endswith("position_embeddings.weight"):
                tensor.copy_(_resized(values, len(tensor)))


def _resized(table: Tensor, number: int) -> Tensor:
    """The position embeddings of a square with another number of patches."""
    before, after = (round(count**0.5) for count in (len(table), number))
    square = table.T.reshape(1, -1, before, before)
    found = nn.functional.interpolate(square, (after, after), mode="bicubic", antialias=True, align_corners=False)
    return found.flatten(2)[0].T


def layers(model: Any) -> list[nn.Module]:
    """The blocks from input to output; the head is the last one. `model.freeze=encoder` freezes the encoder alone."""
    heads = [(name, part) for name, part in model.named_modules() if HEAD.fullmatch(name)]
    own = {id(part) for _, head in heads for part in head.modules()}
    head = nn.ModuleList([part for _, part in heads])
    if model.config.model_type in EOMT:
        stem = [part for name, part in model.named_children() if name in ("embeddings", "rope_embeddings")]
        return [nn.ModuleList(stem), *model.layers, head]
    found = [block for block in model_layers.blocks(model.model) if id(block) not in own]
    return model_layers.Layers([*found, head], model.model.pixel_level_module.encoder)


# ---- one step ----


def counts(config: Any, masks: Sequence[int]) -> dict[str, float]:
    """What the loss is divided by. `masks` holds the number of masks of each image."""
    decoder = config.decoder_config if config.model_type == "maskformer" else config
    return losses.counts(masks, decoder.num_queries, config.no_object_weight)


def loss(
    model: nn.Module,
    batch: Mapping[str, Any],
    masks: Sequence[Tensor],
    classes: Sequence[Tensor],
    counts: Mapping[str, float],
    ignored: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """The part of the step's loss that a batch gives; `masks` [n, height, width] and `classes` [n] of each image.

    The batch holds `pixel_values`, and for the points `seed`, a number for each image (else they are drawn from torch's
    generator in training, and are always the same in evaluation). `progress` is the share of the training that is done.
    """
    pixels: Tensor = batch["pixel_values"]
    device, number = pixels.device, len(pixels)
    seeds = batch.get("seed")
    if seeds is None:
        seeds = torch.randint(2**62, (number,)).tolist() if model.training else [0] * number
    generators = [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]
    step = losses.Step(counts["masks"], counts["class_weight"], generators, ignored or [None] * number)
    for part in model.modules():
        if isinstance(part, losses.Criterion):
            part.step = step
    mask_attention(model, float(batch.get("progress", 0.0)) if model.training else None)
    labels = {"mask_labels": [one.to(device) for one in masks], "class_labels": [one.to(device) for one in classes]}
    total: Tensor = model(pixel_values=pixels, **labels, output_hidden_states=True).loss
    return total


def mask_attention(model: nn.Module, progress: float | None) -> None:
    """Set the share of EoMT's queries with masked attention; None: none of them, as in evaluation."""
    for part in model.modules():
        probabilities = part._buffers.get("attn_mask_probs")
        if probabilities is not None:
            kept = [0.0] * len(probabilities) if progress is None else annealed(progress, len(probabilities))
            probabilities.copy_(torch.tensor(kept))


def annealed(progress: float, blocks: int) -> list[float]:
    """The share of queries with masked attention in each block, at a share of the training.

    The authors' recipes (tue-mps/eomt) give steps. Of their trainings of 12 epochs of COCO with four blocks and of 107
    epochs of Cityscapes with three, these are: the first block begins after a sixth and ends after a third, the last
    one begins after two thirds and ends after five sixths; the others lie evenly between.
    """
    found = []
    for block in range(blocks):
        begin = 1 / 6 + (block / (blocks - 1) / 2 if blocks > 1 else 0.0)
        done = (progress - begin) * 6
        found.append(1.0 if done < 0 else 0.0 if done >= 1 else (1 - done) ** POWER)
    return found


# ---- answers ----


@torch.no_grad()
def outputs(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of classes [images, queries, classes + 1] and of masks [images, queries, height, width], float32."""
    mask_attention(model, None)
    found = model(pixel_values=pixels.to(next(model.parameters()).device))
    return found.class_queries_logits.float(), found.masks_queries_logits.float()


def enlarged(masks: Tensor, shape: Sequence[int], inner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Logits of masks [n, h, w] at the size of the original image.

    `shape` is the size of the model's input, and `inner` that of the part of it that shows the image.
    """
    return _interpolated(shown(masks, shape, inner)[None], size)[0]


def shown(masks: Tensor, shape: Sequence[int], inner: Sequence[int]) -> Tensor:
    """Logits of masks at the size of the part of the model's input that shows the image (see `enlarged`)."""
    return _interpolated(masks[None], shape)[0, :, : inner[0], : inner[1]]


def _interpolated(values: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return nn.functional.interpolate(values, tuple(size), mode="bilinear", align_corners=False)
