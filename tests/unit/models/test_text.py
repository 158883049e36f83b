"""Families of text models: where their layers are, how much they read, whether they keep documents separate."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from pipelines.errors import ModelError
from pipelines.inference.loading import load
from pipelines.models.layers import depth_of_parameters
from pipelines.models.text import keeps_apart, language_model_layers, length, longest, set_attention_dropout
from tests.support import tiny_text

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 32}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
# class -> configuration, a part of the head's names, whether documents of a block are separate
FAMILIES: dict[str, tuple[dict[str, Any], str, bool]] = {
    "GPT2LMHeadModel": (GPT, "transformer.ln_f", True),
    "LlamaForCausalLM": (SMALL, "model.norm", True),
    "Qwen2ForCausalLM": ({**SMALL, "num_key_value_heads": 2}, "model.norm", True),
    "OPTForCausalLM": (OPT, "layers.1", False),
    "BloomForCausalLM": ({"hidden_size": 32, "n_layer": 2, "n_head": 2}, "transformer.ln_f", False),
    "BertForMaskedLM": (SMALL, "predictions.transform", False),
    "DistilBertForMaskedLM": ({"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}, "vocab_", False),
    "RobertaForMaskedLM": (SMALL, "lm_head", False),
    "ModernBertForMaskedLM": ({**SMALL, **ENDS}, "head.", False),
}


def family(name: str) -> Any:
    kind = getattr(transformers, name)
    return kind(kind.config_class(vocab_size=60, **FAMILIES[name][0]))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_has_a_layer_and_the_head_is_last(name: str) -> None:
    model = family(name)
    layers = language_model_layers(model)
    depth = depth_of_parameters(model, layers)
    last = {parameter for parameter, at in depth.items() if at == len(layers) - 1}
    assert set(depth) == {parameter for parameter, _ in model.named_parameters()}
    assert last
    assert all(FAMILIES[name][1] in parameter for parameter in last)
    assert depth[next(n for n, p in model.named_parameters() if p is model.get_input_embeddings().weight)] == 0


@pytest.mark.parametrize("name", [name for name in FAMILIES if "Causal" in name or "LMHead" in name])
def test_documents_are_kept_apart_or_it_is_known(name: str) -> None:
    model = family(name)
    assert keeps_apart(model) is FAMILIES[name][2]
    assert model.training


class Words:
    model_max_length = 512


def test_how_much_a_model_reads() -> None:
    """RoBERTa has two positions more than it reads. If the model states no length, there is no limit."""
    assert longest(Words(), transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512
    assert longest(Words(), transformers.BertConfig(max_position_embeddings=64)) == 64
    assert longest(Words(), transformers.BloomConfig()) == 512
    assert length(None, Words(), transformers.BertConfig(), 384) == 384
    assert length(None, Words(), transformers.BertConfig(max_position_embeddings=64), 384) == 64
    with pytest.raises(ModelError, match="got 600, but this model reads at most 512"):
        length(600, Words(), transformers.BertConfig(), 384)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Bert", "attention_probs_dropout_prob"), ("DistilBert", "attention_dropout"), ("GPT2", "attn_pdrop")],
)
def test_attention_dropout_has_many_names(kind: str, name: str) -> None:
    config = getattr(transformers, f"{kind}Config")()
    own = getattr(config, name)
    set_attention_dropout(config, None)
    assert getattr(config, name) == own > 0
    set_attention_dropout(config, 0.0)
    assert getattr(config, name) == 0
    with pytest.raises(ModelError, match="a xlnet model has no dropout on its attention"):
        set_attention_dropout(transformers.XLNetConfig(), 0.0)


@pytest.mark.parametrize(
    ("make", "kind", "task"),
    [
        (tiny_text.gpt, "GPT2LMHeadModel", "text-generation"),
        (tiny_text.bert, "BertForMaskedLM", "fill-mask"),
        (tiny_text.bert, "BertForQuestionAnswering", "question-answering"),
        (tiny_text.bert, "BertForSequenceClassification", "text-classification"),
    ],
)
def test_a_model_of_others_is_known_by_its_class(make: Any, kind: str, task: str, tmp_path: Path) -> None:
    """The README of the hub's older models does not state their purpose."""
    assert load(make(tmp_path, kind), device="cpu").task.name == task
