"""Video classification: one label per video, or several (`options.multi_label`).

Two kinds of input (`options.input`). `frames`: any `AutoModelForVideoClassification` (VideoMAE, TimeSformer, ViViT,
V-JEPA 2) and torchvision's video models read clips of a video, N frames at a stated rate. Training takes one random
clip of each video in every epoch; the probabilities of `options.clips` clips are averaged in evaluation. `features`:
networks of Graft read numbers that were computed from the video before, as in YouTube-8M (Abu-El-Haija et al. 2016,
arXiv:1609.08675).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task, answer_one
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor, nn

    from pipelines.data.encoding import Encoding
    from pipelines.metrics.statistics import Statistics
    from pipelines.models.attribution import Parts
    from pipelines.models.video import Family
    from pipelines.reporting.mistakes import Mistake, MistakeSpec


class Options(Strict):
    of_the_model: ClassVar[tuple[str, ...]] = ("input", "frames", "frame_rate", "image_size", "multi_label")

    input: Literal["frames", "features"] = "frames"
    """What the model reads: `frames` of videos, or `features` that were computed before, as in YouTube-8M."""
    frames: Annotated[Int, Field(ge=1, le=512)] | None = None
    """Frames of a clip. Left out: the model's own."""
    frame_rate: Annotated[Float, Field(ge=0.01, le=240)] | None = None
    """Frames per second of a clip. Left out: the model's own. A video that is shorter than a clip is spread over it."""
    clips: Annotated[Int, Field(ge=1, le=100)] = 3
    """Clips of a video whose probabilities are averaged in evaluation and in answers."""
    image_size: Annotated[Int, Field(ge=8, le=1024)] | None = None
    """Pixels a side of a frame. Left out: the model's own."""
    augment: Literal["none", "clip", "crop", "crop-flip"] = "clip"
    """`clip`: a random clip of each video in every epoch. `crop`: also a random part of its frames. `crop-flip`: this
    part is mirrored half of the time, which is wrong for classes such as "to the left". `none`: always the middle clip,
    and a frozen trunk is then computed once.
    """
    max_frames: Annotated[Int, Field(ge=1, le=10_000)] | None = None
    """Frames of features that are read of a video. Left out: all."""
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target that is spread over all classes (Szegedy et al. 2016)."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss weighs each class by n / (classes * n of the class), so rare classes weigh more."""
    multi_label: bool = False
    """A video may have several labels, or no label."""

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.multi_label and (self.label_smoothing or self.class_weights != "none"):
            raise ValueError(
                "label_smoothing and class_weights are for one label per video: leave them out with multi_label"
            )
        of_frames = ("frames", "frame_rate", "clips", "image_size", "augment")
        wrong = [
            name
            for name in (("max_frames",) if self.input == "frames" else of_frames)
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if wrong:
            raise ValueError(f"{wrong[0]} has no effect with input: {self.input}: leave it out")
        return self


class VideoClassification(Task):
    name = "video-classification"
    hub = HubSpec("video-classification", "transformers", ("ForVideoClassification",))
    Options = Options
    family: "Family"

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []
        self.weights: dict[str, float] = {}  # class -> weight in the loss, if it is not 1

    @property
    def _features(self) -> bool:
        return bool(self.options.input == "features")

    @property
    def data(self) -> DataSpec:
        column = "features" if self._features else "video"
        return DataSpec(
            columns={column: column, "label": "label"},
            optional_columns={"digest": "text", "frames": "number"} if self._features else {"group": "text"},
            group_column=None if self._features else "group",
            input_columns=(column,),
            from_model=self._read_input,
            label_kind="classes" if self.options.multi_label else "class",
            labels=tuple(self.labels),
            protocol=self._protocol(),
        )

    def _protocol(self) -> str:
        if self._features or not hasattr(self, "family"):
            return ""
        count, clip = self.options.clips, f"{self.family.frames} frames, {self.family.rate:g} a second"
        if count == 1:
            return f"the middle clip of each video, of {clip}"
        return f"the mean of {count} clips of each video, each of {clip}"

    def _read_input(self, folder: Path) -> None:
        from pipelines.models.source import read_json_object

        config = read_json_object(folder / "config.json") or {}
        reads = "features" if config.get("model_type") == "video_features" else "frames"
        if reads != self.options.input:
            self.options = self.options.model_copy(update={"input": reads})

    @property
    def _tags(self) -> bool:
        """Whether the scores are those of YouTube-8M, which count only the 20 best labels of a video."""
        return self._features and bool(self.options.multi_label)

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import classification, tagging

        if self._tags:
            return tagging.METRICS
        return classification.SEVERAL_LABELS if self.options.multi_label else classification.ONE_LABEL

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.data import labels
        from pipelines.data.video import tfrecord
        from pipelines.models import video

        self.labels = labels.names(splits, self.options.multi_label)
        if self.options.class_weights == "balanced":
            self.weights = labels.balanced(splits.train["label"], self.labels)
        options = self.options
        model, self.family = video.build(
            source,
            self.labels,
            options.multi_label,
            options.frames,
            options.frame_rate,
            options.image_size,
            tfrecord.SIZES if self._features else None,
        )
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        return self.family.layers(model)

    def encode(self, rows: Any) -> "Encoding":
        from pipelines.data.video.clips import Clips
        from pipelines.data.video.feature_sets import FeatureSets

        if self._features:
            return FeatureSets(rows, self.labels, self.options.multi_label, self.options.max_frames)
        frames, rate = self.family.frames, self.family.rate
        read = self.family.pixels
        return Clips(rows, self.labels, self.options.multi_label, frames, rate, self.options.clips, read)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(not self._features and self.options.augment != "none")

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.video import augment
        from pipelines.data.video.clips import random_clip

        if not self.augmentation.enabled:
            return example
        frames = random_clip(example["video"], self.family.frames, self.family.rate, rng)
        if self.options.augment == "clip":
            return {**example, "pixels": self.family.pixels(frames)}
        mirror = self.options.augment == "crop-flip"
        return {**example, "pixels": self.family.scaled(augment.crop_flip(frames, rng, mirror))}

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        kept = {key: [e[key] for e in examples] for key in ("id", "row", "true")}
        target = torch.stack([e["target"] for e in examples])
        return {**kept, "target": target, **self._read(examples)}

    def _read(self, examples: Sequence[Example]) -> dict[str, Any]:
        """The model's input."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if self._features:
            features = [torch.from_numpy(e["features"]) for e in examples]
            frames = torch.tensor([len(one) for one in features])
            return {"features": pad_sequence(features, batch_first=True), "frames": frames}
        return {"pixel_values": torch.stack([e["pixels"] for e in examples]), "clip": [e["clip"] for e in examples]}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        from pipelines.losses import classification as classes

        weights = classes.weights_of(self.weights, self.labels, "cpu")
        return classes.counts(batch["target"], weights, self.options.multi_label)

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        from pipelines.losses import classification as classes

        logits = self.family.logits(model, batch)
        weights = classes.weights_of(self.weights, self.labels, logits.device)
        return classes.loss(
            logits, batch["target"], counts, weights, self.options.multi_label, self.options.label_smoothing
        )

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.metrics import classification, tagging

        logits = self.family.logits(model, batch).detach().cpu()
        if self._tags:
            return tagging.records(batch, logits, self.labels)
        if self._features:
            return classification.records(batch, logits, self.labels, self.options.multi_label)
        classification.check_finite(batch, logits)
        found = self._probabilities(logits).numpy()
        fields = ("id", "row", "clip", "true")
        return [
            {**{name: batch[name][place] for name in fields}, "probabilities": one} for place, one in enumerate(found)
        ]

    def _probabilities(self, logits: "Tensor") -> "Tensor":
        return logits.sigmoid() if self.options.multi_label else logits.softmax(-1)

    def _averaged(self, probabilities: "Tensor") -> "Tensor":
        """Logits whose probabilities are the mean of those of several clips: [clips, classes] -> [classes]."""
        mean = probabilities.double().mean(0)
        return (mean.logit() if self.options.multi_label else mean.log()).float()

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        """The mean of the probabilities of a video's clips."""
        import torch

        from pipelines.metrics import classification

        if self._features or not records:
            return list(records)
        of_row: dict[int, list[Record]] = {}
        for record in records:
            of_row.setdefault(record["row"], []).append(record)
        groups = [sorted(group, key=lambda one: int(one["clip"])) for _, group in sorted(of_row.items())]
        logits = torch.stack(
            [self._averaged(torch.stack([torch.as_tensor(one["probabilities"]) for one in group])) for group in groups]
        )
        ids = rows["id"][:]
        batch = {"id": [ids[row] for row in sorted(of_row)], "true": [group[0]["true"] for group in groups]}
        return classification.records(batch, logits.clamp(-1e4, 1e4), self.labels, self.options.multi_label)

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import classification, tagging

        if self._tags:
            return tagging.statistics(records, self.labels)
        return classification.statistics(records, self.labels, self.options.multi_label)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import classification, tagging

        return tagging.summarize(statistics, weights) if self._tags else classification.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import classification, tagging

        if self._tags:
            return {"per class": tagging.per_class(records, self.labels)}
        return {"per class": classification.per_class(records, self.labels, self.options.multi_label)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import classification as classification_plots
        from pipelines.plots import tagging as tagging_plots

        if self._tags:
            return tagging_plots.figures(records, self.labels)
        return classification_plots.figures(records, self.labels, multi_label=self.options.multi_label)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import SURE, MistakeSpec, surest_label

        return MistakeSpec(
            rank=lambda record: surest_label(record, self.options.multi_label), show=self._shown, order=SURE
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import Piece, labelled

        shown = labelled(record, self.options.multi_label)
        if self._features:  # numbers say nothing to people, so the best labels stand for the video
            true = record["true"] if self.options.multi_label else [record["true"]]
            best = sorted(record["scores"].items(), key=lambda item: -item[1])
            pieces = [Piece(f"{label} {score:.2f}", "true" if label in true else "") for label, score in best]
            spaced = [part for piece in pieces for part in (piece, Piece("  "))]
            return replace(shown, texts={"Best labels": spaced[:-1]})
        from pipelines.data.video.reading import poster

        return replace(shown, picture=poster(row["video"]), wide=True)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        self.family.save(model, folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import video

        model, self.family = video.load(folder)
        self.labels = self.family.labels
        self.options = self.options.model_copy(
            update={"input": self.family.reads, "multi_label": self.family.multi_label}
        )
        return model.eval()

    def infer(self, model: Any, *inputs: Any, top_k: int = 5) -> Iterator[list[dict[str, Any]]]:
        """The `top_k` labels of one video (path or bytes), or of its features, best first: [{"label", "score"}]."""
        yield answer_one(self, model, **dict(zip(self.data.input_columns, inputs, strict=True)), top_k=top_k)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked, cores())

    def _asked(self, one: Mapping[str, Any]) -> Example:
        top_k = one.get("top_k", 5)
        if self._features:
            from pipelines.data.video import tfrecord
            from pipelines.data.video.feature_sets import spread

            features = spread(tfrecord.read_features(one["features"]), self.options.max_frames)
            return {"top_k": top_k, "features": features}
        places = self._places(one["video"], self.options.clips)
        # the clips of long videos do not fit memory, so each is decoded when it is needed
        return {"top_k": top_k, "video": one["video"], "places": places, "bytes": self._bytes()}

    def _bytes(self) -> int:
        """The size of a clip as the model reads it."""
        height, width = self.family.size
        return self.family.frames * 3 * height * width * 4

    def _places(self, video: Any, most: int) -> list[list[float]]:
        """The times of the frames of at most so many clips, spread evenly over a video, in seconds."""
        from pipelines.data.video import clips, reading

        count, rate = self.family.frames, self.family.rate
        seconds = reading.header(video).seconds
        starts = clips.starts(seconds, clips.span(count, rate), most)
        found = [clips.times(seconds, count, rate, start) for start in starts]
        return found if any(times != found[0] for times in found) else found[:1]

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        from pipelines.data.batching import on_device
        from pipelines.metrics import classification

        if self._features:
            with torch.inference_mode():
                batch = on_device(self._read(examples), next(model.parameters()).device)
                logits = self.family.logits(model, batch).cpu()
        else:
            wanted = [(e["video"], times) for e in examples for times in e["places"]]
            scores = self._scores(model, wanted, len(examples))
            counts = [len(e["places"]) for e in examples]
            logits = torch.stack([self._averaged(one) for one in scores.split(counts)])
        top_k = [e["top_k"] for e in examples]
        return classification.ranked(logits, self.labels, self.options.multi_label, top_k)

    def _scores(self, model: Any, wanted: "Sequence[tuple[Any, list[float]]]", at_once: int) -> "Tensor":
        """The probabilities of clips, each given by its video and times: float32 [clips, classes], on the CPU."""
        import torch

        from pipelines.data.video import reading

        def read(one: tuple[Any, list[float]]) -> "Tensor":
            return self.family.pixels(reading.read_frames(*one))

        device, found = next(model.parameters()).device, []
        for start in range(0, len(wanted), at_once):
            pixels = each(read, wanted[start : start + at_once], cores())
            for one in pixels:
                if isinstance(one, DataError):
                    raise one
            with torch.inference_mode():
                logits = self.family.logits(model, {"pixel_values": torch.stack(pixels).to(device)})  # type: ignore[arg-type]
            found.append(self._probabilities(logits).cpu())
        return torch.cat(found)

    def over_time(self, model: Any, video: Any, most: int = 24) -> dict[str, Any]:
        """The probabilities of clips along a video, for a chart.

        {"seconds": length of the video, "span": seconds of a clip, "starts": [...], "scores": float32 [clips,
        classes]}. Raises DataError.
        """
        from pipelines.data.video import reading

        seconds, span = reading.header(video).seconds, self.family.frames / self.family.rate
        places = self._places(video, max(1, min(most, round(2 * seconds / span))))
        scores = self._scores(model, [(video, times) for times in places], 1)
        span = min(span, seconds)
        # a video that is shorter than a clip has one, from its beginning
        starts = [0.0] if span == seconds else [times[0] for times in places]
        return {"seconds": seconds, "span": span, "starts": starts, "scores": scores.numpy()}

    def parts(self, model: Any, row: Mapping[str, Any]) -> "Parts":
        """The middle clip of a video, or its features, in stretches of time; a hidden one shows the mean of all frames.

        The place stays, and nothing moves. Black frames would be a cut of the film, to which a model may react. Raises
        DataError.
        """
        import torch

        from pipelines.data.video import reading
        from pipelines.models import attribution

        (example,) = self.prepare([{self.data.input_columns[0]: row[self.data.input_columns[0]]}])
        if isinstance(example, DataError):
            raise example
        device = next(model.parameters()).device
        if self._features:
            frames = torch.tensor([len(example["features"])], device=device)
            inputs = torch.from_numpy(example["features"])[None].to(device)

            def logits(values: "Tensor") -> "Tensor":
                return self.family.logits(model, {"features": values, "frames": frames.expand(len(values))})

        else:
            times = example["places"][len(example["places"]) // 2]
            inputs = self.family.pixels(reading.read_frames(example["video"], times))[None].to(device)

            def logits(values: "Tensor") -> "Tensor":
                return self.family.logits(model, {"pixel_values": values})

        still = inputs.mean(1, keepdim=True).expand_as(inputs)
        return attribution.over_time(inputs, logits, 1, still, torch.zeros_like(inputs), attribution.FILM)

    def map_picture(self, row: Mapping[str, Any], parts: "Parts", values: "np.ndarray") -> "Image | None":
        """A frame of each stretch of time, with its colour; None for features, which show nothing."""
        from PIL import Image as images

        from pipelines.data.video import reading
        from pipelines.plots import heat_maps

        if self._features:
            return None
        places = self._places(row["video"], self.options.clips)
        times = places[len(places) // 2]
        middles = [times[min(int((start + end) / 2 * len(times)), len(times) - 1)] for start, end in parts.places]
        frames = [images.fromarray(frame) for frame in reading.read_frames(row["video"], middles)]
        return heat_maps.strip(frames, values)
