"""Video classifiers of transformers: VideoMAE, TimeSformer, ViViT and V-JEPA 2.

Any of them takes another number of frames or another image size than its weights were trained with: VideoMAE's
positions are computed, those of V-JEPA 2 are rotations, and the tables of TimeSformer and ViViT are resized.

Frames are prepared by the methods of the model's own video processor, without the checks around them: the numbers are
equal, and 16 frames take half the time or less.

The frames per second of a clip are saved in config.json as `frame_rate`. A processor with `fps` would refuse the number
of frames that the pipelines of transformers ask for.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from pipelines.errors import ModelError
from pipelines.models import layers as model_layers
from pipelines.models import pretrained, vision
from pipelines.models.source import read_json_object
from pipelines.utils.formatting import short


class Kind(NamedTuple):
    """What a kind of model calls its input, and how fast its authors read videos."""

    frames: str  # the field of the configuration with the number of frames
    size: str  # the field with the pixels a side
    channels: str
    input: str
    rate: float  # frames per second


KINDS = {
    # every 4th frame (Tong et al. 2022, arXiv:2203.12602, appendix), of videos with 30 a second
    "videomae": Kind("num_frames", "image_size", "num_channels", "pixel_values", 7.5),
    # every 32nd frame (Bertasius et al. 2021, arXiv:2102.05095, section 4)
    "timesformer": Kind("num_frames", "image_size", "num_channels", "pixel_values", 30 / 32),
    # every 2nd frame (Arnab et al. 2021, arXiv:2103.15691, section 4.1)
    "vivit": Kind("num_frames", "image_size", "num_channels", "pixel_values", 15.0),
    # 4 frames a second (Assran et al. 2025, arXiv:2506.09985)
    "vjepa2": Kind("frames_per_clip", "crop_size", "in_chans", "pixel_values_videos", 4.0),
}
HINT = "is it a model for video classification?"
RATE = "frame_rate"  # the field of config.json
FASTEST = 1000  # frames per second
MOST_FRAMES = 4096  # of a clip: no more are read at once
MOST_SIDE = 4096  # pixels
MOST_POSITIONS = 2**28  # numbers of all patches of a clip
MOST_OF_VIDEOMAE = 2**25  # it computes its positions number by number: this many take 50 seconds
MOST_WEIGHTS = 2**32
SIZES = {  # fields of the configurations, and their largest values
    **dict.fromkeys(("hidden_size", "pred_hidden_size"), 2**14),
    "intermediate_size": 2**16,
    **dict.fromkeys(("num_hidden_layers", "num_pooler_layers", "pred_num_hidden_layers"), 256),
    **dict.fromkeys(("num_attention_heads", "pred_num_attention_heads"), 256),
    "pred_num_mask_tokens": 1024,
}
RESAMPLING = (0, 1, 2, 3)  # of Pillow: nearest, Lanczos, bilinear, bicubic


class Transformers:
    """The family of transformers' video classifiers (see pipelines.models.video.Family)."""

    library, reads = "transformers", "frames"

    def __init__(self, config: Any, processor: Any) -> None:
        self.kind = KINDS[config.model_type]
        self.processor = processor
        self.labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        self.multi_label = config.problem_type == "multi_label_classification"
        self.frames = int(getattr(config, self.kind.frames))
        self.rate = float(getattr(config, RATE))
        self.size = vision.input_size(processor)

    def pixels(self, frames: np.ndarray) -> Tensor:
        return _prepared(self.processor, frames)

    def scaled(self, frames: np.ndarray) -> Tensor:
        own = self.processor
        images = torch.from_numpy(frames).permute(0, 3, 1, 2)
        if frames.shape[1:3] != self.size:
            images = own.resize(images, type(own.size)(height=self.size[0], width=self.size[1]), own.resample)
        return _normalised(own, images)

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        found: Tensor = model(**{self.kind.input: batch["pixel_values"]}).logits
        return found.float()

    def layers(self, model: nn.Module) -> list[nn.Module]:
        base: Any = pretrained.trunk(model)
        # V-JEPA 2 has a second network, which predicted the hidden parts of a video when the encoder was trained
        return [*model_layers.blocks(base.encoder if hasattr(base, "predictor") else base), pretrained.head(model)]

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def _prepared(own: Any, frames: np.ndarray) -> Tensor:
    """Frames as a processor prepares them."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if own.do_resize:
        images = own.resize(images, own.size, own.resample)
    if own.do_center_crop:
        images = own.center_crop(images, own.crop_size)
    return _normalised(own, images)


def _normalised(own: Any, images: Tensor) -> Tensor:
    found: Tensor = own.rescale_and_normalize(
        images, own.do_rescale, own.rescale_factor, own.do_normalize, own.image_mean, own.image_std
    )
    return found.float().contiguous()


def build(
    source: Any, labels: list[str], multi_label: bool, frames: int | None, rate: float | None, image_size: int | None
) -> tuple[nn.Module, Transformers]:
    """A model of a folder, or of a configuration with random weights. Raises ModelError."""
    config = _checked(source.folder, pretrained.read_config(source.folder, source.config))
    config.problem_type = "multi_label_classification" if multi_label else "single_label_classification"
    kind = KINDS[config.model_type]
    was = _grid(config)
    if frames is not None:
        setattr(config, kind.frames, frames)
    if image_size is not None:
        setattr(config, kind.size, image_size)
    _check_grid(source.folder, config)
    processor = _processor(source.folder, config, image_size)
    if rate is not None:
        setattr(config, RATE, rate)
    model = _model(source.folder, config, labels, random=source.random, was=was)
    return model, Transformers(model.config, processor)


def load(folder: Path) -> tuple[nn.Module, Transformers]:
    """Load a model folder in eval mode. Raises ModelError."""
    config = _checked(folder, pretrained.read_config(folder, None))
    _check_grid(folder, config)
    processor = _processor(folder, config, None)
    return _model(folder, config, None, random=False, was=_grid(config)).eval(), Transformers(config, processor)


# ---- the network ----


def _model(folder: Path | None, config: Any, labels: list[str] | None, random: bool, was: tuple[int, int, int]) -> Any:
    """The classifier, float32, in its own memory. Without `labels` it has all weights from the folder."""
    from transformers import AutoModelForVideoClassification

    def mend(model: Any, place: Path, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        return _resize(model, place, shapes, was)

    def read(renew: bool) -> nn.Module:
        head = pretrained.head if labels is not None else lambda model: nn.ModuleList()
        return pretrained.load_model(
            AutoModelForVideoClassification,
            folder,
            config,
            head,
            random=random,
            mend=mend,
            hint=HINT,
            renew=renew,
        )

    if labels is None:
        model: Any = read(False)
    else:
        model = pretrained.with_classes(config, labels, read, pretrained.head, fresh=folder is None or random)
    base: Any = pretrained.trunk(model)
    if hasattr(base, "predictor"):
        base.predictor.requires_grad_(False)  # a classifier never runs it
    if config.model_type == "videomae":
        # a plain tensor there, which would be copied to the accelerator in every step
        table = base.embeddings.position_embeddings
        del base.embeddings.position_embeddings
        base.embeddings.register_buffer("position_embeddings", table, persistent=False)
    return model


def _resize(model: Any, folder: Path, shapes: Mapping[str, tuple[int, ...]], was: tuple[int, int, int]) -> list[str]:
    """Resize tables of positions to another number of frames or pixels, in the model's weights. Returns their names."""
    found = [key for key in shapes if key.endswith(("position_embeddings", "time_embeddings"))]
    times, rows, columns = _grid(model.config)
    for key in found:
        saved = pretrained.read_tensor(folder, key, key.partition(".")[2]).float()
        if key.endswith("time_embeddings"):
            table = f.interpolate(saved.transpose(1, 2), times, mode="linear").transpose(1, 2)
        else:
            of_frames = 1 if model.config.model_type == "timesformer" else None
            old = (of_frames or was[0], *was[1:])
            table = resized(saved, old, (of_frames or times, rows, columns))
        with torch.no_grad():
            model.get_parameter(key).copy_(table)
    return found


def resized(table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int]) -> Tensor:
    """Positions [1, 1 + times * rows * columns, size] of another grid: bicubic in space, linear in time.

    The first one, of the class token, is kept.
    """
    grid = table[0, 1:].unflatten(0, old).permute(0, 3, 1, 2)  # times, size, rows, columns
    if old[1:] != new[1:]:
        grid = f.interpolate(grid, new[1:], mode="bicubic", antialias=True)
    grid = grid.permute(2, 3, 1, 0).flatten(0, 1)  # rows * columns, size, times
    if old[0] != new[0]:
        grid = f.interpolate(grid, new[0], mode="linear")
    return torch.cat([table[:, :1], grid.permute(2, 0, 1).flatten(0, 1)[None]], dim=1)


# ---- the configuration ----


def _checked(folder: Path | None, config: Any) -> Any:
    what = pretrained.called(folder)
    if config.model_type not in KINDS:
        raise ModelError(
            f"{what}: a {short(str(config.model_type), 60)} model is not supported for videos: take VideoMAE, "
            "TimeSformer, ViViT, V-JEPA 2, or a model of torchvision (torchvision/r2plus1d_18)"
        )
    channels = getattr(config, KINDS[config.model_type].channels)
    if channels != 3:
        raise ModelError(f"{what}: the model takes frames of {channels} channels; frames are read in RGB")
    _check_numbers("model.config" if folder is None else f"{what}: config.json", config)
    return config


def _check_numbers(where: str, config: Any) -> None:
    """Raise ModelError for sizes that no model has. The library would allocate, or compute, for them without an end."""
    kind = KINDS[config.model_type]
    most = {kind.frames: MOST_FRAMES, **dict.fromkeys((kind.size, "patch_size", "tubelet_size"), MOST_SIDE), **SIZES}
    for name, largest in most.items():
        value = getattr(config, name, None)
        sides = 3 if name == "tubelet_size" else 2 if name in (kind.size, "patch_size") else 0
        parts = value if sides and isinstance(value, (list, tuple)) and len(value) == sides else [value]
        least = 0 if name.endswith("_layers") else 1
        if value is not None and not all(type(part) is int and least <= part <= largest for part in parts):
            raise ModelError(
                f"{where}: {name}: got {short(repr(value), 60)}, must be a number without decimals from {least} to "
                f"{largest:,}"
            )
    for name in ("mlp_ratio", "pred_mlp_ratio"):
        value = getattr(config, name, None)
        if value is not None and not (_is_number(value) and 0 < value <= 64):
            raise ModelError(f"{where}: {name}: got {short(repr(value), 60)}, must be above 0 and at most 64")
    inner = getattr(config, "intermediate_size", None) or config.hidden_size * config.mlp_ratio
    if config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * inner) > MOST_WEIGHTS:
        raise ModelError(
            f"{where}: num_hidden_layers, hidden_size: a network of more than {MOST_WEIGHTS / 1e9:.1f} billion "
            "weights: take a smaller one"
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _patch(config: Any) -> tuple[int, int, int]:
    """Frames, rows and columns of one patch."""
    if config.model_type == "vivit":
        found = tuple(config.tubelet_size)
    else:
        side = config.patch_size
        rows, columns = side if isinstance(side, (list, tuple)) else (side, side)
        found = (1 if config.model_type == "timesformer" else config.tubelet_size, rows, columns)
    if len(found) != 3 or any(type(length) is not int or length < 1 for length in found):
        raise ModelError(f"config.json: patches of {short(str(found), 60)} frames and pixels")
    return found


def _sides(config: Any) -> tuple[int, int]:
    side = getattr(config, KINDS[config.model_type].size)
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return height, width


def _grid(config: Any) -> tuple[int, int, int]:
    """How many patches there are in time, and in the rows and columns of a frame."""
    of_time, of_rows, of_columns = _patch(config)
    height, width = _sides(config)
    return getattr(config, KINDS[config.model_type].frames) // of_time, height // of_rows, width // of_columns


def _check_grid(folder: Path | None, config: Any) -> None:
    """Raise ModelError if the patches do not fill a clip, or are too many."""
    of_time, of_rows, of_columns = _patch(config)
    frames, (height, width) = getattr(config, KINDS[config.model_type].frames), _sides(config)
    if frames < of_time or frames % of_time:
        raise ModelError(
            f"options.frames: got {frames}, but this model reads {of_time} frames at a time: give a multiple of "
            f"{of_time}"
        )
    if height < of_rows or width < of_columns or height % of_rows or width % of_columns:
        raise ModelError(
            f"options.image_size: got {height} x {width}, but this model reads patches of {of_rows} x {of_columns} "
            f"pixels: give a multiple of {max(of_rows, of_columns)}"
        )
    patches = math.prod(_grid(config))
    most = MOST_OF_VIDEOMAE if config.model_type == "videomae" else MOST_POSITIONS
    if patches * config.hidden_size > most:
        raise ModelError(
            f"{pretrained.called(folder)}: {frames:,} frames of {height} x {width} pixels are {patches:,} patches, and "
            f"this network takes {most // config.hidden_size:,}: set options.frames or options.image_size"
        )


# ---- the processor ----


def _processor(folder: Path | None, config: Any, image_size: int | None) -> Any:
    """The model's own video processor at the size of `config`; the frames per second are set there.

    Raises ModelError.
    """
    from transformers import AutoVideoProcessor
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

    sides, where = _sides(config), "model.config"
    if folder is None:
        kinds: Any = VIDEO_PROCESSOR_MAPPING[type(config)]
        found = kinds["torchvision"]()
        _set_size(found, sides)
    else:
        what = pretrained.called(folder)
        names = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
        file = next((name for name in (names[2], *names[:2]) if _describes_videos(folder / name)), None)
        if file is None:
            raise ModelError(
                f"{what}: no {names[0]} or {names[1]} (how frames are scaled): copy the one that the model came with"
            )
        try:
            found = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # damaged files raise many kinds
            raise ModelError(f"{what}: its video processor cannot be read: {pretrained.first_line(error)}") from error
        where = f"{what}: {file}"
        _check_processor(where, found)
        if image_size is not None:
            _set_size(found, sides)
        if tuple(vision.input_size(found)) != sides:
            given = " x ".join(map(str, vision.input_size(found)))
            raise ModelError(
                f"{what}: its processor gives frames of {given}, and its config.json takes "
                f"{sides[0]} x {sides[1]}: set options.image_size"
            )
        try:
            shape = tuple(_prepared(found, np.zeros((1, 8, 8, 3), np.uint8)).shape)
        except Exception as error:  # processors of other models raise many kinds
            raise ModelError(f"{where}: frames cannot be prepared by it: {pretrained.first_line(error)}") from error
        if shape != (1, 3, *sides):
            raise ModelError(f"{where}: it does not give frames one size: set do_resize and do_center_crop to true")
    stated = [
        (getattr(config, RATE, None), f"{pretrained.called(folder)}: config.json: {RATE}"),
        (found.fps, f"{where}: fps"),
    ]
    for value, name in stated:
        if value is not None and not (_is_number(value) and 0 < value <= FASTEST):
            raise ModelError(
                f"{name}: got {short(repr(value), 60)}, must be a positive number of frames per second, at most "
                f"{FASTEST:,}"
            )
    rates = [float(value) for value, _ in stated if value is not None]
    setattr(config, RATE, rates[0] if rates else KINDS[config.model_type].rate)
    found.fps = found.num_frames = None  # see above
    found.do_sample_frames = False  # the frames of a clip are chosen before, by their time
    return found


def _describes_videos(path: Path) -> bool:
    """Whether transformers reads a video processor from this file; processor_config.json may have none."""
    if path.name != "processor_config.json":
        return path.is_file()
    return "video_processor" in (read_json_object(path) or {})


def _check_processor(where: str, own: Any) -> None:
    """Raise ModelError for values with which no frame can be prepared."""

    def sides(value: Any, short: bool) -> bool:
        lengths = [getattr(value, name, None) for name in ("height", "width")]
        if short and getattr(value, "shortest_edge", None) is not None:
            lengths = [value.shortest_edge]
        return all(type(length) is int and 1 <= length <= MOST_SIDE for length in lengths)

    def three(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) == 3 and all(_is_number(one) for one in value)

    of_size = f"sides from 1 to {MOST_SIDE:,} pixels"
    crops = bool(own.do_center_crop)
    factor = own.rescale_factor
    right = {
        "size": (not own.do_resize or sides(own.size, True), of_size),
        "crop_size": (not crops or sides(own.crop_size, False), of_size),
        "resample": (own.resample is None or own.resample in RESAMPLING, "0, 1, 2 or 3"),
        "rescale_factor": (not own.do_rescale or (_is_number(factor) and factor > 0), "above 0"),
        "image_mean": (not own.do_normalize or three(own.image_mean), "three numbers"),
        "image_std": (
            not own.do_normalize or (three(own.image_std) and all(one > 0 for one in own.image_std)),
            "three positive numbers",
        ),
    }
    for name, (fits, form) in right.items():
        if not fits:
            value = getattr(own, name)
            if name.endswith("size") and value is not None:
                value = {side: length for side, length in dict(value).items() if length is not None}
            value = list(value) if isinstance(value, tuple) else value
            raise ModelError(f"{where}: {name}: got {short(repr(value), 80)}, must be {form}")
    if crops and own.do_resize:
        height, width = (own.size.shortest_edge or getattr(own.size, name) for name in ("height", "width"))
        crop = own.crop_size
        if height < crop.height or width < crop.width:
            raise ModelError(
                f"{where}: size: frames of {height} x {width} pixels are smaller than crop_size "
                f"({crop.height} x {crop.width}) and would get black borders: make size as large"
            )


def _set_size(processor: Any, sides: tuple[int, int]) -> None:
    """Let a processor give frames of this size. The shorter side before the cut keeps its relation to it."""
    size, crop, kind = processor.size, processor.crop_size, type(processor.size)
    if processor.do_center_crop and crop:
        relation = (size.shortest_edge or size.height) / crop.height
        side = int(sides[0] * relation)
        if type(processor).__name__ == "VJEPA2VideoProcessor":
            side = int(sides[0] * 256 / 224)  # as its constructor does, whatever a file says
        processor.size = kind(shortest_edge=side) if size.shortest_edge else kind(height=side, width=side)
        processor.crop_size = type(crop)(height=sides[0], width=sides[1])
    elif size.shortest_edge:
        processor.size = kind(shortest_edge=sides[0])
    else:
        processor.size = kind(height=sides[0], width=sides[1])
