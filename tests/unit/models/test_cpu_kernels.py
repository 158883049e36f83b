"""Attention, dropout and norms on a CPU: the library's results, exact gradients, one draw per seed, the same files."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    CvtConfig,
    CvtForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pipelines.models import cpu_kernels
from tests.support import tiny_text

CPU = torch.device("cpu")


@pytest.mark.parametrize("masked", ["no", "bool", "added", "causal"])
@pytest.mark.parametrize("heads", [4, 2])  # +0 heads of keys and values, for 4 of queries
def test_attention_is_the_librarys(masked: str, heads: int) -> None:
    torch.manual_seed(0)
    module = SimpleNamespace(is_causal=masked == "causal", num_key_value_groups=4 // heads, training=True)
    q, k, v = (torch.randn(2, n, 9, 8, dtype=torch.bfloat16, requires_grad=True) for n in (4, heads, heads))
    mask = (torch.arange(9) < 6).expand(2, 1, 9, 9) if masked in ("bool", "added") else None
    if masked == "added":
        mask = torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill(~mask, float("-inf"))  # type: ignore[union-attr]
    weight = torch.randn(2, 9, 4, 8)
    found = []
    for function in (cpu_kernels.attention, sdpa_attention_forward):
        out, _ = function(module, q, k, v, mask)  # type: ignore[arg-type]
        found.append((out, *torch.autograd.grad((out.float() * weight).sum(), (q, k, v))))
    assert found[0][0].is_contiguous()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.05, atol=0.03)


KINDS = (torch.float32, torch.bfloat16, torch.float16)
MASKS: dict[str, Any] = {
    "no": None,
    "causal": None,
    "bool": (torch.arange(9) < 6).expand(2, 1, 9, 9),
    "bool of all": (torch.arange(9) <= torch.arange(9)[:, None])[None, None],
    "bool of keys": torch.tensor([[True] * 9, [True] * 4 + [False] * 5])[:, None, None],
}
MASKS["added"] = torch.zeros(2, 1, 9, 9).masked_fill(~MASKS["bool"], float("-inf"))
MASKS["lowest"] = torch.zeros(2, 1, 9, 9).masked_fill(~MASKS["bool"], torch.finfo(torch.float32).min)
MASKS["added bf16"] = torch.zeros(1, 4, 9, 9).fill_(0.5).triu().to(torch.bfloat16)  # a bias of each head


def plainly(q: Any, k: Any, v: Any, masked: str, dropout: float) -> torch.Tensor:
    """Attention as it is defined, in float32, with the kernel's own dropout."""
    k, v = (one.float().repeat_interleave(4 // one.shape[1], 1) for one in (k, v))
    scores, mask = q.float() @ k.transpose(2, 3) * q.shape[-1] ** -0.5, MASKS[masked]
    if masked == "causal":
        mask = torch.ones(9, 9, dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask.float()
    weights = scores.softmax(-1)
    if dropout:
        torch.manual_seed(3)
        keeps = cpu_kernels.kept(torch.Size((8, 9, 9)), dropout).view(2, 4, 9, 9)
        weights = weights * keeps / (1 - dropout)
    return (weights @ v).transpose(1, 2)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_attention_takes_every_mix_of_types_and_heads(autocast: torch.dtype | None, masked: str) -> None:
    """A rotary embedding gives fp32 queries and keys where values are bf16; masks have a type of their own."""
    module = SimpleNamespace(is_causal=masked == "causal", num_key_value_groups=1, training=True)
    for number, kinds in enumerate(itertools.product(KINDS, repeat=3)):
        heads, dropout = (4, 2, 1)[number // 2 % 3], (0.0, 0.3)[number % 2]
        torch.manual_seed(0)
        module.num_key_value_groups = 4 // heads
        inputs = [
            torch.randn(2, n, 9, 8).to(kind).requires_grad_() for n, kind in zip((4, heads, heads), kinds, strict=True)
        ]
        weight = torch.randn(2, 9, 4, 8)
        torch.manual_seed(3)  # of dropout
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            out, _ = cpu_kernels.attention(module, *inputs, MASKS[masked], dropout=dropout)  # type: ignore[arg-type]
        found = torch.autograd.grad((out.float() * weight).sum(), inputs)
        exact = plainly(*inputs, masked, dropout)
        wanted = torch.autograd.grad((exact * weight).sum(), inputs)
        torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)
        for ours, theirs, kind in zip(found, wanted, kinds, strict=True):
            assert ours.dtype == kind
            torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.1, atol=0.1)


# torch itself refuses fp32 images with weights in bf16
@pytest.mark.parametrize("kinds", [*((kind, torch.float32) for kind in KINDS), (torch.bfloat16, torch.bfloat16)])
def test_group_norm_takes_every_mix_of_types(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    torch.manual_seed(0)
    layer = nn.GroupNorm(2, 4).to(kinds[1])
    images = torch.randn(3, 4, 5, 5).to(kinds[0]).requires_grad_()
    with torch.no_grad():
        exact = nn.functional.group_norm(images.float(), 2, layer.weight.float(), layer.bias.float())
    cpu_kernels.install(nn.Sequential(layer), CPU)
    assert type(layer) is cpu_kernels.GroupNorm
    for autocast in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", autocast):
            out = layer(images)
        torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.02)
        out.float().square().sum().backward()
    assert images.grad is not None
    assert images.grad.dtype == kinds[0]


def tokens_of(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.BatchNorm3d])
def test_gradients_of_one_image_are_half_of_those_of_two_equal_images(
    kind: type[nn.Module], trains: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    deep = kind is nn.BatchNorm3d
    layers = nn.ModuleList([nn.Conv3d(3, 8, 3) if deep else nn.Conv2d(3, 8, 3), kind(8), nn.LayerNorm(8)])
    layers.double().train(trains)
    image = torch.randn(1, 3, *([6] if deep else []), 8, 6).double()
    if channels_last:
        image = image.to(memory_format=torch.channels_last_3d if deep else torch.channels_last)
    cpu_kernels.install(layers, CPU)

    def gradients(images: torch.Tensor) -> list[torch.Tensor]:
        layers.zero_grad()
        found = layers[2](tokens_of(layers[1](layers[0](images))))
        (found * torch.linspace(-1, 1, found[0].numel()).view(found[0].shape).cos()).sum().backward()
        return [p.grad.clone() for p in layers.parameters() if p.grad is not None]

    one, two = gradients(image), gradients(torch.cat([image, image]))
    assert len(one) == 6
    for single, double in zip(one, two, strict=True):
        torch.testing.assert_close(single, double / 2)


def test_gradients_of_one_image_are_exact_in_a_published_architecture() -> None:
    torch.manual_seed(0)
    config = CvtConfig(embed_dim=[8, 16, 24], num_heads=[1, 1, 1], depth=[1, 2, 3], drop_path_rate=[0.0] * 3)
    model = CvtForImageClassification(config).double().eval()
    cpu_kernels.install(model, CPU)
    cpu_kernels.install(model, CPU)
    assert {len(part._forward_hooks) for part in model.modules() if isinstance(part, nn.BatchNorm2d)} == {1}
    image, found = torch.randn(1, 3, 64, 64).double(), []
    for images in (image, torch.cat([image, image])):
        model.zero_grad()
        model(images).logits[:, 0].mean().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single, double)


def test_a_batch_norm_is_saved_copied_and_compiled_as_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval()
    names, image = list(model.state_dict()), torch.randn(1, 3, 8, 8)
    before = model(image)
    cpu_kernels.install(model, CPU)
    assert list(model.state_dict()) == names
    assert torch.equal(copy.deepcopy(model)(image), before)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=keep, fullgraph=True)
    assert torch.equal(compiled(image), before)
    assert len(graphs) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_takes_every_type(kind: torch.dtype) -> None:
    layer = nn.Sequential(nn.Dropout(0.25))
    cpu_kernels.install(layer, CPU)
    out = layer.train()(torch.ones(64, 64, dtype=kind))
    assert out.dtype == kind
    assert sorted(out.float().unique().tolist()) == pytest.approx([0.0, 1 / 0.75], rel=0.01)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_llama_trains_with_attention_dropout_in_half_precision(kind: torch.dtype) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 50}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, attention_dropout=0.2)
    model = LlamaForCausalLM(config).train()
    cpu_kernels.install(model, CPU)
    tokens = torch.randint(0, 50, (2, 9))
    with torch.autocast("cpu", kind):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_gradients_are_exact(p: float) -> None:
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 1, 5, 5, dtype=torch.float64)

    def drawn(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the dropped values must not change between two evaluations
        return cpu_kernels.Attention.apply(*inputs, bias, 0.5, p)  # type: ignore[no-any-return, no-untyped-call]

    assert torch.autograd.gradcheck(drawn, (q, k, v))


def test_what_is_kept_follows_the_seed_and_the_rate() -> None:
    torch.manual_seed(3)
    one, two = cpu_kernels.kept(torch.Size((300, 301)), 0.1), cpu_kernels.kept(torch.Size((300, 301)), 0.1)
    torch.manual_seed(3)
    assert torch.equal(one, cpu_kernels.kept(torch.Size((300, 301)), 0.1))
    assert not torch.equal(one, two)
    assert abs(one.float().mean() - 0.9) < 4 * (0.09 / one.numel()) ** 0.5
    assert abs((one & two).float().mean() - 0.81) < 4 * (0.81 * 0.19 / one.numel()) ** 0.5  # two draws are independent


def test_dropout_keeps_the_mean_and_rests_in_evaluation() -> None:
    layer, x = nn.Sequential(nn.Dropout(0.25)), torch.ones(400, 400, requires_grad=True)
    cpu_kernels.install(layer, CPU)
    out = layer.train()(x)
    assert out.detach().unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    out.sum().backward()
    assert torch.equal(x.grad, out)  # type: ignore[arg-type]
    assert torch.equal(layer.eval()(x), x)


def test_a_model_scores_the_same_and_its_files_do_not_tell(tmp_path: Path) -> None:
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_text.bert(tmp_path / "bert")).eval()
    fields = {"input_ids": torch.randint(5, 50, (3, 12)), "attention_mask": torch.ones(3, 12, dtype=torch.long)}
    fields["attention_mask"][1, 7:] = 0
    before = model(**fields).start_logits
    cpu_kernels.install(model, CPU)
    torch.testing.assert_close(model(**fields).start_logits, before, rtol=0, atol=0)  # fp32 uses torch's own
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**fields).start_logits
    torch.testing.assert_close(
        found[fields["attention_mask"] == 1].float(), before[fields["attention_mask"] == 1], rtol=0.05, atol=0.03
    )
    model.save_pretrained(tmp_path / "saved")
    assert cpu_kernels.NAME not in json.dumps(json.loads((tmp_path / "saved" / "config.json").read_text()))


def test_a_causal_model_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)).train()
    cpu_kernels.install(model, CPU)
    assert model.config._attn_implementation == cpu_kernels.NAME
    one = torch.randint(0, 50, (2, 10))
    two = one.clone()
    two[:, 6:] = torch.randint(0, 50, (2, 4))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = [(torch.manual_seed(5), model(input_ids=ids).logits)[1] for ids in (one, two)]
    assert torch.equal(found[0][:, :6], found[1][:, :6])
    assert not torch.equal(found[0], found[1])


def unet() -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    sizes = {
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "norm_num_groups": 8,
        "attention_head_dim": 16,
        "layers_per_block": 1,
    }
    return UNet2DModel(**sizes, **kinds).eval()


def test_a_unet_answers_the_same() -> None:
    """Equal to the bit in fp32, where nothing is changed. In bf16, as near to the fp32 answer as the library's."""
    model, quick = unet(), unet()
    cpu_kernels.install(quick, torch.device("cpu"))
    assert any(type(part).__name__ == "Products" for m in quick.modules() for part in [getattr(m, "processor", None)])
    pixels, times = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        exact = model(pixels, times).sample
        assert torch.equal(quick(pixels, times).sample, exact)
        with torch.autocast("cpu", torch.bfloat16):
            theirs, ours = model(pixels, times).sample.float(), quick(pixels, times).sample.float()
    assert not torch.equal(ours, theirs)
    assert (ours - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()


def test_gradients_of_a_unet_are_the_librarys() -> None:
    found = []
    for quick in (False, True):
        model = unet()
        if quick:
            cpu_kernels.install(model, torch.device("cpu"))
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(2, 3, 16, 16), torch.tensor([3, 700])).sample.float().square().mean()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999


def test_a_blocks_way_past_keeps_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, the library copies it out of channels-last memory. The results still equal the library's."""
    seen: dict[bool, list[bool]] = {}
    answers = []
    for quick in (False, True):
        model = unet().to(memory_format=torch.channels_last).train()
        if quick:
            cpu_kernels.install(model, CPU)
        past = [part.conv_shortcut for part in model.modules() if getattr(part, "conv_shortcut", None) is not None]
        kept = seen.setdefault(quick, [])
        for part in past:
            part.register_forward_pre_hook(
                lambda _, given, kept=kept: kept.append(given[0].is_contiguous(memory_format=torch.channels_last))
            )
        torch.manual_seed(1)
        pixels = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        answers.append(model(pixels, torch.tensor([3, 700])).sample)
        assert all(part.training for part in model.modules())
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)
    assert len(seen[True]) == len(seen[False]) > 0
    assert all(seen[True])
    assert not all(seen[False])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_of_bf16_is_that_of_float32(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    images = torch.randn(3, 8, 5, 6, dtype=torch.bfloat16).contiguous(memory_format=layout)
    weight = torch.randn(3, 8, 5, 6)
    found = []
    for kind in (torch.float32, torch.bfloat16):
        own, given = nn.GroupNorm(4, 8), images.detach().to(kind).requires_grad_()
        own.load_state_dict(norm.state_dict())
        cpu_kernels.install(nn.Sequential(own), CPU)
        out = own(given)
        assert out.dtype == kind
        assert out.is_contiguous(memory_format=layout)
        found.append((out, *torch.autograd.grad((out.float() * weight).sum(), (given, own.weight, own.bias))))
    (out, *rest), (rounded, *others) = found
    torch.testing.assert_close(rounded, out.to(torch.bfloat16), rtol=0, atol=0)
    torch.testing.assert_close(others[0], rest[0].to(torch.bfloat16), rtol=0.02, atol=0.02)
    for exact, close in zip(rest[1:], others[1:], strict=True):
        torch.testing.assert_close(close, exact, rtol=1e-2, atol=5e-2)


def test_large_pictures_keep_the_librarys_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights would fill the memory."""
    model = unet()
    monkeypatch.setattr(cpu_kernels, "MOST", 1000)
    cpu_kernels.install(model, torch.device("cpu"))
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 3, 16, 16), torch.tensor([3, 700]))
    assert calls


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (7, 1)])
def test_depthwise_convolution_in_bf16(kernel: int, stride: int) -> None:
    """The result is torch's; the gradients are those of fp32, rounded once."""
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8)
    ours = nn.Sequential(copy.deepcopy(plain))
    cpu_kernels.install(ours, torch.device("cpu"))
    assert type(ours[0]) is cpu_kernels.Depthwise
    images = torch.randn(2, 8, 11, 13).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(images), plain(images)
    assert torch.equal(found, expected)
    given = torch.randn(found.shape).bfloat16()
    with torch.no_grad():
        plain.weight.copy_(plain.weight.bfloat16())
    exact = torch.autograd.grad(plain(images), plain.weight, given.float())[0]
    (gradient,) = torch.autograd.grad(found, ours[0].weight, given)
    torch.testing.assert_close(gradient, exact.bfloat16().float())


def test_depthwise_convolution_of_timm() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(images)
        cpu_kernels.install(model, torch.device("cpu"))
        found = model(images)
    assert any(type(part) is cpu_kernels.DepthwiseSame for part in model.modules())
    assert torch.equal(found, expected)
    assert found.requires_grad
