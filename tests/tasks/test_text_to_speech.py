"""Text to speech: the contract of both families; SpeechT5's losses and waveforms are those of transformers."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from pipelines.config.recipe import Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, ModelError
from pipelines.inference.loading import load
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.tasks.text_to_speech import TextToSpeech
from tests.support import tiny_audio, tiny_speech
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, close, gradio_page, hub  # noqa: F401 (fixtures)


def tiny_recipe(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "task": "text-to-speech",
        "model": {"id": str(tiny_speech.speecht5(folder / "speecht5"))},
        "data": {"id": str(tiny_speech.speech(folder / "speech")), "workers": 0},
        "options": {"samples": 2, "grid": 1, **options},
        "train": {"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "precision": "fp32"},
        "hub": {"examples": 2},
    }


class TestContract(TaskContract):
    """Two voices that are learned, and Griffin-Lim."""

    rate = 2e-2
    unshardable = "FSDP2 cannot part speecht5.encoder.prenet.encode_positions.alpha"

    def recipe(self, folder: Path) -> dict[str, Any]:
        return tiny_recipe(folder)

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        parts = {name: [0.0, 1.0] for name in ("loss", "spectrogram", "stop", "attention")}
        return [{"id": row["id"], "parts": parts} for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        return ("low mid", "ada", 0)

    def same(self, printed: str, answer: Any) -> bool:
        """The snippet makes a recording of its own; it must hold sound at the model's rate."""
        samples, rate = soundfile.read(self.cwd / "speech.wav")
        return rate == answer.rate and len(samples) > 0 and str(rate) in printed


FLOW = {
    "model_type": "flow_speech",
    "hidden_size": 32,
    "encoder_layers": 2,
    "duration_layers": 1,
    "decoder_size": 32,
    "decoder_layers": 4,
    "dropout": 0.0,
    "mel": {"num_mel_bins": 16},
}


@pytest.mark.integration
class TestFlowSpeech(TaskContract):
    """Two voices and the characters of their texts, from random weights, and Griffin-Lim."""

    rate = 5e-3

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "text-to-speech",
            "model": {"config": FLOW},
            "data": {"id": str(tiny_speech.speech(folder / "speech")), "workers": 0},
            "options": {"samples": 4, "grid": 2},
            "train": {"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        parts = {name: [0.0, 1.0] for name in ("loss", "duration", "prior", "flow")}
        return [{"id": row["id"], "parts": parts} for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        rows = json.loads((run / "model" / "examples" / "examples.json").read_text())
        return (rows[0]["text"], "ada", 0)

    def same(self, printed: str, answer: Any) -> bool:
        """The snippet speaks the same text with the same seed, and Griffin-Lim is the same: so is the recording."""
        samples, rate = soundfile.read(self.cwd / "speech.wav", dtype="float32")
        same = len(samples) == len(answer.samples) and np.allclose(samples, answer.samples, atol=1e-2)
        return rate == answer.rate and float(np.abs(samples).max()) > 0 and same and str(rate) in printed


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    """A tiny SpeechT5 and HiFi-GAN, and the data in their own layouts."""
    if recipe.model.id is not None:
        hub.add_model(recipe.model.id, tiny_speech.speecht5(folder / "model"))
    if recipe.options.vocoder is not None:
        hub.add_model(recipe.options.vocoder, tiny_speech.hifi_gan(folder / "vocoder"))
    return tiny_speech.served(recipe, hub, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A task with a model that speaks until its longest, its rows and examples, and the model as it is saved."""
    folder = tmp_path_factory.mktemp("speecht5")
    recipe = validate(tiny_recipe(folder, vocoder=str(tiny_speech.hifi_gan(folder / "vocoder"))))
    task = TextToSpeech(recipe.options)
    splits = load_splits(recipe.data, task.data)
    model: Any = build(recipe, task, resolve(recipe.model), splits)
    torch.nn.init.constant_(model.speech_decoder_postnet.prob_out.bias, -4.0)
    task.save(model, folder / "saved")
    examples = Examples(task, task.encode(splits.train))
    return SimpleNamespace(
        folder=folder, recipe=recipe, task=task, splits=splits, model=model.eval(), examples=examples
    )


def plain(folder: Path) -> tuple[Any, Any, torch.Tensor, list[str]]:
    """The saved model, its processor, its voices and their names, with nothing of Graft."""
    from transformers import SpeechT5ForTextToSpeech, SpeechT5Processor

    model = SpeechT5ForTextToSpeech.from_pretrained(folder).eval()
    voices = load_file(folder / "speaker_embeddings.safetensors")["embeddings"]
    return model, SpeechT5Processor.from_pretrained(folder), voices, model.config.speakers


# ---- loss ----


def test_the_loss_of_a_row_is_that_of_transformers(made: SimpleNamespace) -> None:
    model, _, voices, _ = plain(made.folder / "saved")
    prenet = model.speecht5.decoder.prenet
    for number in range(4):
        batch = made.examples[[(None, number)]].batch
        # the same units of the prenet are dropped
        kept = iter(made.task.family.kept(batch["prenet"], batch["mels"].shape[1] // 2, "cpu"))
        prenet._consistent_dropout = lambda states, p, kept=kept: torch.where(next(kept), states, 0) / (1 - p)
        names = {"input_ids": "ids", "attention_mask": "mask", "labels": "mels"}
        with torch.no_grad():
            found = model(speaker_embeddings=voices[batch["speakers"]], **{k: batch[v] for k, v in names.items()})
            own = made.task.loss(made.model, batch, made.task.counts(batch), "main", 0)
        assert float(own) == pytest.approx(float(found.loss), rel=1e-6)


def test_a_loss_does_not_depend_on_micro_batches_and_padding(made: SimpleNamespace) -> None:
    """Also with batch norms in training mode but fixed statistics, as a fine-tuned model has them."""
    numbers = range(8)
    made.model.train()
    whole = made.examples[[(0, number) for number in numbers]].batch
    assert len(set(whole["lengths"].tolist())) > 1, "rows of one length have no padding"
    counts = made.task.counts(whole)
    with torch.no_grad():
        want = float(made.task.loss(made.model, whole, counts, "main", 0))
        for size in (1, 2, 4):
            parts = [made.examples[[(0, n) for n in range(start, start + size)]].batch for start in range(0, 8, size)]
            found = sum(float(made.task.loss(made.model, part, counts, "main", 0)) for part in parts)
            assert found == pytest.approx(want, rel=1e-5)
    made.model.eval()


def test_batch_norms_that_learn_see_no_padding(made: SimpleNamespace, tmp_path: Path) -> None:
    raw = tiny_recipe(tmp_path, freeze_batch_norm=False)
    task = TextToSpeech(validate(raw).options)
    model: Any = build(made.recipe, task, resolve(made.recipe.model), made.splits).train()
    batch = made.examples[[(0, number) for number in range(4)]].batch
    longer = {**batch, "mels": torch.nn.functional.pad(batch["mels"], (0, 0, 0, 20))}
    before = [float(task.loss(model, one, task.counts(one), "main", 0).detach()) for one in (batch, longer)]
    assert before[0] == pytest.approx(before[1], rel=1e-5)
    assert bool(model.speech_decoder_postnet.layers[0].batch_norm.running_mean.any())


def test_the_attention_for_a_cpu_is_the_librarys(made: SimpleNamespace) -> None:
    """With so little dropout that nothing is dropped: one part in 65,536 is the least that is."""
    from copy import deepcopy

    from pipelines.models import cpu_kernels
    from pipelines.models.cpu_kernels_speecht5 import Attention

    batch = made.examples[[(0, number) for number in range(4)]].batch
    fast = deepcopy(made.model).train()
    cpu_kernels.install(fast, torch.device("cpu"))
    attentions = [part for part in fast.modules() if isinstance(part, Attention)]
    assert len(attentions) == 2 + 2 * 2, "of the encoder's layers, and two of each of the decoder's"
    for part in attentions:
        part.dropout = 1e-6
    losses = [made.task.loss(model, batch, made.task.counts(batch), "main", 0) for model in (fast, made.model)]
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-6)
    for part in attentions:
        part.dropout = 0.9
    other = made.task.loss(fast, batch, made.task.counts(batch), "main", 0)
    assert float(other.detach()) != pytest.approx(float(losses[1].detach()), rel=5e-6)


# ---- recordings ----


def test_plain_transformers_makes_the_same_waveforms(made: SimpleNamespace) -> None:
    """Together, alone, loaded again, and by `generate_speech` after the same seed: equal, with the prenet's dropout."""
    from transformers import SpeechT5HifiGan

    model, processor, voices, names = plain(made.folder / "saved")
    vocoder = SpeechT5HifiGan.from_pretrained(made.folder / "vocoder")
    asked = [{"text": "low mid", "speaker": "bob", "seed": 3}, {"text": "high", "speaker": "ada", "seed": 2**40}]
    together = made.task.generation.generate(made.model, asked)
    loaded = TextToSpeech(made.recipe.options)
    again = loaded.generation.generate(loaded.load(made.folder / "saved"), asked)
    for request, sound, other in zip(asked, together, again, strict=True):
        *_, alone = made.task.infer(made.model, **request)
        torch.manual_seed(request["seed"])
        ids = processor(text=request["text"], return_tensors="pt")["input_ids"]
        speech = model.generate_speech(ids, voices[[names.index(request["speaker"])]], vocoder=vocoder).detach().numpy()
        assert len(speech) == 256 * 20 * ids.shape[1], "the model never says that it ends"
        assert float(np.abs(speech).max()) > 0.1
        for samples in (alone.samples, sound.samples, other.samples):
            assert samples.shape == speech.shape
            assert np.allclose(samples, speech, atol=1e-4)
        assert alone.rate == 16_000


def test_a_recording_is_a_function_of_its_request(made: SimpleNamespace) -> None:
    first, same, seed, voice = made.task.generation.generate(
        made.model,
        [
            {"text": "low mid", "seed": 1, "speaker": "ada"},
            {"text": "low mid", "seed": 1, "speaker": "ada"},
            {"text": "low mid", "seed": 2, "speaker": "ada"},
            {"text": "low mid", "seed": 1, "speaker": "bob"},
        ],
    )
    assert np.array_equal(first.samples, same.samples)
    assert not np.allclose(first.samples, seed.samples, atol=1e-3)
    assert not np.allclose(first.samples, voice.samples, atol=1e-3)


def test_a_vocoder_of_this_machine_goes_with_the_model(made: SimpleNamespace) -> None:
    """A published model cannot name a folder of the machine that it was trained on."""
    assert (made.folder / "saved" / "vocoder" / "model.safetensors").is_file()
    task = TextToSpeech(made.recipe.options.model_copy(update={"vocoder": "gone"}))
    model = task.load(made.folder / "saved")
    *_, found = task.infer(model, "low", "ada", 0)
    *_, own = made.task.infer(made.model, "low", "ada", 0)
    assert close(found, own)


def test_a_vocoder_must_read_the_models_spectrograms(made: SimpleNamespace, tmp_path: Path) -> None:
    other = tiny_speech.hifi_gan(tmp_path / "hifi_gan", sampling_rate=22_050)
    task = TextToSpeech(made.recipe.options.model_copy(update={"vocoder": str(other)}))
    with pytest.raises(ModelError, match="sampling_rate=22050, and the model makes them with sampling_rate=16000"):
        build(made.recipe, task, resolve(made.recipe.model), made.splits)
    huge = Path(tmp_path / "hifi_gan" / "config.json")
    huge.write_text(json.dumps({**json.loads(huge.read_text()), "upsample_initial_channel": 2**40}))
    with pytest.raises(ModelError, match="upsample_initial_channel must hold"):
        build(made.recipe, task, resolve(made.recipe.model), made.splits)


def test_a_long_text_is_spoken_in_pieces(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.data.text import spoken_pieces

    monkeypatch.setattr(spoken_pieces.pieces, "__defaults__", (10,))
    text = "low mid. high low. mid"
    found = list(made.task.infer(made.model, text, "ada", 5))
    assert [len(a.samples) < len(b.samples) for a, b in itertools.pairwise(found)] == [True, True]
    (together,) = made.task.generation.generate(made.model, [{"text": text, "speaker": "ada", "seed": 5}])
    assert close(together, found[-1])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"text": "  "}, "no text"),
        ({"text": 3}, "no text"),
        ({"text": "low", "speaker": "zoe"}, "this model knows ada, bob"),
        ({"text": "low", "speed": 2.0}, "no such setting"),
        ({"text": "low " * 2000}, "too much at once"),
        ({"text": "low", "seed": "x"}, "no seed"),
        ({"text": "\u4f60\u597d"}, "none of these characters|speak"),
    ],
)
def test_a_request_that_cannot_be_spoken(made: SimpleNamespace, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(made.task.infer(made.model, **request_))


def test_samples_are_spread_over_voices_and_texts(made: SimpleNamespace) -> None:
    found = made.task.generation.requests(made.splits.test, 6)
    assert [one["speaker"] for one in found] == ["ada", "bob"] * 3
    assert [one["seed"] for one in found] == list(range(6))
    for one in found:
        row = made.splits.test[one["row"]]
        assert (row["text"], row["speaker"]) == (one["text"], one["speaker"])
    assert len({one["row"] for one in found}) == 6
    # a text that the model cannot say is no sample, and harms no other
    texts = [*made.splits.test["text"]]
    rows = made.splits.test.remove_columns("text").add_column("text", ["mid " * 5000, *texts[1:]])
    assert 0 not in {one["row"] for one in made.task.generation.requests(rows, len(rows))}
    with pytest.raises(DataError, match="no text of the split can be said"):
        made.task.generation.requests(rows.select([0]), 2)


# ---- voices ----


def test_x_vectors_are_the_mean_of_a_speakers_rows(made: SimpleNamespace, tmp_path: Path) -> None:
    options = made.recipe.options.model_copy(update={"speaker_embeddings": str(tiny_speech.x_vectors(tmp_path / "x"))})
    task = TextToSpeech(options)
    model: Any = build(made.recipe, task, resolve(made.recipe.model), made.splits)
    assert model.voices.weight.shape == (2, 12)
    assert "voices.weight" not in dict(model.named_parameters()), "they do not train"
    assert not torch.allclose(model.voices.weight[0], model.voices.weight[1])
    task.save(model, tmp_path / "saved")
    assert torch.equal(
        load_file(tmp_path / "saved" / "speaker_embeddings.safetensors")["embeddings"], model.voices.weight
    )
    wrong = made.recipe.options.model_copy(update={"speaker_embeddings": str(tiny_speech.x_vectors(tmp_path / "y", 8))})
    with pytest.raises(ModelError, match="vectors have 8 numbers"):
        build(made.recipe, TextToSpeech(wrong), resolve(made.recipe.model), made.splits)


def test_a_speaker_keeps_the_voice_that_a_model_has(made: SimpleNamespace) -> None:
    source = resolve(made.recipe.model.model_copy(update={"id": str(made.folder / "saved")}))
    task = TextToSpeech(made.recipe.options)
    again: Any = build(made.recipe, task, source, made.splits)
    assert torch.equal(again.voices.weight, made.model.voices.weight)


def test_random_weights_learn_the_characters_of_their_texts(made: SimpleNamespace) -> None:
    config = {"model_type": "speecht5", **tiny_speech.SHAPE}
    recipe = validate({**tiny_recipe(made.folder), "model": {"config": config}})
    task = TextToSpeech(recipe.options)
    model: Any = build(recipe, task, resolve(recipe.model), made.splits)
    letters = set("".join(made.splits.train["text"])) - {" "}
    assert model.config.vocab_size == len(letters) + 5
    tokens = task.family.tokens("low mid")
    assert 3 not in tokens, "no character is unknown"
    assert task.family.tokens("LOW m\u00edd") == tokens, "capitals and accents that it does not know"


def test_voices_train_next_to_an_adapter_and_are_saved(made: SimpleNamespace, tmp_path: Path) -> None:
    raw = tiny_recipe(made.folder)
    recipe = validate({**raw, "model": {**raw["model"], "adapter": {"kind": "lora", "rank": 2}}})
    task = TextToSpeech(recipe.options)
    model: Any = build(recipe, task, resolve(recipe.model), made.splits)
    trains = {name: value for name, value in model.named_parameters() if value.requires_grad}
    (voices,) = (value for name, value in trains.items() if "voices" in name)
    assert any("lora_A" in name for name in trains)
    batch = made.examples[[(0, number) for number in range(4)]].batch
    task.loss(model, batch, task.counts(batch), "main", 0).backward()
    assert float(voices.grad.abs().sum()) > 0
    voices.data += 1.0
    wanted = voices.detach().clone()
    task.save(model.merge_and_unload(), tmp_path / "saved")
    assert torch.equal(load_file(tmp_path / "saved" / "speaker_embeddings.safetensors")["embeddings"], wanted)
    assert len(TextToSpeech(recipe.options).load(tmp_path / "saved").voices.weight) == 2  # type: ignore[arg-type]
    alone = recipe.model_copy(update={"hub": recipe.hub.model_copy(update={"adapter": True})})
    with pytest.raises(ModelError, match=r"hub\.adapter: an adapter alone is no model of text-to-speech"):
        build(alone, TextToSpeech(recipe.options), resolve(recipe.model), made.splits)


def test_the_loss_without_dropout_of_the_prenet_is_that_of_transformers(made: SimpleNamespace, tmp_path: Path) -> None:
    """transformers then keeps no unit of it; published models have 0.5."""
    raw = tiny_recipe(tmp_path)
    tiny_speech.speecht5(tmp_path / "speecht5", speech_decoder_prenet_dropout=0.0)
    recipe = validate(raw)
    task = TextToSpeech(recipe.options)
    own = build(recipe, task, resolve(recipe.model), made.splits).eval()
    task.save(own, tmp_path / "saved")
    model, _, voices, _ = plain(tmp_path / "saved")
    batch = Examples(task, task.encode(made.splits.train))[[(None, 1)]].batch
    with torch.no_grad():
        found = model(
            input_ids=batch["ids"],
            attention_mask=batch["mask"],
            labels=batch["mels"],
            speaker_embeddings=voices[batch["speakers"]],
        )
        loss = task.loss(own, batch, task.counts(batch), "main", 0)
    assert float(loss) == pytest.approx(float(found.loss), rel=1e-6)


# ---- files of strangers ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reduction_factor": 0}, "reduction_factor is 0"),
        ({"num_mel_bins": 10**9}, "num_mel_bins is 1000000000"),
        ({"speech_decoder_prenet_dropout": 1.0}, "speech_decoder_prenet_dropout"),
        ({"guided_attention_loss_sigma": 0.0}, "guided_attention_loss_sigma"),
        ({"speakers": ["ada", "ada"]}, "twice"),
        ({"speakers": "ada"}, "list of names"),
        ({"speakers": ["ada"]}, "2 vectors"),
        ({"speech_decoder_postnet_kernel": 4}, "must be odd"),
    ],
)
def test_a_configuration_that_cannot_be(made: SimpleNamespace, tmp_path: Path, changes: Any, message: str) -> None:
    import shutil

    folder = Path(shutil.copytree(made.folder / "saved", tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ModelError, match=message):
        load(folder, device="cpu", task="text-to-speech")


@pytest.mark.parametrize("name", ["speaker_embeddings.safetensors", "spm_char.model", "model.safetensors"])
def test_a_damaged_file(made: SimpleNamespace, tmp_path: Path, name: str) -> None:
    import shutil

    folder = Path(shutil.copytree(made.folder / "saved", tmp_path / "model"))
    (folder / name).write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError):
        load(folder, device="cpu", task="text-to-speech")


# ---- rows ----


def test_rows_that_cannot_be_learned_are_counted(made: SimpleNamespace, tmp_path: Path) -> None:
    folder = tiny_speech.speech(tmp_path / "speech")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rows[0]["text"] = "low " * 14  # in one second
    rows[1]["speaker"] = None
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    other = json.loads((folder / "validation.jsonl").read_text().splitlines()[0])
    (folder / "validation.jsonl").write_text(json.dumps({**other, "speaker": "zoe"}) + "\n")
    recipe = made.recipe.model_copy(update={"data": made.recipe.data.model_copy(update={"id": str(folder)})})
    task = TextToSpeech(recipe.options)
    splits = load_splits(recipe.data, task.data)
    build(recipe, task, resolve(recipe.model), splits)
    unusable = task.encode(splits.train).unusable
    assert sorted(unusable) == [0, 1]
    assert "no speaker is named" in unusable[1]
    assert "knows ada, bob" in task.encode(splits.validation).unusable[0]


def test_silence_is_cut_and_loudness_levelled(made: SimpleNamespace, tmp_path: Path) -> None:
    """A quiet recording between silences gives the spectrogram of a loud one alone."""
    samples = tiny_audio.spoken("low mid", 0)
    still = (1e-6 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    for name in ("train", "validation", "test"):
        tiny_audio.write(tmp_path / f"{name}_a.wav", 0.1 * np.concatenate([still, samples, still]))
        tiny_audio.write(tmp_path / f"{name}_b.wav", samples)
        rows = [{"audio": f"{name}_{one}.wav", "text": "low mid", "speaker": "ada"} for one in "ab"]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    data = made.recipe.data.model_copy(update={"id": str(tmp_path)})
    quiet, loud = (made.task.encode(load_splits(data, made.task.data).train)[number]["mel"] for number in (0, 1))
    whole = made.task.encode(load_splits(data, made.task.data).train).most[0]
    assert abs(len(quiet) - len(loud)) <= 8 < 40 < whole - len(loud)
    assert float(quiet.max()) == pytest.approx(float(loud.max()), abs=0.1)
