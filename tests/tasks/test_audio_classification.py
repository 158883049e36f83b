"""Audio classification: the contract, families of models, windows of recordings, augmentation, frozen features."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.audio import augment
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.errors import ModelError
from pipelines.evaluation import scoring
from pipelines.models import audio as sound
from pipelines.models import classics, ctc, pretrained
from pipelines.models.build import build
from pipelines.models.classic_kinds import KINDS
from pipelines.models.layers import freeze, how_frozen
from pipelines.models.source import resolve
from pipelines.task import headline
from pipelines.tasks.audio_classification import AudioClassification, Options
from pipelines.training.feature_cache import store
from pipelines.training.run import train
from tests.support import tiny_audio, tiny_audio_sets
from tests.support.hub import HubServer
from tests.support.runs import losses, without_pictures
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        model, data = tiny_audio.wav2vec2(folder / "model"), tiny_audio.labelled(folder / "clips")
        return {
            "task": "audio-classification",
            "model": {"id": str(model), "freeze": "none"},
            "data": {"id": str(data), "workers": 0},
            "options": {"augment": "wave", "time_mask": 0.1},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        sure = {"confidence": 1.0, "rank": 0}
        return [
            {"id": r["id"], "true": r["label"], "predicted": r["label"], "scores": {r["label"]: 1.0}, **sure}
            for r in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (run / "model" / "examples" / "0.flac",)

    def same(self, printed: str, answer: Any) -> bool:
        found = {label: float(score) for score, label in re.findall(r"^([\d.]+)\s+(\S+)$", printed, re.M)}
        return found == pytest.approx({a["label"]: a["score"] for a in answer}, abs=6e-4)


@pytest.mark.integration
class TestClassic(TestContract):
    """A network that transformers has no class for: its card carries the code."""

    spine = False

    def recipe(self, folder: Path) -> dict[str, Any]:
        shape = {"num_mel_bins": 16, "hidden_size": 16, "num_hidden_layers": 2, "bidirectional": True}
        return {**super().recipe(folder), "model": {"config": {"model_type": "gru", **shape}}}


def class_folders(folder: Path) -> Path:
    for split in ("train", "validation", "test"):
        for word in tiny_audio.WORDS:
            for i in range(8):
                tiny_audio.write(folder / split / word / f"{i}.wav", tiny_audio.spoken(word, i))
    return folder


DATA: dict[str | None, Callable[[Path], Path]] = {
    "audiofolder": class_folders,
    None: class_folders,
    "esc50": lambda folder: tiny_audio_sets.esc50(folder, folds=5),
    "audioset": lambda folder: tiny_audio_sets.audioset(folder, lists=("balanced_train", "eval")),
    "spoken_digits": tiny_audio_sets.digits,
}


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    if recipe.model.id is not None:
        hub.add_model(recipe.model.id, tiny(folder / "model", "ast" if "/ast-" in recipe.model.id else "group norm"))
    changes = ("options.max_seconds=0.3",) if recipe.options.max_seconds else ()  # type: ignore[attr-defined]
    return Served(str(DATA[recipe.data.format](folder / "data")), None, changes)


# ---- every family works the same way ----

AST = {
    "num_mel_bins": 16,
    "max_length": 32,
    "patch_size": 8,
    "frequency_stride": 8,
    "time_stride": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
WHISPER = {
    "num_mel_bins": 16,
    "max_source_positions": 50,
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "vocab_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
    "classifier_proj_size": 16,
}
LAYER = {**tiny_audio.SHAPE, "classifier_proj_size": 16, "initializer_range": 0.2}
GROUP = {**LAYER, "feat_extract_norm": "group", "do_stable_layer_norm": False}
SEW = {**GROUP, "squeeze_factor": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("wav2vec2", LAYER),
    "group norm": ("wav2vec2", GROUP),
    "hubert": ("hubert", GROUP),
    "wavlm": ("wavlm", GROUP),
    "sew": ("sew", SEW),
    "unispeech-sat": ("unispeech-sat", GROUP),
    "ast": ("audio-spectrogram-transformer", AST),
    "whisper": ("whisper", WHISPER),
}


def tiny(folder: Path, family: str) -> Path:
    """A pretrained trunk of two layers with its feature extractor. If it has a head, the head has other classes."""
    import transformers

    kind, shape = FAMILIES[family]
    config = transformers.AutoConfig.for_model(kind, num_labels=5, **shape)
    auto = (
        transformers.WhisperForConditionalGeneration
        if kind == "whisper"
        else transformers.AutoModelForAudioClassification
    )
    torch.manual_seed(0)
    model = auto(config) if kind == "whisper" else auto.from_config(config)
    model.save_pretrained(folder)
    sound.extractor(None, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_audio.labelled(tmp_path_factory.mktemp("clips"), n=9)
    return load_splits(DataSection(id=str(folder), format="table"), DataSpec(("audio", "label")))


def built(folder: Path, splits: Any, family: str, **options: Any) -> tuple[Any, Any]:
    """A task and its model."""
    task = AudioClassification(Options(**options))
    torch.manual_seed(0)
    return task, task.build(resolve(ModelSection(id=str(tiny(folder, family)))), splits).eval()


def scored(task: Any, model: Any, audio: list[np.ndarray]) -> torch.Tensor:
    read = task._read([{"audio": samples} for samples in audio])
    with torch.no_grad():
        return task._logits(model, read)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_builds_freezes_saves_and_loads(family: str, clips: Any, tmp_path: Path) -> None:
    task, model = built(tmp_path / "model", clips, family)
    found = task.layers(model)
    assert len(found) == 4, "stem, two blocks, head"
    freeze(model, found, "backbone")
    trains = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trains <= {"classifier", "projector"}
    assert "classifier" in trains
    task.save(model, tmp_path / "saved")
    again = AudioClassification()
    loaded = again.load(tmp_path / "saved")
    assert again.labels == ["high", "low", "mid"]
    batch = Examples(task, task.encode(clips.test))[[(None, 0), (None, 1)]].batch
    with torch.no_grad():
        assert torch.allclose(task._logits(model, batch), again._logits(loaded, batch), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM's attention
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("ast", "whisper", "sew")])
def test_a_recording_gets_the_answer_that_it_would_get_alone(family: str, clips: Any, tmp_path: Path) -> None:
    """The padding does not change the result.

    `length` is the number of the model's outputs, so that they can be cached.
    """
    task, model = built(tmp_path / "model", clips, family)
    audio = [tiny_audio.spoken(text, 1) for text in ("low", "high mid low", "mid high")]
    assert torch.allclose(
        scored(task, model, audio), torch.cat([scored(task, model, [one]) for one in audio]), atol=2e-6
    )
    encoded = task.encode(clips.test)
    made = task._read([encoded[3]])["input_values"]
    ctc.beside.samples = ()
    assert pretrained.trunk(model)(made).last_hidden_state.shape[1] == encoded.lengths[3] > 5


# ---- networks that transformers has no class for ----

SMALL = {"num_mel_bins": 16, "hidden_size": 16, "num_hidden_layers": 2}
CLASSICS: dict[str, dict[str, Any]] = {
    "gru": {**SMALL, "bidirectional": True},
    "lstm": {**SMALL, "bidirectional": True},
    "transformer": {**SMALL, "num_attention_heads": 2, "intermediate_size": 16},
}


def classic(splits: Any, kind: str, options: Any = None, **config: Any) -> tuple[Any, Any]:
    """A task and a network with random weights."""
    task = AudioClassification(Options(**(options or {})))
    torch.manual_seed(0)
    return task, task.build(resolve(ModelSection(config={"model_type": kind, **CLASSICS[kind], **config})), splits)


@pytest.mark.parametrize("kind", CLASSICS)
def test_a_classic_reads_a_recording_of_any_length(kind: str, clips: Any, tmp_path: Path) -> None:
    """Neither padding nor saving changes an answer. A step is 20 ms, and a recording of one sample has one."""
    task, model = classic(clips, kind)
    model.eval()
    audio = [tiny_audio.spoken(text, 1) for text in ("low", "high mid low")]
    audio += [np.zeros(8000, np.float32), np.ones(1, np.float32)]
    together = scored(task, model, audio)
    assert torch.isfinite(together).all()
    assert torch.allclose(together, torch.cat([scored(task, model, [one]) for one in audio]), atol=2e-6)
    encoded = task.encode(clips.test)
    read = task._read([encoded[3]])
    assert read["input_features"].shape == (1, encoded.lengths[3], 2 * SMALL["num_mel_bins"])
    assert read["steps"] == [encoded.lengths[3]] == [(1 + (len(encoded[3]["audio"]) - 400) // 160) // 2]
    assert len(task.layers(model)) == 4, "stem, two blocks, head"
    freeze(model, task.layers(model), "backbone")
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"head"}
    task.save(model, tmp_path / "saved")
    again = AudioClassification()
    loaded = again.load(tmp_path / "saved")
    assert torch.equal(scored(again, loaded, audio), together)


def test_the_arguments_of_a_classic_mean_the_same_in_every_task() -> None:
    """A configuration does not know its task, so an argument has one type and one default."""
    found: dict[tuple[str, str], set[Any]] = {}
    for kind in KINDS:
        for network in classics.networks(kind):
            for name, one in classics.arguments(network).items():
                found.setdefault((kind, name), set()).add((one.annotation, one.default))
    assert len(found) > 20
    assert not {key: values for key, values in found.items() if len(values) > 1}


def test_masks_of_a_classic_cover_all_frames_of_a_step(clips: Any) -> None:
    task, _ = classic(clips, "gru", {"time_mask": 0.5, "frequency_mask": 0.5})
    example = {"audio": tiny_audio.spoken("low high"), "time_mask": (0.0, 0.5), "frequency_mask": (0.25, 0.5)}
    found = task._read([example])["input_features"][0].unflatten(1, (2, -1))
    assert (found[: len(found) // 2] == 0).all()
    assert ((found == 0).all(0) == torch.tensor([4 <= band < 8 for band in range(16)])).all()


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("gru", {"hidden_size": 0}, "hidden_size is 0"),
        ("gru", {"hidden": 8}, "gru has no field 'hidden'"),
        ("lstm", {"vocab_size": 100}, "has no vocab_size"),
        ("gru", {"num_mel_bins": 500}, "num_mel_bins: got 500, must be 1 to 120"),
        ("gru", {"hidden_size": 10**6}, "weights"),
        ("gru", {"dropout": 1.5}, "dropout probability"),
        ("gru", {"hidden_size": "many"}, "hidden_size"),
        ("transformer", {"num_attention_heads": 3}, "must be a multiple of 3 heads"),
        ("lenet", {}, "a lenet model does not classify audio"),
    ],
)
def test_a_classic_that_cannot_be_built_is_an_error(kind: str, config: dict, words: str, clips: Any) -> None:
    shape = {**CLASSICS.get(kind, {}), **config}
    with pytest.raises(ModelError, match=words):
        AudioClassification().build(resolve(ModelSection(config={"model_type": kind, **shape})), clips)


def test_a_classic_takes_no_adapter(clips: Any) -> None:
    raw = {
        "task": "audio-classification",
        "model": {"config": {"model_type": "transformer"}, "adapter": {"kind": "lora"}},
        "data": {"id": "clips"},
        "train": {"epochs": 1},
    }
    recipe = validate(raw)
    with pytest.raises(ModelError, match="leave adapter out"):
        build(recipe, AudioClassification(), resolve(recipe.model), clips)


def test_a_feature_extractor_of_another_model_is_an_error(clips: Any, tmp_path: Path) -> None:
    task, model = classic(clips, "gru")
    task.save(model, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    good = json.loads(file.read_text())
    for wrong in ({"num_mel_bins": 8}, {"stride": 1}, {"feature_extractor_type": "ASTFeatureExtractor"}):
        file.write_text(json.dumps({**good, **wrong}))
        with pytest.raises(ModelError, match=f"{next(iter(wrong))} is .*, and its network reads"):
            AudioClassification().load(tmp_path)


# ---- frozen features ----


@pytest.mark.parametrize("family", ["wav2vec2", "group norm", "ast", "whisper", "gru"])
def test_cached_equals_uncached(family: str, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    seen: list[Any] = []
    real = store.record
    monkeypatch.setattr(store, "record", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    if family == "gru":
        model = tmp_path / "model"
        task, network = classic(clips, family)
        task.save(network, model)
    else:
        model = tiny(tmp_path / "model", family)
    data = tiny_audio.table(tmp_path / "data", ROWS)
    raw = {
        "task": "audio-classification",
        "model": {"id": str(model), "freeze": "backbone"},
        "data": {"id": str(data / "train.jsonl"), "workers": 0, "holdout": 0.25},
        "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32", "log_every": 1},
    }
    found = []
    for room in (0, 1):
        with without_pictures():
            train(validate({**raw, "data": {**raw["data"], "cache_gb": room}}), tmp_path / f"run{room}", name="small")
        found.append(losses(tmp_path / f"run{room}"))
    assert [cached is not None for cached in seen] == [True, True]
    assert not seen[0].plan.anew, "an epoch reads no audio"
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert len(found[0]) >= 6


ROWS = [
    (text, {"label": text.split()[0]})
    for text in ("low", "high mid", "mid low low", "low mid", "high", "mid high low")
    for _ in range(3)
]


# ---- the window of a recording ----


def test_the_middle_is_read_and_training_takes_any_part(clips: Any, tmp_path: Path) -> None:
    task, _ = built(tmp_path / "m", clips, "wav2vec2", max_seconds=0.2, augment="wave")
    long = np.arange(16000, dtype=np.float32) / 16000 + 0.1
    assert np.array_equal(task.part(long), long[6400:9600])
    assert task.part(long[:3200]) is not long
    parts = [task.augment({"audio": long}, Random(seed), 0.0)["audio"] for seed in range(6)]
    assert {len(part) for part in parts} <= {3200}
    assert len({round(float(part.mean() / part.std()), 1) for part in parts}) > 3


def test_ast_is_fitted_to_what_is_read(clips: Any, tmp_path: Path) -> None:
    """A shorter window takes the middle of the positions; a longer one interpolates.

    The saved model keeps its window.
    """
    task, model = built(tmp_path / "m", clips, "ast", max_seconds=0.2)
    base = model.audio_spectrogram_transformer
    assert task._read([{"audio": tiny_audio.spoken("low")}])["input_values"].shape == (1, 20, 16)
    assert (model.config.max_length, base.embeddings.position_embeddings.shape[1]) == (20, 2 + 2 * 2)
    task.save(model, tmp_path / "saved")
    again = AudioClassification()
    again.load(tmp_path / "saved")
    assert again.window == task.window == 400 + 19 * 160
    positions = torch.arange(10.0).reshape(1, 10, 1)  # two tokens, then two bands of four times
    assert sound.fit_positions(positions, 2, 10).flatten().tolist() == list(range(10))
    assert sound.fit_positions(positions, 2, 6).flatten().tolist() == [0, 1, 3, 4, 7, 8]
    assert sound.fit_positions(positions, 2, 18).shape == (1, 18, 1)


def test_a_head_that_knows_the_classes_is_kept(clips: Any, tmp_path: Path) -> None:
    task, model = built(tmp_path / "m", clips, "ast")
    task.save(model, tmp_path / "saved")
    few = SimpleNamespace(labels=["mid", "high"], train=clips.train, name="few")
    again = AudioClassification()
    chosen = again.build(resolve(ModelSection(id=str(tmp_path / "saved"))), few).eval()
    audio = [tiny_audio.spoken("low")]
    assert torch.equal(scored(again, chosen, audio), scored(task, model, audio)[:, [2, 0]])
    assert chosen.config.id2label == {0: "mid", 1: "high"}


# ---- options ----


def test_changes_are_functions_of_their_seed(clips: Any, tmp_path: Path) -> None:
    task, _ = built(
        tmp_path / "m", clips, "ast", augment="wave", time_mask=0.5, frequency_mask=0.5, mixup=1.0, multi_label=False
    )
    encoded = task.encode(clips.train)
    batches = [Examples(task, encoded, seed, True)[[(0, i) for i in range(6)]].batch for seed in (0, 0, 1)]
    assert torch.equal(batches[0]["input_values"], batches[1]["input_values"])
    assert not torch.equal(batches[0]["input_values"], batches[2]["input_values"])
    assert torch.allclose(batches[0]["target"].sum(1), torch.ones(6))
    assert ((batches[0]["target"] > 0).sum(1) == 2).any()
    value = batches[0]["input_values"]
    assert (value == 0).all(1).any(), "a band is masked"
    assert (value == 0).all(2).any(), "a stretch is masked"


def test_mixup_adds_up(clips: Any) -> None:
    one, two = np.ones(8, np.float32), np.full(5, 3, np.float32)
    made, share = augment.mixup(one, two, 1.0, Random(0))
    assert made == pytest.approx([share + 3 * (1 - share)] * 5 + [share] * 3)


def test_the_feature_encoder_is_frozen_if_it_is_pretrained(clips: Any, tmp_path: Path) -> None:
    for asked, frozen in (("auto", True), ("none", False), ("encoder", True)):
        task, model = built(tmp_path / "m", clips, "group norm")
        layers = task.layers(model)
        freeze(model, layers, how_frozen(layers, asked, pretrained=True))
        assert {p.requires_grad for p in model.wav2vec2.feature_extractor.parameters()} == {not frozen}
        assert all(p.requires_grad for p in model.wav2vec2.encoder.parameters())
    scratch = ModelSection(config={"model_type": "wav2vec2", **LAYER})
    task = AudioClassification()
    layers = task.layers(task.build(resolve(scratch), clips))
    assert how_frozen(layers, "auto", pretrained=False) == "none"


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("wav2vec2", {"frequency_mask": 0.1}, "reads no spectrogram"),
        ("whisper", {"max_seconds": 2}, "reads 1 seconds"),
    ],
)
def test_an_option_that_would_do_nothing_is_an_error(
    family: str, options: dict, words: str, clips: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words):
        built(tmp_path / "m", clips, family, **options)


def test_no_encoder_can_be_frozen_where_there_is_none(clips: Any, tmp_path: Path) -> None:
    task, model = built(tmp_path / "m", clips, "ast")
    with pytest.raises(ModelError, match="none that can be frozen alone"):
        freeze(model, task.layers(model), "encoder")


def test_several_labels(tmp_path: Path) -> None:
    folder = tiny_audio.labelled(tmp_path / "clips", n=9, several=True)
    rows = load_splits(DataSection(id=str(folder), format="table"), DataSpec(("audio", "label"), label_kind="classes"))
    task, model = built(tmp_path / "m", rows, "wav2vec2", multi_label=True)
    batch = Examples(task, task.encode(rows.train))[[(None, 0), (None, 1)]].batch
    assert batch["target"].sum(1).tolist() == [len(label) for label in rows.train["label"][:2]]
    assert set(task.predict(model, batch)[0]["scores"]) == set(task.labels) == {"low", "mid", "high"}
    perfect = [
        {
            "id": r["id"],
            "true": r["label"],
            "predicted": r["label"],
            "scores": {n: float(n in r["label"]) for n in task.labels},
        }
        for r in rows.test
    ]
    assert set(scoring.scores(task, perfect, None).values()) == {1.0}
    assert headline(task).name == "map"
