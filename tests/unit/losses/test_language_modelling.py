"""The loss in parts: the values and gradients of the plain loss, and never all scores at once."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MobileBertConfig,
    ModernBertConfig,
)

from pipelines.losses.language_modelling import at_targets, head_of, nats
from pipelines.metrics.language_modelling import with_surest_wrong

IGNORED = -100
VOCABULARY = 211
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LLAMA = {**SIZES, "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
CAUSAL = {
    "llama": LlamaConfig(**LLAMA),
    "tied": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, embd_pdrop=0, resid_pdrop=0, attn_pdrop=0
    ),
    "limited": Gemma2Config(**LLAMA, head_dim=8, final_logit_softcapping=0.2),
    "divided": GraniteConfig(**LLAMA, logits_scaling=3.0),
}
BERT = {
    **SIZES,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 64,
}
MASKED = {
    "bert": BertConfig(**BERT),
    "modernbert": ModernBertConfig(**SIZES, num_attention_heads=2, pad_token_id=0, cls_token_id=1, sep_token_id=2),
}


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if name in CAUSAL else AutoModelForMaskedLM
    return auto.from_config({**CAUSAL, **MASKED}[name], attn_implementation="eager").train()


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor, int]:
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, 20))
    labels = torch.randint(3, VOCABULARY, (3, 20)).masked_fill(torch.rand(3, 20) < 0.4, IGNORED)
    return {"input_ids": ids}, labels, int((labels != IGNORED).sum())


def graded(model: Any, head: Any, **settings: Any) -> tuple[float, dict[str, torch.Tensor]]:
    fields, labels, count = batch()
    model.zero_grad()
    torch.manual_seed(2)  # of dropout
    (found,) = at_targets(model, head, fields, labels, IGNORED, count, **settings)
    assert found.shape == (count,)
    loss = found.sum() / count
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same(one: Any, other: Any) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert set(one[1]) == set(other[1])
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_parts_have_the_values_and_gradients_of_the_plain_loss(name: str) -> None:
    model = model_of(name)
    head = head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])})
    assert head is not None
    assert head.vocabulary == VOCABULARY
    plain = graded(model, None)
    assert len(plain[1]) > 5
    same(graded(model, head), plain)
    same(graded(model, head, most=7 * VOCABULARY), plain)
    same(graded(model, head, most=1), plain)  # one target at a time


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_lora_on_the_head_learns(dropout: float) -> None:
    plain = model_of("llama")
    head = head_of(plain, {"input_ids": torch.tensor([[3, 4, 5]])})
    model = get_peft_model(plain, LoraConfig(r=2, target_modules=["lm_head", "q_proj"], lora_dropout=dropout))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    found = graded(model, head, most=7 * VOCABULARY)
    assert any("lm_head.lora_A" in name for name in found[1])
    assert not any("base_layer" in name for name in found[1])
    if dropout == 0.0:
        same(found, graded(model, None))
    else:  # the backward pass drops what the forward pass dropped: the loss falls along its gradient
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in found[1]:
                    parameter -= 1e-3 * found[1][name]
        square = sum(float(g.square().sum()) for g in found[1].values())
        assert found[0] - graded(model, head, most=7 * VOCABULARY)[0] == pytest.approx(1e-3 * square, rel=0.1)


class Largest(TorchDispatchMode):
    """The most numbers in any new tensor."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.most = max([self.most, *(t.numel() for t in tree_leaves(found) if isinstance(t, torch.Tensor))])
        return found


def test_scores_of_all_targets_never_exist_at_once() -> None:
    model, (_, _, count) = model_of("bert"), batch()
    head = head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])})
    with Largest() as plain:
        graded(model, None)
    with Largest() as parts:
        graded(model, head, most=7 * VOCABULARY)
    assert plain.most == 60 * VOCABULARY  # of all tokens
    assert parts.most < count * VOCABULARY
    weights = max(p.numel() for p in model.parameters())
    assert parts.most <= max(weights, 7 * VOCABULARY)


def test_scores_for_reports_come_in_parts_too() -> None:
    model, (fields, labels, count) = model_of("llama").eval(), batch()
    head = head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])})
    with torch.no_grad():
        plain = at_targets(model, None, fields, labels, IGNORED, count, with_surest_wrong)
        parts = at_targets(model, head, fields, labels, IGNORED, count, with_surest_wrong, most=7 * VOCABULARY)
    assert len(plain) == len(parts) == 3
    for one, other in zip(plain, parts, strict=True):
        torch.testing.assert_close(one, other)
    assert "forward" not in vars(model.lm_head)


def test_a_model_that_scores_in_another_way_keeps_the_plain_loss() -> None:
    """MobileBERT multiplies by two matrices and calls no layer."""
    sizes = {**BERT, "embedding_size": 8, "intra_bottleneck_size": 16}
    model = AutoModelForMaskedLM.from_config(MobileBertConfig(**sizes))
    assert head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])}) is None
    assert graded(model, None)[0] > 0


def test_an_output_that_is_changed_in_an_unknown_way_keeps_the_plain_loss() -> None:
    model = model_of("limited")
    model.config.final_logit_softcapping = None

    def squared(module: Any, inputs: Any, output: Any) -> Any:
        output.logits = output.logits.square()
        return output

    model.register_forward_hook(squared)
    assert head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])}) is None


def test_hooks_around_the_last_layer_see_its_scores() -> None:
    model = model_of("llama")
    head = head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])})
    seen: list[torch.Size] = []
    plain = model.lm_head.forward

    def hook(hidden: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = plain(hidden)
        seen.append(scores.shape)
        return scores

    model.lm_head.forward = hook
    same(graded(model, head), graded(model, None))
    assert seen == [(3, 20, VOCABULARY)] * 2
    assert model.lm_head.forward is hook


def test_the_measure_of_training_is_cross_entropy() -> None:
    scores = torch.tensor([[0.0, 0.0], [0.0, torch.inf]]).clamp(max=30)
    (found,) = nats(scores, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([0.6931472, 0.0])
