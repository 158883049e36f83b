"""Video classifiers of transformers: VideoMAE, TimeSformer, ViViT and V-JEPA 2.

Any of them takes another number of frames or another image size than its weights were trained with: VideoMAE's
positions are computed, those of V-JEPA 2 are rotations, and the tables of TimeSformer and ViViT are resized.

Frames are prepared by the methods of the model's own video processor, without the checks around them: the numbers are
equal, and 16 frames take half the time or less. The processor is saved with `fps` and `num_frames`, the fields by
which transformers names a clip.
"""

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


class Transformers:
    """The family of transformers' video classifiers (see pipelines.models.video.Family)."""

    library, reads = "transformers", "frames"

    def __init__(self, config: Any, processor: Any) -> None:
        self.kind = KINDS[config.model_type]
        self.processor = processor
        self.labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        self.multi_label = config.problem_type == "multi_label_classification"
        self.frames = int(getattr(config, self.kind.frames))
        self.rate = float(processor.fps)
        self.size = vision.input_size(processor)

    def pixels(self, frames: np.ndarray) -> Tensor:
        own = self.processor
        images = torch.from_numpy(frames).permute(0, 3, 1, 2)
        if own.do_resize:
            images = own.resize(images, own.size, own.resample)
        if own.do_center_crop:
            images = own.center_crop(images, own.crop_size)
        return self._normalised(images)

    def scaled(self, frames: np.ndarray) -> Tensor:
        return self._normalised(torch.from_numpy(frames).permute(0, 3, 1, 2))

    def _normalised(self, images: Tensor) -> Tensor:
        own = self.processor
        found: Tensor = own.rescale_and_normalize(
            images, own.do_rescale, own.rescale_factor, own.do_normalize, own.image_mean, own.image_std
        )
        return found.float().contiguous()

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
    _check_grid(config)
    processor = _processor(source.folder, config, image_size)
    if rate is not None:
        processor.fps = rate
    model = _model(source.folder, config, labels, random=source.random, was=was)
    return model, Transformers(model.config, processor)


def load(folder: Path) -> tuple[nn.Module, Transformers]:
    """Load a model folder in eval mode. Raises ModelError."""
    config = _checked(folder, pretrained.read_config(folder, None))
    _check_grid(config)
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
    return config


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


def _check_grid(config: Any) -> None:
    """Raise ModelError if the patches do not fill a clip."""
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


# ---- the processor ----


def _processor(folder: Path | None, config: Any, image_size: int | None) -> Any:
    """The model's own video processor at the size of `config`, with `fps` and `num_frames`. Raises ModelError."""
    from transformers import AutoVideoProcessor
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

    sides = _sides(config)
    if folder is None:
        kinds: Any = VIDEO_PROCESSOR_MAPPING[type(config)]
        found = kinds["torchvision"]()
        _set_size(found, sides)
    else:
        what = pretrained.called(folder)
        names = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
        if not any((folder / name).is_file() for name in names):
            raise ModelError(
                f"{what}: no {names[0]} or {names[1]} (how frames are scaled): copy the one that the model came with"
            )
        try:
            found = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # damaged files raise many kinds
            raise ModelError(f"{what}: its video processor cannot be read: {pretrained.first_line(error)}") from error
        if image_size is not None:
            _set_size(found, sides)
        if tuple(vision.input_size(found)) != sides:
            given = " x ".join(map(str, vision.input_size(found)))
            raise ModelError(
                f"{what}: its processor gives frames of {given}, and its config.json takes "
                f"{sides[0]} x {sides[1]}: set options.image_size"
            )
    stated = found.fps
    if stated is not None and not (isinstance(stated, (int, float)) and 0 < stated < 1e4):
        raise ModelError(f"{pretrained.called(folder)}: fps of its video processor is {short(str(stated), 60)}")
    found.fps = stated or KINDS[config.model_type].rate
    found.num_frames = getattr(config, KINDS[config.model_type].frames)
    found.do_sample_frames = False  # the frames of a clip are chosen before, by their time
    return found


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
