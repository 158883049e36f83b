"""Models that cannot be used: an error of a line or two, exit code 2, and none of their code runs."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny, tiny_audio, tiny_text
from tests.support.command import RECIPE, graft, refused
from tests.support.invalid_inputs import World, a_right_world, a_world  # noqa: F401 (fixtures)


class Touches:
    """When it is unpickled, it writes a file, which proves that its code ran."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


# ---- folders ----


def model(world: World, **files: str | bytes | None) -> Path:
    """The correct model with some files changed or (None) removed; `config__json` is config.json."""
    folder = world.copy(world.vit, "model")
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def config(world: World, folder: Path | None = None, **fields: Any) -> Path:
    folder = folder or world.copy(world.vit, "model")
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **fields}))
    return folder


def of_code(world: World) -> Path:
    """A model with code of its own, which would write a file."""
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForImageClassification": "own.Own"}
    folder = config(world, model_type="own", auto_map=names)
    (folder / "own.py").write_text(f"open({str(world.tmp / 'ran')!r}, 'w')\nclass OwnConfig: pass\nclass Own: pass\n")
    return folder


def pickled(world: World, plain: bool = False) -> Path:
    """A model whose weights are a pickle that runs code when it is loaded."""
    import torch
    from safetensors.torch import load_file

    evil = Touches(world.tmp / "ran")
    if plain:
        return model(world, model__safetensors=None, pytorch_model__bin=pickle.dumps(evil))
    weights = load_file(world.vit / "model.safetensors")
    folder = model(world, model__safetensors=None)
    torch.save({**weights, "more": evil}, folder / "pytorch_model.bin")
    return folder


def half(world: World) -> Path:
    return model(world, model__safetensors=(world.vit / "model.safetensors").read_bytes()[:9000])


def without_a_block(world: World) -> Path:
    from safetensors.torch import load_file, save_file

    folder = world.copy(world.vit, "model")
    kept = {
        name: value for name, value in load_file(folder / "model.safetensors").items() if "1" not in name.split(".")
    }
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def bert(world: World) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    shape = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    BertForSequenceClassification(BertConfig(**shape)).save_pretrained(world.tmp / "bert")
    return world.tmp / "bert"


def windows(world: World) -> Path:
    """A timm Swin, whose windows need inputs of 32 pixels."""
    import timm
    from timm.models import save_for_hf

    shape = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **shape)
    swin.pretrained_cfg.update(input_size=(3, 32, 32), num_classes=3)
    save_for_hf(swin, str(world.tmp / "swin"), model_args=shape, safe_serialization=True)
    return world.tmp / "swin"


def words(world: World, **fields: Any) -> Path:
    """A BERT whose configuration contradicts its weights."""
    return config(world, tiny_text.bert(world.tmp / "words", "BertForSequenceClassification"), **fields)


def sounds(world: World, **fields: Any) -> Path:
    return config(world, tiny_audio.wav2vec2(world.tmp / "sounds", "Wav2Vec2ForSequenceClassification"), **fields)


# kind of model -> field of its config.json -> an impossible value, and words that the error must contain
ODD: dict[str, dict[str, tuple[Any, str]]] = {
    "image": {
        "num_attention_heads": (-1, "num_attention_heads is -1, and must be 1 or more"),
        "patch_size": (0, "patch_size is 0, and must be 1 or more"),
        "image_size": (-32, "image_size is -32, and must be 1 or more"),
        "hidden_size": (33, "its weights do not fit its config.json"),
        "num_hidden_layers": ("two", "num_hidden_layers"),
    },
    "text": {
        "num_attention_heads": (-1, "num_attention_heads is -1, and must be 1 or more"),
        "num_hidden_layers": (-1, "num_hidden_layers is -1, and must be 0 or more"),
        "hidden_size": (33, "not a multiple of the number of attention heads"),
        "vocab_size": (0, "vocab_size is 0, and must be 1 or more"),
        "max_position_embeddings": (0, "max_position_embeddings is 0, and must be 1 or more"),
        "hidden_act": ("none", "the model cannot be loaded: 'none'"),
    },
    "audio": {
        "num_attention_heads": (-1, "num_attention_heads is -1, and must be 1 or more"),
        "num_hidden_layers": (-2, "num_hidden_layers is -2, and must be 0 or more"),
        "num_conv_pos_embedding_groups": (7, "in_channels must be divisible by groups"),
    },
}


LORA = "model.adapter={kind: lora, targets: [query_key]}"

# what is wrong -> (the model, override, words that the error must contain)
MODELS: dict[str, tuple[Callable[[World], Any], str | None, list[str]]] = {
    "no such folder": (lambda w: w.tmp / "absent", None, ["absent", "no such folder"]),
    "an empty folder": (lambda w: (w.tmp / "model").mkdir() or w.tmp / "model", None, ["no model here", "config.json"]),
    "a file": (lambda w: w.vit / "config.json", None, ["config.json", "this is a file"]),
    "a broken configuration": (lambda w: model(w, config__json="{not"), None, ["config.json", "not valid JSON"]),
    "a list for a configuration": (lambda w: model(w, config__json="[]"), None, ["config.json", "JSON object"]),
    "an unknown kind": (lambda w: config(w, model_type="frobnicate"), None, ["`frobnicate`"]),
    "another task": (bert, None, ["bert", "does not classify images"]),
    "grey images": (lambda w: config(w, num_channels=1), None, ["1 channels", "RGB"]),
    "code of its own": (of_code, None, ["code of its own", "never runs"]),
    "a pickle": (pickled, None, ["pickle", "is not run", "safetensors"]),
    "a plain pickle": (lambda w: pickled(w, plain=True), None, ["pickle", "is not run", "safetensors"]),
    "no weights": (lambda w: model(w, model__safetensors=None), None, ["no weights here", "model.safetensors"]),
    "empty weights": (lambda w: model(w, model__safetensors=b""), None, ["cannot be loaded", "header too small"]),
    "half the weights": (half, None, ["model", "cannot be loaded"]),
    "missing weights": (without_a_block, None, ["are missing", "layers.1"]),
    "no image processor": (lambda w: model(w, preprocessor_config__json=None), None, ["no preprocessor_config.json"]),
    "a broken image processor": (
        lambda w: model(w, preprocessor_config__json="{"),
        None,
        ["preprocessor_config.json", "cannot be read"],
    ),
    "a size below a patch": (lambda w: w.vit, "options.image_size=7", ["options.image_size", "patch"]),
    "a size that no window fits": (windows, "options.image_size=20", ["options.image_size", "another shape"]),
    "a revision of a folder": (
        lambda w: w.vit,
        "model.revision=main",
        ["model.revision", "folder here", "leave it out"],
    ),
    "more blocks than there are": (lambda w: w.vit, "model.freeze=7", ["model.freeze", "got 7", "1 to 2"]),
    "LoRA on nothing": (lambda w: w.vit, LORA, ["model.adapter.targets", "'query_key'", "q_proj"]),
    "dropout without effect": (lambda w: w.vit, "options.dropout=0.5", ["options.dropout", "vit", "leave it out"]),
    "no gradient checkpointing": (
        lambda w: tiny.mobilenet(w.tmp / "mobilenet"),
        "train.gradient_checkpointing=true",
        ["train.gradient_checkpointing", "does not support", "leave it out"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_wrong_model(name: str, world: World) -> None:
    make, override, words = MODELS[name]
    done = world.graft("train", *([override] if override else []), model=make(world))
    refused(done, 2, *words)
    assert not (world.tmp / "ran").exists(), "code from a model was run"
    assert not (world.tmp / "run" / "checkpoints").exists()


def test_the_trap_works(tmp_path: Path) -> None:
    """The code does run if it is called; otherwise the tests above would prove nothing."""
    pickle.loads(pickle.dumps(Touches(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


CONFIGURATIONS = {
    "{model_type: vti}": ["model.config.model_type", "'vti'", "did you mean 'vit'"],
    "{model_type: vit, hidden_sise: 8}": ["model.config", "'hidden_sise'", "'hidden_size'"],
    "{model_type: vit, hidden_size: wide}": ["model.config", "hidden_size", "wide"],
    "{model_type: bert}": ["model.config", "bert", "does not classify images"],
    "{hidden_size: 8}": ["model", "model_type"],
}


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_wrong_configuration(text: str, world: World) -> None:
    (world.tmp / "recipe.yaml").write_text(RECIPE.replace("{id: nowhere}", f"{{config: {text}}}"))
    refused(graft("check", world.tmp / "recipe.yaml", "--data", world.photos), 2, *CONFIGURATIONS[text])


def test_a_pickle_of_tensors_is_read_and_told(world: World) -> None:
    import torch
    from safetensors.torch import load_file

    folder = model(world, model__safetensors=None)
    torch.save(load_file(world.vit / "model.safetensors"), folder / "pytorch_model.bin")
    done = world.graft("check", model=folder)
    assert done.code == 0, done.err
    assert "read from a pickle, tensors only" in done.err


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in ODD.items() for field in fields])
def test_a_configuration_that_cannot_be(kind: str, field: str, world: World) -> None:
    task, make, data = {
        "image": ("image-classification", config, lambda folder: world.photos),
        "text": ("text-classification", words, tiny_text.labelled),
        "audio": ("audio-classification", sounds, tiny_audio.labelled),
    }[kind]
    value, says = ODD[kind][field]
    folder = make(world, **{field: value})
    (world.tmp / "recipe.yaml").write_text(RECIPE.replace("image-classification", task))
    done = graft("check", world.tmp / "recipe.yaml", "--data", data(world.tmp / "rows"), "--model", folder)
    refused(done, 2, str(folder), says)


def test_a_model_of_the_recipe_s_own_that_cannot_be(world: World) -> None:
    (world.tmp / "recipe.yaml").write_text(
        RECIPE.replace("{id: nowhere}", "{config: {model_type: vit, num_attention_heads: -1}}", 1)
    )
    refused(
        graft("check", world.tmp / "recipe.yaml", "--data", world.photos), 2, "model.config: num_attention_heads is -1"
    )
