"""What is written one tensor at a time is what transformers writes at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.recipe import validate
from pipelines.models.adapters import add_adapter
from pipelines.training import sharded_export
from tests.support import tiny, tiny_audio, tiny_text


def loaded(kind: str, folder: Path) -> Any:
    import transformers

    make = {
        "vit": lambda: tiny.vit(folder),
        "bert": lambda: tiny_text.bert(folder),
        "gpt": lambda: tiny_text.gpt(folder),
        "timm": lambda: tiny.timm_wrapper(folder),
        "wav2vec2": lambda: tiny_audio.wav2vec2(folder, "Wav2Vec2ForCTC"),
    }
    make[kind]()
    name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    return getattr(transformers, name).from_pretrained(folder)


def same_files(one: Path, other: Path) -> None:
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    for path in one.glob("*.json"):
        assert json.loads(path.read_text()) == json.loads((other / path.name).read_text())
    mine, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype for name, value in mine.items())


def write(model: Any, base: Any, folder: Path) -> None:
    found = sharded_export.entries(model)
    assert found is not None
    with sharded_export.without_weights(base):
        base.save_pretrained(folder)
    assert not list(folder.glob("*.safetensors"))
    sharded_export.write(found, folder)


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt", "timm", "wav2vec2"])
def test_every_kind(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, tmp_path / "model")
    model.save_pretrained(tmp_path / "at once")
    write(model, model, tmp_path / "by one")
    same_files(tmp_path / "at once", tmp_path / "by one")


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_an_adapter_is_merged(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, tmp_path / "model")
    adapter = validate(
        {
            "task": "fill-mask",
            "model": {"id": "a/b", "adapter": {"kind": "lora", "rank": 2}},
            "data": {"id": "c/d"},
            "train": {"max_steps": 1},
        }
    ).model.adapter
    model = add_adapter(model, model.qa_outputs if kind == "bert" else None, adapter)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write(model, model.get_base_model(), tmp_path / "by one")
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the model itself does not change"
    model.merge_and_unload().save_pretrained(tmp_path / "at once")
    same_files(tmp_path / "at once", tmp_path / "by one")


def test_several_files_and_an_index(tmp_path: Path) -> None:
    from transformers import AutoModelForQuestionAnswering

    model = loaded("bert", tmp_path / "model")
    (tmp_path / "saved").mkdir()
    found = sharded_export.entries(model)
    assert found is not None
    with sharded_export.without_weights(model):
        model.save_pretrained(tmp_path / "saved")
    sharded_export.write(found, tmp_path / "saved", size=20_000)
    files = sorted(path.name for path in (tmp_path / "saved").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    again = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tensors are gathered all the same, because the other processes wait for this one."""
    model = loaded("bert", tmp_path / "model")
    found = sharded_export.entries(model)
    assert found is not None
    gathered: list[str] = []

    def refuse(values: Any) -> Any:
        gathered.append("one")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharded_export, "_bytes", refuse)
    asked = [
        sharded_export.Entry(e.name, e.shape, e.dtype, lambda e=e: gathered.append(e.name) or e.gather()) for e in found
    ]
    with pytest.raises(OSError, match="No space left"):
        sharded_export.write(asked, tmp_path)
    assert set(gathered) == {"one", *(entry.name for entry in found)}


def test_a_model_of_another_library() -> None:
    assert sharded_export.entries(torch.nn.Linear(2, 2)) is None
