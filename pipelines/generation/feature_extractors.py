"""Feature extractors for distances between sets of images: the Inception network of FID, or any image classifier.

    features, probabilities = classifier(folder, "cpu", "digits").look(images)

Both are float32, one row per image in the order of the images, whatever the size of the batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.image.reading import read_image
from pipelines.errors import DataError, ModelError, RunError

if TYPE_CHECKING:
    import torch
    from torch import nn

Seen = tuple["torch.Tensor", "torch.Tensor | None"]
Fits = Callable[[Sequence[Any], Sequence[str]], np.ndarray]  # images and as many texts -> one score per pair


@dataclass
class Extractor:
    name: str
    """What stands in `frechet_distance (<name>)`."""
    inception: bool
    """Whether the distances on its features are FID and KID."""
    labels: list[str] | None
    """A classifier's classes, in the order of its probabilities."""
    see: Callable[[list[Any]], Seen]
    """RGB images -> features [n, D], and probabilities [n, classes] or None."""

    def look(
        self, images: Sequence[Any], batch_size: int = 64, tick: Callable[[int], None] = lambda done: None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Features [N, D] float32 of images of any mode and, for a classifier, probabilities [N, classes].

        `tick(n)` is called with the number of images finished. Raises DataError for no images, or for an image that
        cannot be read.
        """
        import torch

        if not len(images):
            raise DataError("there are no images to look at")
        features, probabilities = [], []
        for start in range(0, len(images), batch_size):
            batch = [read_image(image) for image in images[start : start + batch_size]]
            with torch.inference_mode():
                seen, sure = self.see(batch)
            features.append(seen.float().cpu().numpy())
            if sure is not None:
                probabilities.append(sure.float().cpu().numpy())
            tick(len(batch))
        return np.concatenate(features), np.concatenate(probabilities) if probabilities else None


# ---- Inception ----


def inception(device: Any, weights: Path | None = None) -> Extractor:
    """The Inception network that defines FID, in torch-fidelity's port: 2048 features.

    Its weights are downloaded once, unless `weights` names the file. Raises RunError if torch-fidelity is not installed
    or the weights cannot be downloaded, ModelError if the file does not hold them.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise RunError("FID and KID need torch-fidelity, which is not installed: pip install torch-fidelity") from None
    import torch

    file = weights or _inception_weights()
    try:
        torch.load(
            file, weights_only=True, map_location="cpu"
        )  # the library itself would run code that is pickled in the file
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file)).to(
            device
        )
    except Exception as error:  # a damaged file can raise any error
        raise ModelError(
            f"{file}: not the weights of torch-fidelity's Inception network: delete it, or name another file"
        ) from error

    def see(images: list[Any]) -> Seen:
        pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
        sizes: dict[Any, list[int]] = {}
        for place, image in enumerate(pixels):
            sizes.setdefault(image.shape, []).append(place)
        found = torch.empty(len(images), 2048)
        # the network scales images to 299 pixels itself, and a batch needs images of one size
        for places in sizes.values():
            found[places] = network(torch.stack([pixels[place] for place in places]).to(device))[0].cpu()
        return found, None

    return Extractor("inception", True, None, see)


def _inception_weights() -> Path:
    """Path of the weights in torch's cache; downloads them and checks their hash if they are missing.

    Raises RunError.
    """
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    file = Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(file), file.stem.rpartition("-")[2], progress=False)
    except (OSError, RuntimeError) as error:  # urllib raises OSErrors; a wrong hash is a RuntimeError
        raise RunError(
            f"the Inception weights cannot be downloaded ({error}): put the file from {URL_INCEPTION_V3} at {file}"
        ) from error
    return file


# ---- CLIP ----


def clip(folder: Path, device: Any) -> Fits:
    """Load a CLIP model that scores how well images fit their texts.

    The score is 100 times the cosine of their features, at least 0 (Hessel et al. 2021). Raises ModelError for a model
    of another kind.
    """
    import torch
    from torch import nn
    from transformers import CLIPModel, CLIPProcessor

    from pipelines.models import pretrained

    config = pretrained.read_config(folder, None)
    if config.model_type != "clip":
        raise ModelError(
            f"options.clip: {pretrained.called(folder)} is a {config.model_type} model: choose a CLIP model "
            "(openai/clip-vit-base-patch16)"
        )
    model: Any = pretrained.load_model(CLIPModel, folder, config, lambda model: nn.Identity()).eval().to(device)
    try:
        processor: Any = CLIPProcessor.from_pretrained(folder)
    except Exception as error:  # a damaged file, or one of another kind, can raise any error
        raise ModelError(
            f"{pretrained.called(folder)}: its processor cannot be read: {pretrained.first_line(error)}"
        ) from error

    def fits(images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        found = []
        for start in range(0, len(images), 32):
            given = [read_image(image).convert("RGB") for image in images[start : start + 32]]
            longest = config.text_config.max_position_embeddings
            inputs = processor(
                text=list(texts[start : start + 32]),
                images=given,
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=longest,
            )
            with torch.inference_mode():
                seen = model(**inputs.to(device))
            cosines = torch.nn.functional.cosine_similarity(seen.image_embeds.float(), seen.text_embeds.float())
            found.append((100 * cosines).clamp(min=0).cpu().numpy())
        return np.concatenate(found)

    return fits


# ---- a classifier ----


def classifier(folder: Path, device: Any, name: str) -> Extractor:
    """An image classifier in a folder (transformers or timm). Its features are the input of its head.

    Raises ModelError for a model of another kind, a model without a trained head, or one that predicts several labels.
    """
    import torch

    from pipelines.models import pretrained, vision

    config = pretrained.read_config(folder, None)
    vision.check_classifies(folder, config)
    if config.problem_type == "multi_label_classification":
        raise ModelError(
            f"{pretrained.called(folder)}: gives several labels per image: choose a classifier that gives one"
        )
    timm = config.model_type == "timm_wrapper"
    if not timm and not any("ForImageClassification" in kind for kind in config.architectures or ()):
        raise ModelError(
            f"{pretrained.called(folder)}: has no trained head to classify with: choose a model that was fine-tuned"
        )
    if timm:
        config.model_args = {
            k: v for k, v in (config.model_args or {}).items() if k != "num_classes"
        }  # transformers passes this argument itself
    processor = vision.image_processor(folder, config, None)
    model: Any = vision.image_classifier(folder, config).eval().to(device)
    entered: list[torch.Tensor] = []
    _entrance(vision.head(model)).register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))

    def see(images: list[Any]) -> Seen:
        pixels = [processor(image, return_tensors="pt")["pixel_values"] for image in images]
        entered.clear()
        logits = model(pixel_values=torch.cat(pixels).to(device)).logits
        return _flat(entered.pop()), logits.float().softmax(-1)

    return Extractor(name, False, [config.id2label[index] for index in range(config.num_labels)], see)


def _entrance(head: "nn.Module") -> "nn.Module":
    """The layer that receives the features: the head, or the last layer of a head with several parts (a norm, a
    classifier).
    """
    from torch import nn

    if not isinstance(head, nn.ModuleList):
        return head
    return [module for module in head.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]


def _flat(features: "torch.Tensor") -> "torch.Tensor":
    """[B, tokens, D] -> the mean over tokens; [B, C, H, W] -> [B, C * H * W]."""
    return features.mean(1) if features.ndim == 3 else features.flatten(1)
