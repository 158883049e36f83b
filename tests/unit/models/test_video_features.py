"""Networks that read features of videos: their answers, their configurations, and their folders."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from torch import nn

from pipelines.errors import ModelError
from pipelines.losses import classification as losses
from pipelines.models import layers as model_layers
from pipelines.models import video_features
from pipelines.models.adapters import add_adapter
from pipelines.models.source import Weights

LABELS = [f"class {k}" for k in range(7)]
SIZES = {"rgb": 6, "audio": 3}
SMALL: dict[str, dict[str, Any]] = {
    "logistic": {},
    "moe": {"mixtures": 3},
    "lstm": {"hidden": 8},
    "gru": {"hidden": 8, "layers": 1, "mixtures": 0},
    "transformer": {"hidden": 12, "heads": 3},
}
every = pytest.mark.parametrize("kind", list(SMALL))


def built(kind: str, labels: list[str] = LABELS, multi_label: bool = True, **more: Any) -> Any:
    torch.manual_seed(0)
    config = {"model_type": "video_features", "architecture": kind, **SMALL[kind], **more}
    return video_features.build(Weights(None, config, True), labels, multi_label, SIZES)


def batch(frames: list[int], padding: float = 0.0, width: int | None = None) -> dict[str, Any]:
    """The same videos whatever the padding is."""
    made = torch.full((len(frames), width or max(frames), 9), padding)
    for row, count in enumerate(frames):
        made[row, :count] = torch.randn(count, 9, generator=torch.Generator().manual_seed(row))
    return {"features": made, "frames": torch.tensor(frames)}


@every
def test_the_answer_does_not_depend_on_the_padding(kind: str) -> None:
    model, family = built(kind)
    model.eval()
    counts = [3, 9, 1, 5]
    alone = torch.cat(
        [family.logits(model, {k: v[row : row + 1] for k, v in batch(counts, 0.0).items()}) for row in range(4)]
    )
    for given in (batch(counts), batch(counts, 1e3, width=20)):
        assert (family.logits(model, given) - alone).abs().max() < 1e-6
    single = batch(counts)
    for row, count in enumerate(counts):
        one = {"features": single["features"][row : row + 1, :count], "frames": single["frames"][row : row + 1]}
        assert (family.logits(model, one)[0] - alone[row]).abs().max() < 1e-6


@every
def test_micro_batches_add_up(kind: str) -> None:
    model, family = built(kind)
    model.train()
    given = batch([4, 2, 6, 1])
    target = (torch.rand(4, 7, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    counts = losses.counts(target, None, True)

    def gradients(parts: list[slice]) -> torch.Tensor:
        model.zero_grad()
        for part in parts:
            logits = family.logits(model, {key: value[part] for key, value in given.items()})
            losses.loss(logits, target[part], counts, None, True, 0.0).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    together = gradients([slice(0, 4)])
    assert together.abs().max() > 0
    assert torch.allclose(gradients([slice(0, 1), slice(1, 4)]), together, atol=1e-6)


def test_the_mixture_is_that_of_youtube_8m() -> None:
    model, family = built("moe")
    given = batch([1, 1, 1])
    x = torch.nn.functional.normalize(given["features"][:, 0].double(), dim=-1)
    gates = (x @ model.head.gates.weight.double().T).view(-1, 4).softmax(-1)
    experts = nn.functional.linear(x, model.head.experts.weight.double(), model.head.experts.bias.double())
    expected = (gates[:, :3] * experts.view(-1, 3).sigmoid()).sum(-1).view(3, 7)
    assert torch.allclose(family.logits(model, given).sigmoid().double(), expected, atol=1e-6)


def test_probabilities_near_0_and_1_keep_finite_logits_and_gradients() -> None:
    head = video_features.Mixture(1, 2, 2)
    with torch.no_grad():
        head.gates.weight[:] = torch.tensor([[60.0], [0], [0], [0], [0], [200.0]])
        head.experts.weight[:] = torch.tensor([[300.0], [0], [-300.0], [0]])
        head.experts.bias.zero_()
    logits = head(torch.ones(1, 1))
    # the first: the dummy's gate is e^-60, and the second expert's e^-60 / 2; the second: a gate of e^-200
    assert logits.tolist() == [[pytest.approx(60 - np.log(1.5), rel=1e-6), pytest.approx(-200 - np.log(2), rel=1e-5)]]
    loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@every
def test_answers_in_bf16_are_finite_and_float32(kind: str) -> None:
    model, family = built(kind, normalize="none")
    with torch.autocast("cpu", torch.bfloat16):
        given = batch([3, 5])
        logits = family.logits(model, {**given, "features": given["features"] * 1e4})
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        # as in the scoring of a finished run, whose weights do not train any more
        model_layers.keep_in_half(model.eval(), (), "bf16")
        assert {p.dtype for p in model.head.parameters()} == {torch.float32}
        answer = family.logits(model, given)
    assert torch.allclose(answer, family.logits(model.float(), given), atol=0.05)


@every
def test_a_saved_network_answers_the_same(kind: str, tmp_path: Path) -> None:
    model, family = built(kind, multi_label=kind != "gru")
    model.eval()
    family.save(model, tmp_path)
    again, found = video_features.load(tmp_path)
    assert not again.training
    assert torch.equal(found.logits(again, batch([3, 5])), family.logits(model, batch([3, 5])))
    assert (found.labels, found.multi_label, found.sizes) == (LABELS, kind != "gru", SIZES)
    assert (found.reads, found.library, found.frames) == ("features", "pytorch", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@every
def test_fine_tuning_keeps_the_rows_of_classes_it_knows_by_name(kind: str, tmp_path: Path) -> None:
    model, family = built(kind)
    model.eval()
    family.save(model, tmp_path)
    before = family.logits(model, batch([3, 5]))
    other, found = video_features.build(Weights(tmp_path), ["class 4", "new", "class 0"], True, SIZES)
    other.eval()
    after = found.logits(other, batch([3, 5]))
    assert torch.allclose(after[:, [0, 2]], before[:, [4, 0]], atol=1e-6)
    assert "kept for 2 classes" in str(other.about_head)
    same, found = video_features.build(Weights(tmp_path), LABELS, True)
    assert torch.equal(found.logits(same.eval(), batch([3, 5])), before)
    fresh, found = video_features.build(Weights(tmp_path, random=True), LABELS, True)
    assert not torch.equal(found.logits(fresh.eval(), batch([3, 5])), before)


@every
def test_freezing_and_lora(kind: str) -> None:
    model, family = built(kind)
    layers = family.layers(model)
    assert layers[-1] is model.head
    assert {id(p) for layer in layers for p in layer.parameters()} == {id(p) for p in model.parameters()}
    model_layers.freeze(model, layers, "backbone")
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"head"}
    adapter = SimpleNamespace(rank=2, alpha=None, dropout=0.0, targets=None)
    model, family = built(kind)
    if kind != "transformer":
        with pytest.raises(ModelError, match="no layer that LoRA can wrap"):
            add_adapter(model, model.head, adapter)
        return
    before = family.logits(model.eval(), batch([3, 5]))
    adapted = add_adapter(model, model.head, adapter)
    assert torch.allclose(family.logits(adapted.eval(), batch([3, 5])), before, atol=1e-6)


@every
def test_it_learns_a_toy_rule(kind: str) -> None:
    """Class k: feature k is large in most frames."""
    model, family = built(kind, [str(k) for k in range(4)])
    rng = torch.Generator().manual_seed(0)
    true = torch.randint(0, 4, (64,), generator=rng)
    frames = torch.randint(1, 5, (64,), generator=rng)
    features = torch.randn(64, 4, 9, generator=rng) * 0.2
    features[torch.arange(64), :, true] += 1
    given, target = {"features": features, "frames": frames}, nn.functional.one_hot(true, 4).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(family.logits(model, given), target).backward()
        optimizer.step()
    assert (family.logits(model.eval(), given).argmax(1) == true).float().mean() > 0.95


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "logistc"}, ["'logistc'", "did you mean 'logistic'", "transformer"]),
        ({"architecture": None}, ["architecture: got None"]),
        ({"architecture": "moe", "mixture": 4}, ["moe takes no mixture", "did you mean 'mixtures'"]),
        ({"architecture": "logistic", "hidden": 4}, ["logistic takes no hidden", "features, normalize"]),
        ({"architecture": "moe", "mixtures": 0}, ["mixtures: got 0", "from 1 to 1,000"]),
        ({"architecture": "lstm", "hidden": 10**6}, ["hidden: got 1000000", "to 4,096"]),
        ({"architecture": "gru", "layers": 2.0}, ["layers: got 2.0", "whole number"]),
        ({"architecture": "gru", "layers": True}, ["layers: got True"]),
        ({"architecture": "gru", "dropout": 1}, ["dropout: got 1", "below 1"]),
        ({"architecture": "gru", "dropout": 0.1, "layers": 1}, ["dropout: it is between the layers of gru"]),
        ({"architecture": "transformer", "hidden": 10}, ["hidden: got 10", "8 heads"]),
        ({"architecture": "moe", "normalize": "L2"}, ["normalize: got 'L2'", "l2 or none"]),
        ({"architecture": "moe", "features": {"rgb": 0}}, ["features: got", "from 1 to 65,536"]),
        ({"architecture": "moe", "features": ["rgb"]}, ["features: got"]),
        ({"architecture": "moe", "features": {"rgb\nimport os": 3}}, ["features: got"]),
        ({"architecture": "moe", "features": {"rgb": 1024}}, ["the data have", '"audio": 3']),
        ({"architecture": "lstm", "hidden": 4096, "layers": 24}, ["2,000,000,000 are allowed", "smaller hidden"]),
    ],
)
def test_wrong_configurations(config: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as raised:
        video_features.build(Weights(None, {"model_type": "video_features", **config}, True), LABELS, True, SIZES)
    assert [word for word in words if word not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mixtures": 900}, ["its weights are not those of its config.json"]),
        ({"id2label": {}}, ["names no class"]),
        ({"id2label": {"1": "a"}}, ["id2label must name the classes"]),
        ({"problem_type": "regression"}, ["problem_type: got 'regression'"]),
        ({"features": {"rgb": 65536, "audio": 65536}}, ["its weights are not those"]),
        ({"mixtures": "2"}, ["mixtures: got '2'"]),
    ],
)
def test_folders_of_strangers(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    model, family = built("moe")
    family.save(model, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError) as raised:
        video_features.load(tmp_path)
    assert [word for word in words if word not in str(raised.value)] == []


def test_features_of_another_size_are_named() -> None:
    model, family = built("moe")
    with pytest.raises(ModelError, match=r"1,024 numbers for each frame, and the model reads 9 \(rgb 6, audio 3\)"):
        family.logits(model, {"features": torch.zeros(1, 1, 1024), "frames": torch.ones(1).long()})


def run_snippet(folder: Path, multi_label: bool) -> list[str]:
    """What the code of the card prints. It runs without Graft; files come from the folder in place of the hub."""
    from hub_cards import __file__ as cards

    config = json.loads((folder / "config.json").read_text())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(cards).parent), trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    macro = environment.from_string(
        '{% import "video_features.md.j2" as video_features %}{{ video_features.snippet(repo, config, options, []) }}'
    )
    snippet = macro.render(repo="someone/model", config=config, options={"multi_label": multi_label})
    assert "pipelines" not in snippet
    printed: list[str] = []
    hub = "from huggingface_hub import hf_hub_download"
    exec(snippet.replace(hub, "def hf_hub_download(_, file): return file"), {"print": printed.append})
    return printed


@pytest.mark.filterwarnings("ignore:Exception ignored")  # the snippet is short: it closes no file
@every
def test_the_card_code_gives_the_same_answer(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, family = built(kind, multi_label=kind != "gru")
    model.eval()
    family.save(model, tmp_path)
    given = batch([5])
    np.save(tmp_path / "features.npy", given["features"][0].numpy())
    monkeypatch.chdir(tmp_path)
    printed = run_snippet(tmp_path, kind != "gru")
    scores = family.logits(model, given)[0]
    scores = scores.sigmoid() if kind != "gru" else scores.softmax(-1)
    best = scores.topk(5)
    assert printed == [
        f"{s:.3f}  {LABELS[k]}" for s, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


@pytest.mark.filterwarnings("ignore:Exception ignored")
@pytest.mark.parametrize("features", [{"rgb": 1024}, {"audio": 128}, {"audio": 128, "rgb": 1024}])
def test_a_network_may_read_a_part_of_the_features(
    features: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = {"model_type": "video_features", "architecture": "logistic", "features": features}
    model, family = video_features.build(Weights(None, config, True), LABELS, True, video_features.SIZES)
    given = {"features": torch.randn(2, 3, 1152), "frames": torch.tensor([3, 2])}
    parts = {"rgb": given["features"][..., :1024], "audio": given["features"][..., 1024:]}
    alone = {**given, "features": torch.cat([parts[name] for name in features], -1)}
    expected = model(alone["features"], alone["frames"])
    assert torch.equal(family.logits(model, given), expected)
    family.save(model, tmp_path)
    again, found = video_features.load(tmp_path)
    assert torch.equal(found.logits(again, given), expected)
    np.save(tmp_path / "features.npy", given["features"][0].numpy())
    monkeypatch.chdir(tmp_path)
    printed = run_snippet(tmp_path, True)
    best = expected[0].sigmoid().topk(5)
    assert printed == [
        f"{s:.3f}  {LABELS[k]}" for s, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
