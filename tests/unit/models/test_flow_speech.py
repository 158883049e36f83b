"""The small text-to-speech model: its alignment, its padding, its noise, its speakers, and its folders."""

import functools
import itertools
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.audio.mel import griffin_lim
from pipelines.errors import DataError, ModelError
from pipelines.models import flow_speech, speech_synthesis
from pipelines.models.classic_kinds import code
from pipelines.models.flow_network import MOST_FRAMES, SPREAD, FlowSpeechForTextToSpeech, align, repeated
from pipelines.models.source import Weights, library

SMALL = {
    "hidden_size": 16,
    "encoder_layers": 2,
    "duration_layers": 1,
    "decoder_size": 16,
    "decoder_layers": 3,
    "dropout": 0.0,
    "mel": {"num_mel_bins": 8},
}
TEXTS = ["one", "two", "three"]


def made(
    speakers: tuple[str, ...] = ("ann", "bob"), **config: Any
) -> tuple[FlowSpeechForTextToSpeech, flow_speech.Family]:
    torch.manual_seed(0)
    source = Weights(None, {"model_type": "flow_speech", **SMALL, **config}, True)
    model, family = flow_speech.build(source, TEXTS, ["ann", "bob"], None)
    for parameter in model.parameters():  # some start at zero, which would hide a speaker that is mixed up
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval(), family


def examples(family: Any, lengths: tuple[int, ...] = (9, 14, 22)) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": str(n),
            "row": n,
            "tokens": family.tokens(TEXTS[n % 3]),
            "mel": rng.normal(-5, 2, (frames, 8)).astype(np.float32),
            "speaker": n % 2,
        }
        for n, frames in enumerate(lengths)
    ]


def batch(family: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch with the random inputs that the framework draws for each row."""
    drawn = [family.random_inputs(Random(int(row["id"]))) for row in rows]
    return {**family.collate(rows), **{key: [one[key] for one in drawn] for key in drawn[0]}}


# ---- alignment ----


def best_of_all(scores: np.ndarray) -> float:
    """The largest sum of scores [tokens, frames] of any way to cut the frames into one part for each token."""
    tokens, frames = scores.shape
    return max(
        sum(scores[token, start:end].sum() for token, (start, end) in enumerate(itertools.pairwise((0, *cuts, frames))))
        for cuts in itertools.combinations(range(1, frames), tokens - 1)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4), st.integers(0, 2**31))
def test_the_alignment_is_the_best_of_all(sizes: list[tuple[int, int]], seed: int) -> None:
    """Each row of a batch has its own numbers of tokens and frames; what is in the padding does not matter."""
    rng = np.random.default_rng(seed)
    tokens = [size for size, _ in sizes]
    frames = [size + more for size, more in sizes]
    scores = rng.integers(-9, 10, (len(sizes), max(tokens), max(frames))).astype(np.float32)
    durations = align(torch.from_numpy(scores), torch.tensor(tokens), torch.tensor(frames)).numpy()
    for row, (own, length) in enumerate(zip(tokens, frames, strict=True)):
        found = durations[row, :own]
        assert (found >= 1).all()
        assert found.sum() == length
        assert not durations[row, own:].any()
        ends = [0, *found.cumsum()]
        total = sum(scores[row, token, ends[token] : ends[token + 1]].sum() for token in range(own))
        assert total == best_of_all(scores[row, :own, :length])


def test_a_row_with_too_few_frames_harms_no_other() -> None:
    """The task leaves such rows out. Their loss is finite all the same."""
    model, family = made()
    rows = examples(family, (4, 14))
    (crowded, row), (alone,) = (family.scores(model, batch(family, some)) for some in (rows, rows[1:]))
    assert all(np.isfinite(part) for part, _ in crowded.values())
    assert row["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_tokens_are_repeated_for_their_durations() -> None:
    x = torch.arange(3.0)[None, :, None]
    assert repeated(x, torch.tensor([[2, 0, 3]]), 7).flatten().tolist() == [0, 0, 2, 2, 2, 2, 2]


# ---- losses ----


def test_padding_changes_no_loss_and_no_gradient_beside_it() -> None:
    model, family = made()
    rows = examples(family)
    alone = [family.scores(model, batch(family, [row]))[0] for row in rows]
    together = family.scores(model, batch(family, rows))
    for one, other in zip(alone, together, strict=True):
        assert list(one) == list(family.parts)
        for name, (total, count) in one.items():
            assert other[name][0] == pytest.approx(total, rel=1e-5)
            assert other[name][1] == count > 0
    padded = batch(family, rows)
    values = {}
    for junk in (0.0, 1e3):
        padded["mels"][0, 9:] = junk
        model.zero_grad()
        family.loss(model, padded, family.counts(padded)).backward()
        values[junk] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(values[0.0], values[1e3])


def test_the_loss_is_the_same_for_any_micro_batch() -> None:
    model, family = made()
    rows = examples(family, (9, 14, 22, 11, 17))
    whole = batch(family, rows)
    counts = family.counts(whole)
    full = family.loss(model, whole, counts)
    parts = [batch(family, rows[:1]), batch(family, rows[1:4]), batch(family, rows[4:])]
    assert sum(one["tokens"] for one in map(family.counts, parts)) == counts["tokens"]
    assert sum(one["values"] for one in map(family.counts, parts)) == counts["values"] == 73 * 8
    total = sum(family.loss(model, one, counts) for one in parts)
    torch.testing.assert_close(total, full, rtol=1e-5, atol=1e-6)


def test_the_loss_has_the_value_of_its_definition() -> None:
    """A network that predicts zeros: the loss is that of durations of one frame, mean frames of zeros, and the best
    guess of a velocity for recordings that are Gaussian noise of a known size.
    """
    model, family = made(mel_mean=0.0, mel_deviation=1.0)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    (row,) = examples(family, (9,))
    given = batch(family, [row])
    (found,) = family.scores(model, given)
    target = torch.from_numpy(row["mel"])
    noise = torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(given["noise_seed"][0]))
    assert found["prior"] == (pytest.approx(float(0.5 * target.square().sum()), rel=1e-5), 72)
    at = ((given["time"][0] + torch.arange(4)) / 4)[:, None, None]
    x = (1 - (1 - 1e-4) * at) * noise + at * target
    guess = (at * SPREAD**2 - (1 - at)) / ((1 - at) ** 2 + (at * SPREAD) ** 2) * x
    errors = (guess - (target - (1 - 1e-4) * noise)).square().sum((1, 2))
    assert found["flow"][0] == pytest.approx(float(errors.mean()), rel=1e-5)
    # all scores are equal, and 9 frames are shared by 7 tokens: the logarithms of the durations are not all zero
    assert found["duration"][1] == 7
    assert found["duration"][0] == pytest.approx(float(3 - 1 - np.log(3)), rel=1e-5)
    mean = sum(found[name][0] / found[name][1] for name in ("duration", "prior", "flow"))
    assert found["loss"][0] / found["loss"][1] == pytest.approx(mean)


def test_it_learns_where_tokens_are_and_how_they_sound() -> None:
    """Each character of two words has its own band and its own duration."""
    torch.manual_seed(0)
    config = {**SMALL, "hidden_size": 32, "decoder_size": 32, "mel_mean": 0.0, "mel_deviation": 1.0}
    model, family = flow_speech.build(Weights(None, config, True), ["ab", "ba"], [], None)
    bands = {"a": (0, 5), "b": (4, 9)}

    def sound(word: str) -> np.ndarray:
        parts = []
        for letter in f" {word} ":
            band, length = bands.get(letter, (7, 3))
            part = np.full((length, 8), -1.0, np.float32)
            part[:, band] = 2.0
            parts.append(part)
        return np.concatenate(parts)

    rows = [
        {"id": str(n), "row": n, "tokens": family.tokens(word), "mel": sound(word), "speaker": 0}
        for n, word in enumerate(["ab", "ba"])
    ]
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(300):
        given = family.collate(rows)
        drawn = [family.random_inputs(Random(f"{step} {n}")) for n in range(2)]
        given |= {key: [one[key] for one in drawn] for key in drawn[0]}
        optimizer.zero_grad()
        family.loss(model, given, family.counts(given)).backward()
        optimizer.step()
    model.eval()
    for row, word in zip(rows, ("ab", "ba"), strict=True):
        (mel,) = family.speak(model, [{"tokens": row["tokens"], "speaker": 0, "seed": 1}])
        assert abs(len(mel) - len(row["mel"])) <= 2, word
        heard = [band for band, _ in itertools.groupby(mel.argmax(1).tolist())]
        wanted = [band for band, _ in itertools.groupby(row["mel"].argmax(1).tolist())]
        assert heard == wanted, word


# ---- speaking ----


def test_a_sound_is_the_same_whatever_is_beside_it() -> None:
    model, family = made()
    requests = [
        {"tokens": family.tokens(text), "speaker": n % 2, "seed": n, "steps": 3} for n, text in enumerate(TEXTS)
    ]
    together = family.speak(model, requests)
    for request, mel in zip(requests, together, strict=True):
        assert mel.dtype == np.float32
        assert mel.shape[1] == 8
        np.testing.assert_array_equal(family.speak(model, [request])[0], mel)


def test_every_setting_does_something() -> None:
    model, family = made()
    model.duration.bias.data.fill_(1.5)  # some frames for each token
    plain = {"tokens": family.tokens("three"), "speaker": 0, "seed": 1, **family.defaults}
    assert set(family.defaults) == set(family.settings)
    usual = family.speak(model, [plain])[0]
    for name, value in {"seed": 2, "temperature": 0.2, "steps": 4, "speed": 2.0, "speaker": 1}.items():
        other = family.speak(model, [{**plain, name: value}])[0]
        assert other.shape != usual.shape or not np.allclose(other, usual), name
    fast = family.speak(model, [{**plain, "speed": 2.0}])[0]
    assert len(fast) == pytest.approx(len(usual) / 2, abs=1)


@pytest.mark.parametrize("bias", [-100.0, 100.0, float("nan")])
def test_absurd_durations_end(bias: float) -> None:
    model, family = made()
    model.duration.bias.data.fill_(bias)
    (mel,) = family.speak(model, [{"tokens": family.tokens("one"), "speaker": 0, "seed": 1, "steps": 1}])
    assert 2 <= len(mel) <= 7 * MOST_FRAMES


# ---- texts ----


def test_texts_become_characters_with_gaps() -> None:
    _, family = made()
    ids = family.tokens("Two!")
    assert ids[::2] == [0] * 4
    assert [family.config["symbols"][id_ - 1] for id_ in ids[1::2]] == ["t", "w", "o"]
    assert family.tokens(" two\n") == ids


@pytest.mark.parametrize(
    ("text", "says"), [("quick", "c i k q"), ("...", "spoken"), ("", "spoken"), ("one " * 400, "sentences")]
)
def test_what_cannot_be_spoken_is_refused(text: str, says: str) -> None:
    _, family = made()
    with pytest.raises(DataError, match=says):
        flow_speech.Family({**family.config, "symbols": " ehnortw"}).tokens(text)


# ---- folders ----


def test_a_saved_model_makes_the_same_sound(tmp_path: Path) -> None:
    model, family = made()
    family.save(model, tmp_path)
    again, loaded = speech_synthesis.load(tmp_path, None)
    request = {"tokens": family.tokens("two"), "speaker": 1, "seed": 3}
    assert loaded.speakers == ["ann", "bob"]
    assert loaded.mel == family.mel
    np.testing.assert_array_equal(loaded.speak(again, [request])[0], family.speak(model, [request])[0])
    alone = FlowSpeechForTextToSpeech.from_pretrained(tmp_path)
    np.testing.assert_array_equal(alone.speak(request["tokens"], 1, 3).numpy(), family.speak(model, [request])[0])


def test_the_code_of_a_card_stands_alone(tmp_path: Path) -> None:
    """The code of the network and of Griffin-Lim, with nothing of Graft, makes the sound that Graft makes."""
    model, family = made()
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert library(config) == family.library
    quoted = code(config)
    assert quoted is not None
    assert "pipelines" not in quoted
    names: dict[str, Any] = {"MelSettings": object, "functools": functools, "np": np, "__name__": "card"}
    exec(quoted, names)
    network = names["FlowSpeechForTextToSpeech"].from_pretrained(tmp_path)
    tokens = family.tokens("two")
    mel = network.speak(tokens, 1, 3).numpy()
    np.testing.assert_array_equal(mel, family.speak(model, [{"tokens": tokens, "speaker": 1, "seed": 3}])[0])
    own = griffin_lim(mel, family.mel, seed=3)
    np.testing.assert_array_equal(names["griffin_lim"](mel, family.mel, seed=3), own)


def test_training_goes_on_with_other_speakers_and_characters(tmp_path: Path) -> None:
    model, family = made()
    family.save(model, tmp_path)
    again, other = flow_speech.build(Weights(tmp_path), ["one", "six"], ["bob", "cleo"], None)
    assert other.speakers == ["bob", "cleo"]
    assert other.config["symbols"] == family.config["symbols"] + "isx"
    torch.testing.assert_close(again.voices.weight[0], model.voices.weight[1])
    torch.testing.assert_close(again.voices.weight[1], model.voices.weight.mean(0))
    known = len(family.config["symbols"]) + 1
    torch.testing.assert_close(again.embedding.weight[:known], model.embedding.weight)
    torch.testing.assert_close(again.decoder.out.weight, model.decoder.out.weight)


def test_every_weight_is_in_one_layer() -> None:
    model, family = made()
    found = [id(parameter) for layer in family.layers(model) for parameter in layer.parameters()]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"decoder_layers": 48, "decoder_size": 1024, "hidden_size": 1024, "encoder_layers": 24}, "allowed"),
        ({"encoder_layers": 0}, "encoder_layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"mel_deviation": 0}, "mel_deviation"),
        ({"mel_deviation": float("nan")}, "mel_deviation"),
        ({"symbols": "aab"}, "twice"),
        ({"symbols": ["a"]}, "symbols"),
        ({"symbols": ""}, "symbols"),
        ({"symbols": "a" * 20_000}, "symbols"),
        ({"symbols": "a\ud800"}, "symbols"),
        ({"speakers": {"ann": 0}}, "speakers"),
        ({"speakers": ["ann", "ann"]}, "once"),
        ({"speakers": ["ann", 3]}, "speakers"),
        ({"speakers": ["ann"]}, "weights"),
        ({"mel": {"num_mel_bins": 10**6}}, "num_mel_bins"),
        ({"mel": {"hop_length": "64"}}, "hop_length"),
        ({"mel": None}, "spectrograms"),
        ({"mel": {"num_mel_bins": 16}}, "weights"),
        ({"decoder_layer": 4}, "decoder_layers"),
    ],
)
def test_a_strangers_configuration_is_checked(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    model, family = made()
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=says):
        speech_synthesis.load(tmp_path, None)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model, family = made()
    model.mean.bias.data[0] = float("inf")
    family.save(model, tmp_path)
    with pytest.raises(ModelError, match=r"mean\.bias"):
        speech_synthesis.load(tmp_path, None)


@pytest.mark.parametrize(
    ("config", "says"),
    [({"hidden": 16}, "hidden_size"), ({"symbols": "abc"}, "from the data"), ({"speakers": ["ann"]}, "from the data")],
)
def test_a_recipes_configuration_is_checked(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        flow_speech.build(Weights(None, {**SMALL, **config}, True), TEXTS, [], None)
