"""Feature extractors for images: the inputs of a classifier's head, and torch-fidelity's Inception features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.errors import DataError, ModelError, RunError
from pipelines.generation import feature_extractors
from pipelines.models import vision
from pipelines.tasks.image_classification import ImageClassification
from tests.support import tiny


def images(n: int = 7, size: int = 32) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [tiny.picture(i % 3, 3, size, rng) for i in range(n)]


# ---- a classifier ----

MODELS = {
    "vit": tiny.vit,
    "resnet": tiny.resnet,
    "convnext": tiny.convnext,
    "mobilenet": tiny.mobilenet,
    "poolformer": tiny.poolformer,
    "timm": tiny.timm_model,
    "timm, saved by transformers": tiny.timm_wrapper,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_features_are_what_the_head_takes(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    looking = feature_extractors.classifier(folder, "cpu", "insects")
    assert (looking.name, looking.inception, looking.labels) == ("insects", False, list(tiny.LABELS))
    features, probabilities = looking.look(images(), batch_size=3)
    assert features.dtype == np.float32
    assert features.ndim == 2
    assert probabilities is not None
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)

    model: Any = ImageClassification().load(folder)
    last = [m for m in vision.head(model).modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.inference_mode():
        logits = last(torch.tensor(features))
    np.testing.assert_allclose(logits.softmax(-1).numpy(), probabilities, rtol=1e-4, atol=1e-6)
    assert features.shape[1] == last.in_features


def test_probabilities_are_the_tasks(vit_folder: Path) -> None:
    task = ImageClassification()
    model = task.load(vit_folder)
    looking = feature_extractors.classifier(vit_folder, "cpu", "vit")
    _, probabilities = looking.look(images(4))
    assert looking.labels == task.labels
    assert probabilities is not None
    for image, row in zip(images(4), probabilities, strict=True):
        answer = next(task.infer(model, image, top_k=3))
        np.testing.assert_allclose([one["score"] for one in answer], np.sort(row)[::-1], rtol=1e-5)


@pytest.mark.parametrize("folder", ["vit_folder", "resnet_folder"])
def test_batches_change_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    looking = feature_extractors.classifier(request.getfixturevalue(folder), "cpu", "any")
    done: list[int] = []
    all_features, sure = looking.look(images(9))
    parts, surely = looking.look(images(9), batch_size=4, tick=done.append)
    assert done == [4, 4, 1]
    np.testing.assert_allclose(parts, all_features, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(surely, sure, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_grey_images_are_seen_as_rgb(vit_folder: Path) -> None:
    looking = feature_extractors.classifier(vit_folder, "cpu", "vit")
    grey = [image.convert("L") for image in images(3)]
    seen, _ = looking.look(grey)
    assert (seen == looking.look([image.convert("RGB") for image in grey])[0]).all()
    with pytest.raises(DataError, match="no images to look at"):
        looking.look([])


def test_what_is_no_classifier_is_refused(tmp_path: Path, vit_folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    shape = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "image_size": 16,
        "patch_size": 8,
    }
    ViTModel(ViTConfig(**shape)).save_pretrained(tmp_path / "trunk")
    with pytest.raises(ModelError, match="no trained head"):
        feature_extractors.classifier(tmp_path / "trunk", "cpu", "x")
    several = tiny.vit(tmp_path / "several", problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="several labels per image"):
        feature_extractors.classifier(several, "cpu", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="not a model that transformers knows"):
        feature_extractors.classifier(tmp_path / "empty", "cpu", "x")


# ---- Inception ----


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the names and shapes of the real one, and random weights. Both lack BatchNorm's counters."""
    from unittest import mock

    from torch_fidelity import feature_extractor_inceptionv3 as inceptionv3

    kind = inceptionv3.FeatureExtractorInceptionV3
    with (
        torch.random.fork_rng(devices=[]),
        mock.patch.object(kind, "load_state_dict"),
        mock.patch.object(inceptionv3.torch, "load"),
    ):
        torch.manual_seed(0)
        network = kind("random", ["2048"], feature_extractor_weights_path="none")
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}, file)
    return file


def test_inception_is_torch_fidelitys(weights: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    looking = feature_extractors.inception("cpu", weights)
    assert (looking.name, looking.inception, looking.labels) == ("inception", True, None)
    mixed = [*images(2, 32), *images(1, 40), images(3, 32)[2].convert("L")]
    features, probabilities = looking.look(mixed, batch_size=3)
    assert probabilities is None
    assert features.shape == (4, 2048)
    assert features.dtype == np.float32
    assert features.std() > 0
    theirs = FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=str(weights))
    for image, row in zip(mixed, features, strict=True):
        pixels = torch.tensor(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
        np.testing.assert_allclose(theirs(pixels)[0][0].numpy(), row, rtol=1e-3, atol=1e-5)


def test_inception_offline_says_where_the_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def no_network(url: str, *rest: Any, **more: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(RunError, match="cannot be downloaded") as caught:
        feature_extractors.inception("cpu")
    wanted = tmp_path / "torch" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert str(caught.value).endswith(f"at {wanted}")
    assert "\n" not in str(caught.value)


def test_inception_is_downloaded_once_with_its_hash(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def fetch(url: str, to: str, hash_prefix: str, progress: bool) -> None:
        fetched.append(hash_prefix)
        Path(to).write_bytes(weights.read_bytes())

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert feature_extractors.inception("cpu").inception
    assert feature_extractors.inception("cpu").inception
    assert fetched == ["6726825d"]


def test_inception_refuses_other_files(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"run": print}, tmp_path / "code.pth")  # a pickle that holds more than tensors is never run
    for name in ("other.pth", "text.pth", "code.pth", "missing.pth"):
        with pytest.raises(ModelError, match=f"{name}: not the weights of torch-fidelity's"):
            feature_extractors.inception("cpu", tmp_path / name)


def test_inception_without_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(RunError, match="pip install torch-fidelity"):
        feature_extractors.inception("cpu")
