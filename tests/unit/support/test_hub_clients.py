"""The hub on loopback, tested with the real transformers, timm and datasets: everything loads by its id."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support import tiny
from tests.support.hub import USER, HubServer, hub

__all__ = ["hub"]

# ---- models ----


def test_transformers_loads_by_id(hub: HubServer, vit_folder: Path) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    sha = hub.add_model("google/vit-base-patch16-224-in21k", vit_folder)
    loaded = AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224-in21k").eval()
    local = AutoModelForImageClassification.from_pretrained(vit_folder).eval()
    assert (
        hub.home / "hub" / "models--google--vit-base-patch16-224-in21k" / "snapshots" / sha / "config.json"
    ).is_file()
    processor = AutoImageProcessor.from_pretrained("google/vit-base-patch16-224-in21k")
    pixels = processor(Image.new("RGB", (40, 50), "red"), return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**pixels).logits, local(**pixels).logits)
    with pytest.raises(OSError, match="no-such-model"):
        AutoModelForImageClassification.from_pretrained("google/no-such-model")
    assert hub.unknown == []


def test_timm_ids_load_through_transformers_and_timm(hub: HubServer, tmp_path: Path) -> None:
    import timm
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    hub.add_model("timm/test_efficientnet.r160_in1k", tiny.timm_model(tmp_path, model_args=False))
    loaded = AutoModelForImageClassification.from_pretrained("timm/test_efficientnet.r160_in1k").eval()
    assert type(loaded).__name__ == "TimmWrapperForImageClassification"
    assert loaded.num_labels == len(tiny.LABELS)
    assert AutoImageProcessor.from_pretrained("timm/test_efficientnet.r160_in1k").data_config["input_size"] == (
        3,
        32,
        32,
    )
    by_timm = timm.create_model("hf-hub:timm/test_efficientnet.r160_in1k", pretrained=True).eval()
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values=pixels).logits, by_timm(pixels), rtol=1e-4, atol=1e-5)
    assert hub.unknown == []


# ---- data sets ----


def test_datasets_loads_parquet_with_splits_and_features(hub: HubServer, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = {"text": ["a", "b", "c"], "label": [0, 1, 1]}
    sets = DatasetDict({s: Dataset.from_dict(rows, features=features) for s in ("train", "test")})
    sets.push_to_hub(f"{USER}/pushed")  # the real client writes the real layout
    loaded = load_dataset(f"{USER}/pushed")
    assert {name: part.num_rows for name, part in loaded.items()} == {"train": 3, "test": 3}
    assert loaded["train"].features["label"].names == ["no", "yes"]
    assert loaded["test"][:] == rows
    assert [r["text"] for r in load_dataset(f"{USER}/pushed", split="train", streaming=True)] == ["a", "b", "c"]
    assert hub.unknown == []


def test_datasets_loads_plain_files_and_image_folders(hub: HubServer, tmp_path: Path) -> None:
    from datasets import load_dataset

    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "csv" / "test.csv").write_text("text,label\nc,1\n")
    hub.add_dataset("someone/csv", tmp_path / "csv")
    assert load_dataset("someone/csv", split="test")[0] == {"text": "c", "label": 1}
    for split, label in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
        (tmp_path / "photos" / split / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / split / label / "1.png")
    sha = hub.add_dataset("someone/photos", tmp_path / "photos")
    photos = load_dataset("someone/photos", revision=sha)
    assert photos["train"].features["label"].names == ["cat", "dog"]
    assert photos["test"][0]["image"].size == (8, 8)
    with pytest.raises(Exception, match="someone/nothing"):
        load_dataset("someone/nothing")
    assert hub.unknown == []
