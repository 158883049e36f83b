"""Find a model's weights: from a run folder, a model folder or a hub id."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import encoders
from pipelines.config.recipe import ModelSection
from pipelines.errors import ModelError
from pipelines.hub import places
from pipelines.models.classic_kinds import ALONE
from pipelines.models.classic_kinds import KINDS as CLASSICS
from pipelines.models.pretrained import LORA
from pipelines.utils.files import did_you_mean, problem
from pipelines.utils.formatting import short

# The files that mark a model folder: of transformers or timm, of a diffusers pipeline, of a diffusers adapter.
JSON = ("config.json", "model_index.json")
DESCRIBED = (*JSON, LORA)
LIBRARIES = ("torchvision", "libreyolo")  # a `model_type` that is itself the name of the model's library
OF_ARCHITECTURES = (*LIBRARIES, "smp", "video_features")  # a `model_type` that says nothing of the architecture
SMP = "segmentation-models-pytorch"  # its folders name no model_type, but a class of the library


@dataclass(frozen=True)
class Weights:
    """Where a model starts from: a local folder, or a configuration and random weights."""

    folder: Path | None
    config: dict[str, Any] | None = None
    random: bool = False
    name: str = ""  # hub id, or the last component of the path; may be published
    base_model: str | None = None  # the closest hub id in the chain of runs that led to this model
    revision: str | None = None  # resolved commit of a hub model
    license: str | None = None
    encoder: str = ""  # of a new model whose encoder is pretrained: the hub id of these weights, or what a folder holds
    described: str = ""  # what a local folder holds, by its configuration: its own name may be just `model`

    @property
    def scratch(self) -> bool:
        """Whether all weights are random."""
        return self.random and not self.encoder

    @property
    def title(self) -> str:
        """The model's name for people: the hub id, the name of the run, or what a local folder holds."""
        return self.described or self.name


def resolve(section: ModelSection) -> Weights:
    """Find the weights of a recipe's model section on disk; hub models are downloaded.

    Raises ModelError or HubError.
    """
    if section.config is not None:
        if (place := encoders.place(section.config)) is not None:
            return _on_an_encoder(section.config, place)
        kind = section.config["model_type"]
        if kind in OF_ARCHITECTURES:
            kind = short(str(section.config.get("architecture", kind)), 60)
        return Weights(None, section.config, True, name=f"{kind} from scratch")
    assert section.id is not None
    random = section.weights == "random"
    if section.id.startswith(places.TORCHVISION) and not Path(section.id).exists():
        # an architecture of torchvision, or one of its own on a timm backbone: torchvision/fasterrcnn/resnet18
        architecture, _, backbone = section.id.removeprefix(places.TORCHVISION).partition("/")
        config = {"model_type": "torchvision", "architecture": architecture}
        return Weights(None, config | ({"backbone": backbone} if backbone else {}), True, name=section.id)
    if section.id.startswith(places.LIBREYOLO) and not Path(section.id).exists():
        architecture, _, size = section.id.removeprefix(places.LIBREYOLO).partition("_")
        config = {"model_type": "libreyolo", "architecture": architecture, "size": size}
        return Weights(None, config, True, name=section.id)
    if section.id.startswith(places.SMP) and not Path(section.id).exists():
        architecture, _, encoder = section.id.removeprefix(places.SMP).partition("/")
        config = {"model_type": "smp", "architecture": architecture}
        return Weights(None, config | ({"encoder": encoder} if encoder else {}), True, name=section.id)
    if section.id.startswith(places.VIDEO_FEATURES) and not Path(section.id).exists():
        config = {"model_type": "video_features", "architecture": section.id.removeprefix(places.VIDEO_FEATURES)}
        return Weights(None, config, True, name=section.id)
    folder = local_model(section.id)
    if folder is None:
        from pipelines.hub.download import download

        folder = download(section.id, section.revision)
        front = front_matter(folder)
        return Weights(folder, None, random, section.id, section.id, folder.name, front.get("license"))
    if section.revision is not None:
        raise ModelError(f"model.revision: {section.id} is a folder here, which has no revisions: leave it out")
    front = front_matter(folder)
    base = front.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    run = folder.parent if folder.name == "model" and (folder.parent / "results.json").is_file() else None
    return Weights(
        folder,
        None,
        random,
        (run or folder).resolve().name,
        base if isinstance(base, str) else None,
        None,
        front.get("license"),
        described="" if run else f"{_held(folder)} (local folder)",
    )


def _on_an_encoder(config: dict[str, Any], place: str) -> Weights:
    """A new model whose encoder has the weights of a timm folder or hub id."""
    folder = local_model(place)
    if folder is not None:
        front = front_matter(folder)
        base, encoder = front.get("base_model"), f"{_held(folder)} (local folder)"
    else:
        from pipelines.hub.download import download

        front = front_matter(download(place, None))
        base = encoder = place
    return Weights(
        None,
        config,
        True,
        f"new {short(str(config.get('architecture')), 60)} on {encoder}",
        base if isinstance(base, str) else None,
        license=front.get("license"),
        encoder=encoder,
    )


def _held(folder: Path) -> str:
    """The architecture of the model in a folder. It is published.

    A configuration may also name where it came from, but nobody can tell the hub id owner/name from the local path
    clients/name.
    """
    config = next((found for name in JSON if (found := read_json_object(folder / name)) is not None), {})
    kinds = config.get("architectures")
    stated = [*(kinds if isinstance(kinds, list) else []), *(config.get(key) for key in KINDS)]
    kind = next((one for one in stated if isinstance(one, str) and re.fullmatch(r"[\w.+-]+", one)), None)
    return short(re.sub(r"(?<=\w)(For[A-Z]\w*|Model)$", "", kind), 60) if kind else "a model"


# how diffusers, timm, transformers and segmentation-models-pytorch call an architecture
KINDS = ("_class_name", "architecture", "model_type", "_model_class")


def library(config: Mapping[str, Any]) -> str | None:
    """The hub's library_name of a model folder with this config.json, if it is not the usual one of its task."""
    kind = config.get("model_type")
    if kind == "video_features" or kind in CLASSICS or kind in ALONE:
        return "pytorch"
    return SMP if "_model_class" in config else str(kind) if kind in LIBRARIES else None


def _below(folder: Path) -> str:
    """` (did you mean x/hf?)` if a folder in this one holds a model; else empty."""
    with contextlib.suppress(OSError):
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            if any((inner / name).is_file() for name in DESCRIBED):
                return f" (did you mean {inner}?)"
    return ""


def local_model(source: str | Path) -> Path | None:
    """The model folder at a local path (for a run, its model/); None if `source` looks like a hub id.

    Raises ModelError.
    """
    why = problem(str(source))
    if why:
        raise ModelError(f"no model can be called {short(str(source))!r}: {why}")
    path = Path(source).expanduser()
    if path.is_dir():
        folder = path / "model" if any((path / "model" / name).is_file() for name in DESCRIBED) else path
        if not any((folder / name).is_file() for name in DESCRIBED):
            unfinished = (path / "recipe.yaml").is_file()
            raise ModelError(
                f"{path}: "
                + (
                    "the run is not finished: run its `graft train` command again"
                    if unfinished
                    else f"no model here (config.json){_below(path)}"
                )
            )
        return folder
    if path.exists():
        raise ModelError(f"{path}: a model is a folder or a hub id, this is a file")
    text = str(source)
    if places.looks_local(text):
        raise ModelError(
            f"{text}: no such folder{did_you_mean(text)}; a model is a run folder, a model folder or a hub id "
            "(owner/name)"
        )
    return None


def front_matter(folder: Path) -> dict[str, Any]:
    """The metadata block of a model folder's README.md; empty if there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    parts = text.split("---", 2) if text.startswith("---") else []
    try:
        found = yaml.safe_load(parts[1]) if len(parts) == 3 else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file does not exist. Raises ModelError for a damaged file."""
    if not path.is_file():
        return None
    try:
        # NaN stands for an undefined value
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: must hold one JSON object, got {type(found).__name__}")
    return found
