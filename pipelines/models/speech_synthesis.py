"""Models that make log-mel spectrograms of texts, with one interface for all families.

`build` and `load` return a module and its `Family`, which knows how the model takes texts and speakers, what its loss
is, and how it makes spectrograms. A vocoder (pipelines.models.vocoders) makes recordings of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.errors import ModelError
from pipelines.models import folders

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    from torch import Tensor, nn

    from pipelines.data.audio.mel import MelSettings
    from pipelines.utils.settings import Setting

Batch = dict[str, Any]

# The names of the loss and of its parts in every family, for what compares runs without their models.
PARTS = dict.fromkeys(("loss", "spectrogram", "stop", "attention", "duration", "prior", "flow"), "min")
MOST_SPEAKERS = 100_000


class Family(Protocol):
    """How a kind of model takes texts, and what it gives. It holds no weights."""

    library: str
    """The hub's library_name."""
    mel: "MelSettings"
    tokens_have_frames: bool
    """Whether each token of a text has a frame of its own, so that a text may be too long for its recording."""
    speakers: list[str]
    """The speakers that the model knows, in the order of their numbers; empty if it has one voice."""
    parts: Mapping[str, str]
    """The names of the loss and of its parts, each with its direction ("min"); the first is the loss itself."""
    settings: "Mapping[str, Setting]"
    """Numbers that a request may set (speed, temperature, steps)."""
    defaults: Mapping[str, float]
    """Their values where a request does not set them."""

    def tokens(self, text: str) -> list[int]:
        """The text as token ids. Raises DataError if nothing in it can be spoken, or if it is too long."""

    def frames(self, frames: int) -> int:
        """How many of so many frames are learned (a multiple of the reduction factor)."""

    def random_inputs(self, rng: "Random") -> dict[str, Any]:
        """Random values of an example, as `Task.random_inputs`."""

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """Examples {id, row, tokens: list, mel: float32 [frames, bins], speaker: int} as one padded batch."""

    def counts(self, batch: Batch) -> dict[str, float]:
        """What the loss is divided by, known before the forward pass."""

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float]) -> "Tensor":
        """The part of the step's loss that this batch gives."""

    def scores(self, model: "nn.Module", batch: Batch) -> list[dict[str, tuple[float, float]]]:
        """For each row the sum and the count of every name in `parts`. They do not depend on the rows beside it."""

    def speak(self, model: "nn.Module", requests: Sequence[Mapping[str, Any]]) -> "list[np.ndarray]":
        """A log-mel spectrogram [frames, bins] for each request {tokens, speaker: int, seed, **settings}.

        It does not depend on the other requests.
        """

    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks from input to output; the head is the last one."""

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write config.json, model.safetensors and what is needed to read texts and speakers."""


def build(
    source: Any, texts: Sequence[str], speakers: Sequence[str], options: Any, vectors: "np.ndarray | None" = None
) -> "tuple[nn.Module, Family]":
    """A model of `source` (pipelines.models.source.Weights) for these speakers; from random weights also for the
    characters of these texts. `vectors` [speakers, size] describe the voices, if a speaker model was named.

    Raises ModelError.
    """
    kind = folders.kind_of(source.folder, source.config, "model of text to speech")
    given: dict[str, Any] = {}
    if kind == "flow_speech":
        for name in ("speaker_embeddings", "freeze_batch_norm"):
            if getattr(options, name) is not None:
                raise ModelError(f"options.{name}: this is for SpeechT5, and the model is {kind}: leave it out")
    elif vectors is not None:
        given["vectors"] = vectors
    found: tuple[nn.Module, Family] = _module(kind).build(source, list(texts), list(speakers), options, **given)
    return found


def load(folder: Path, options: Any) -> "tuple[nn.Module, Family]":
    """Load a model folder of any of the families, in eval mode. Raises ModelError."""
    kind = folders.kind_of(folder, None, "model of text to speech")
    found: tuple[nn.Module, Family] = _module(kind).load(folder, options)
    return found


def speakers_of(folder: Path) -> list[str]:
    """The speakers that config.json of a model folder lists under `speakers`. Raises ModelError."""
    found = folders.stated(folder, None).get("speakers", [])
    if not isinstance(found, list) or len(found) > MOST_SPEAKERS or not all(isinstance(one, str) for one in found):
        raise ModelError(f"{folder / 'config.json'}: speakers must be a list of names")
    if len(set(found)) < len(found):
        raise ModelError(f"{folder / 'config.json'}: speakers: a name is in the list twice")
    return list(found)


def _module(kind: str) -> Any:
    """The module of the family that has this kind of model."""
    # each by its name, so that a Space has the file
    from pipelines.models import flow_speech, speecht5

    return flow_speech if kind == "flow_speech" else speecht5
