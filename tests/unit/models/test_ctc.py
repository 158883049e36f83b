"""CTC with wav2vec2 and similar models: padding and masks change no other row, windows join, words have times."""

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.data.audio import spec_augment
from pipelines.errors import ModelError
from pipelines.models import ctc, ctc_vocabulary
from pipelines.tasks.speech_recognition_ctc import SpeechRecognitionCTC
from tests.support import tiny_audio
from tests.tasks.test_speech_recognition_ctc import QUICK, made, several, talkative


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.transcribed(tmp_path_factory.mktemp("speech"), 16)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.wav2vec2(tmp_path_factory.mktemp("plain"), **QUICK)


# ---- padding ----

FAMILIES = {
    "wav2vec2": "Wav2Vec2ForCTC",
    "hubert": "HubertForCTC",
    "wavlm": "WavLMForCTC",
    "data2vec-audio": "Data2VecAudioForCTC",
}


def family(folder: Path, kind: str, norm: str) -> Path:
    import transformers

    shape = (
        tiny_audio.SHAPE
        | QUICK
        | {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "vocab_size": 11}
    )
    extra = {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3} if kind == "data2vec-audio" else {}
    config = transformers.AutoConfig.for_model(kind, **(shape | extra))
    torch.manual_seed(0)
    getattr(transformers, FAMILIES[kind])(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    ctc_vocabulary.made(["lowmidhg"]).save_pretrained(folder)
    return folder


# WavLM's own attention does this
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@pytest.mark.parametrize(
    ("kind", "norm"), [(k, n) for k in FAMILIES for n in ("layer", "group") if (k, n) != ("data2vec-audio", "group")]
)
def test_a_family_hears_what_the_library_hears_whatever_it_is_padded_with(
    kind: str, norm: str, speech: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCTC

    task, model, splits = made(speech, family(tmp_path / "model", kind, norm), mask_time_prob=0.0)
    examples = several(task, splits.train)
    batch = task.collate(examples)
    library = AutoModelForCTC.from_pretrained(tmp_path / "model").eval()
    together = ctc.logits(model, batch)
    counts = task.counts(batch)
    off = 0.0
    for place, (example, size) in enumerate(zip(examples, task._sizes(batch), strict=True)):
        alone = task.collate([example])
        theirs = library(alone["input_values"]).logits[0]
        assert theirs.shape[0] == size
        assert torch.allclose(ctc.logits(model, alone)[0], theirs, atol=1e-5)
        off = max(off, float((together[place, :size] - theirs).abs().max().detach()))
    parts = [task.collate(examples[i : i + 2]) for i in range(0, 6, 2)]
    loss = float(task.loss(model, batch, counts, "main", 0).detach())
    summed = sum(float(task.loss(model, part, counts, "main", 0).detach()) for part in parts)
    if kind != "data2vec-audio":  # the convolutions of its positions read padding: this is the stated exception
        assert off < 1e-4
        assert summed == pytest.approx(loss, rel=1e-5)
    task.save(model, tmp_path / "saved")
    again = SpeechRecognitionCTC()
    assert torch.equal(ctc.logits(again.load(tmp_path / "saved"), batch), together)
    assert json.loads((tmp_path / "saved" / "config.json").read_text()).get("apply_spec_augment", True)


def test_the_loss_is_the_librarys(speech: Path, plain: Path) -> None:
    task, model, splits = made(speech, plain)
    examples = several(task, splits.train)
    for example in examples:
        batch = task.collate([example])
        model.config.ctc_loss_reduction = "sum"
        labels = torch.tensor([example["target"]])
        theirs = model(batch["input_values"], labels=labels).loss
        ours = task.loss(model, batch, {"characters": 1.0}, "main", 0)
        assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


# ---- SpecAugment ----


def test_masks_come_from_the_generator_alone(speech: Path, plain: Path) -> None:
    options = {"mask_time_prob": 0.3, "mask_time_length": 3, "mask_feature_prob": 0.2, "mask_feature_length": 4}
    task, model, splits = made(speech, plain, **options)
    examples = several(task, splits.train, 4)
    assert task.augmentation.enabled
    masked = [task.augment(e, Random(7), 0.0) for e in examples]
    again = [task.augment(e, Random(7), 0.0) for e in examples]
    assert all(
        np.array_equal(a[k], b[k]) for a, b in zip(masked, again, strict=True) for k in ("time_mask", "feature_mask")
    )
    assert not np.array_equal(masked[3]["time_mask"], task.augment(examples[3], Random(8), 0.0)["time_mask"])
    model.train()
    batch, bare = task.collate(masked), task.collate(examples)
    one, two, none = (ctc.logits(model, b).detach() for b in (batch, batch, bare))
    assert torch.equal(one, two), "something random is left inside"
    assert not torch.allclose(one, none)
    alone = ctc.logits(model, task.collate(masked[:1])).detach()
    assert torch.allclose(one[:1, : alone.shape[1]], alone, atol=1e-5), "masks depend on the batch"
    base = model.wav2vec2
    seen: list[torch.Tensor] = []
    hook = base.encoder.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        base.masked_spec_embed.fill_(5.0)
        base.encoder.pos_conv_embed.conv.bias.zero_()
        ctc.logits(model, batch)
    hook.remove()
    changed = torch.tensor(masked[3]["time_mask"])
    kept = ~torch.tensor(masked[3]["feature_mask"])
    assert changed.any()
    assert seen[0][3, : len(changed)][changed][:, kept].mean() > 4 > seen[0][3, : len(changed)][~changed].mean()


def test_spans_cover_what_they_should() -> None:
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    rng = Random(0)
    for size, share, length, fewest in ((200, 0.3, 10, 2), (50, 0.65, 10, 0), (30, 0.05, 10, 2), (9, 0.5, 10, 2)):
        ours = np.mean([spec_augment.spans(size, share, length, fewest, rng).mean() for _ in range(400)])
        if size < length:
            assert ours == 0
            continue
        theirs = np.mean(
            [_compute_mask_indices((2, size), share, length, min_masks=fewest).mean() for _ in range(400)]
        )  # rounds per batch
        assert ours == pytest.approx(theirs, abs=0.02)


def test_masks_that_are_always_there_are_told(speech: Path, plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, _, splits = made(speech, plain, mask_time_prob=0.05, mask_time_min_masks=0)
    task.encode(splits.train)
    assert "SpecAugment" not in caplog.text
    task, _, splits = made(speech, plain, mask_time_prob=0.05)
    task.encode(splits.train)
    assert "SpecAugment hides at least 20 outputs of every utterance" in caplog.text


def test_an_option_that_would_do_nothing_is_an_error(speech: Path, plain: Path) -> None:
    for options in (
        {"mask_time_length": 3},
        {"mask_time_min_masks": 0},
        {"mask_feature_length": 4, "mask_time_prob": 0.5},
    ):
        with pytest.raises(
            ModelError, match=r"options\.mask_(time|feature)_\w+: nothing is masked, as mask_(time|feature)_prob is 0"
        ):
            made(speech, plain, **options)
    assert made(speech, plain, mask_time_prob=0.1, mask_time_length=3)[1].config.mask_time_length == 3


def test_layerdrop_needs_one_process(speech: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(speech, plain, layerdrop=0.1)[1].config.layerdrop == 0.1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ModelError, match=r"options\.layerdrop: several processes"):
        made(speech, plain, layerdrop=0.1)


# ---- decoding ----


@pytest.mark.parametrize("total", [1, 401, 16000, 16000 * 7 + 13, 16000 * 30, 16000 * 31])
def test_windows_join_without_a_gap(total: int) -> None:
    config = SimpleNamespace(conv_kernel=(10, 3, 3, 3, 3, 2, 2), conv_stride=(5, 2, 2, 2, 2, 2, 2), add_adapter=False)
    samples = np.arange(total)
    joined: list[int] = []
    for piece, counting in ctc.windows(samples, config, 16000 * 4, 16000):
        starts = [int(piece[0]) + 320 * i for i in range(ctc.frames(config, len(piece)))]
        joined += starts[counting]
    assert joined == [320 * i for i in range(ctc.frames(config, total))]


def test_a_long_recording_is_heard_as_a_whole(speech: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipelines.tasks.speech_recognition_ctc as module

    task, model, _ = made(speech, plain)
    talkative(model)
    model.lm_head.bias.data[2] += 4  # many short words
    audio = (16000, tiny_audio.spoken("low mid high " * 8))
    at_once = list(task.infer(model, audio))
    assert len(at_once) == 1
    monkeypatch.setattr(module, "WINDOW", 2.0)
    monkeypatch.setattr(module, "MARGIN", 0.5)
    parts = list(task.infer(model, audio))
    assert len(parts) >= 4
    assert [len(p["words"]) for p in parts] == sorted(len(p["words"]) for p in parts)
    assert parts[-1]["seconds"] == at_once[0]["seconds"]
    one, other = ({(w["word"], w["start"], w["end"]) for w in answer["words"]} for answer in (at_once[0], parts[-1]))
    assert len(one) > 40
    assert len(one & other) > 0.9 * len(one | other), "a word is lost, doubled or moved where windows join"


def test_words_have_times_and_a_confidence() -> None:
    tokenizer = ctc_vocabulary.made(["ab"])
    decoded = ctc.Heard(
        np.array([0, 3, 3, 0, 3, 2, 2, 0, 4, 1, 0]), np.array([0.9, 0.4, 0.5, 1, 0.5, 1, 1, 1, 0.8, 1, 1])
    )
    assert ctc.words(decoded, tokenizer, 0.02) == [
        {"word": "aa", "start": 0.02, "end": 0.1, "confidence": pytest.approx(0.5)},
        {"word": "b", "start": 0.16, "end": 0.18, "confidence": pytest.approx(0.8)},
    ]
    nothing = ctc.Heard(np.zeros(4, int), np.full(4, 0.75))
    assert ctc.words(nothing, tokenizer, 0.02) == []
    assert ctc.confidence(nothing, []) == 0.75
