"""Text generation: the contract in both uses, packing, separate documents, answers, decoding, LoRA."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import concatenate_datasets
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.filtering import sorted_out
from pipelines.data.loading import load_splits
from pipelines.data.text.packing import IGNORED, blocks
from pipelines.errors import DataError
from pipelines.inference.loading import load
from pipelines.models.decoding import continuations
from pipelines.models.source import resolve
from pipelines.tasks.text_generation import Options, TextGeneration
from pipelines.training.run import train
from tests.support import tiny_text
from tests.support.hub import HubServer
from tests.support.runs import without_pictures
from tests.tasks.contract import Served, TaskContract, close, gradio_page, hub  # noqa: F401 (fixtures)

PROMPT = "{context} Question: {question} Answer:"


class TestContract(TaskContract):
    """Language modelling."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "text-generation",
            "model": {"id": str(tiny_text.gpt(folder / "gpt"))},
            "data": {"id": str(tiny_text.texts(folder / "texts")), "workers": 0},
            "options": {"max_length": 32, "max_new_tokens": 8},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": row["id"], "nll": 0.0, "tokens": 10, "bytes": len(row["text"].encode())} for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (json.loads((run / "model" / "examples" / "examples.json").read_text())[0]["text"][:40],)

    def same(self, printed: str, answer: Any) -> bool:
        return printed.strip() == answer.strip()


@pytest.mark.integration
class TestClassic(TestContract):
    """A network that transformers has no class for: its tokenizer is learned, and its card carries the code."""

    spine = False
    rate = 2e-2

    def recipe(self, folder: Path) -> dict[str, Any]:
        sizes = {"embedding_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300}
        return {**super().recipe(folder), "model": {"config": {"model_type": "lstm", **sizes}}}


@pytest.mark.integration
class TestAnswers(TestContract):
    """Generation of answers to a prompt."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        squad = tiny_text.squad(folder / "squad", n=6, splits=("train", "dev"))
        return {
            **super().recipe(folder),
            "data": {"id": str(squad), "workers": 0, "max_eval_rows": 12},
            "options": {"prompt": PROMPT, "max_new_tokens": 8},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [
            {
                "id": r["id"],
                "nll": 0.0,
                "tokens": 2,
                "question": r["question"],
                "true": r["answer"],
                "predicted": r["answer"][0],
            }
            for r in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        example = json.loads((run / "model" / "examples" / "examples.json").read_text())[0]
        return example["context"], example["question"]


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    if recipe.model.id is not None:
        hub.add_model(recipe.model.id, tiny_text.gpt(folder / "model"))
    if recipe.data.format == "wikipedia" or recipe.data.id == "texts":
        return Served(str(tiny_text.texts(folder / "texts")), changes=("options.max_length=32",))
    if recipe.options.chat:  # type: ignore[attr-defined]
        hub.add_model(str(recipe.model.id), tiny_text.llama(folder / "chat_model"))
        return Served(str(tiny_text.chats(folder)), changes=("options.max_length=128", "options.max_new_tokens=4"))
    if recipe.options.prompt:  # type: ignore[attr-defined]
        hub.add_dataset(recipe.data.id, tiny_text.squad_repo(folder / "data", tiny_text.squad(folder / "squad")))
    else:
        assert recipe.data.config is not None
        tiny_text.texts(folder / "data" / recipe.data.config)
        parts = [{"split": s, "path": f"{recipe.data.config}/{s}.jsonl"} for s in ("train", "validation", "test")]
        front = {"configs": [{"config_name": recipe.data.config, "data_files": parts}]}
        (folder / "data" / "README.md").write_text(f"---\n{json.dumps(front)}\n---\n")
        hub.add_dataset(recipe.data.id, folder / "data")
    return Served(changes=("options.max_length=128", "options.max_new_tokens=4"))


def made(
    folder: Path, kind: str = "GPT2LMHeadModel", data: Path | None = None, **options: Any
) -> tuple[TextGeneration, Any, Any]:
    """A task, its model and its data."""
    task = TextGeneration(Options(**{"max_length": 32, **options}))
    splits = load_splits(DataSection(id=str(data or tiny_text.texts(folder / "texts"))), task.data)
    return task, task.build(resolve(ModelSection(id=str(tiny_text.gpt(folder / kind, kind)))), splits).eval(), splits


def costs(task: TextGeneration, net: Any, rows: Any, at_once: int) -> dict[str, list[Any]]:
    """The negative log-likelihood of each row's tokens, predicted `at_once` blocks at a time."""
    examples = Examples(task, task.encode(rows))
    keys = [(None, i) for i in range(len(examples))]
    with torch.no_grad():
        records = [
            r for at in range(0, len(keys), at_once) for r in task.predict(net, examples[keys[at : at + at_once]].batch)
        ]
    return {r["id"]: [r["nll"], r["tokens"]] for r in task.merge(records, rows)}


# ---- packing ----


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 99), max_size=9), st.booleans()), min_size=1, max_size=12),
    st.integers(2, 12),
)
def test_every_token_but_a_document_s_first_is_a_target_once(texts: list[tuple[list[int], bool]], size: int) -> None:
    rows = [(number, ids, opens or number == 0) for number, (ids, opens) in enumerate(texts)]
    assume(any(ids for _, ids, _ in rows))
    found = list(blocks(rows, size))
    assert [t for b in found for t in b["input_ids"]] == [t for _, ids, _ in rows for t in ids]
    assert all(len(b["input_ids"]) == size for b in found[:-1])
    wanted: dict[int, list[int]] = {number: [] for number, _, _ in rows}
    begun = False
    for number, ids, opens in rows:
        begun = begun and not (opens and ids)
        wanted[number] += ids if begun else ids[1:]
        begun = begun or bool(ids)
    given_: dict[int, list[int]] = {number: [] for number, _, _ in rows}
    for block in found:
        labels = list(block["labels"])
        for row, count in block["owners"]:
            given_[row] += [int(t) for t in labels[:count] if t != IGNORED]
            labels = labels[count:]
        assert all(t == IGNORED for t in labels)
    assert given_ == wanted


def test_a_document_costs_in_a_block_what_it_costs_alone(tmp_path: Path) -> None:
    """The row fits into a block here, so packing, micro-batch and neighbours change nothing."""
    task, net, splits = made(tmp_path, max_length=128)
    assert task.packs
    packed = costs(task, net, splits.test, 1)
    assert close(costs(task, net, splits.test, 5), packed)
    alone = {row["id"]: costs(task, net, splits.test.select([i]), 1)[row["id"]] for i, row in enumerate(splits.test)}
    unchanged = [id_ for id_, cost in alone.items() if close(cost, packed[id_])]
    blocks_ = task.encode(splits.test)
    cut = len(blocks_) - 1  # a document that crosses the edge of two blocks loses its beginning
    assert len(unchanged) >= len(alone) - cut > len(alone) / 2
    assert {id_: tokens for id_, (_, tokens) in alone.items()} == {id_: tokens for id_, (_, tokens) in packed.items()}


def test_a_model_that_cannot_keep_documents_apart_gets_one_at_a_time(tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    folder = tiny_text.gpt(tmp_path / "opt")
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
        "dropout": 0.0,
    }
    (folder / "model.safetensors").unlink()
    OPTForCausalLM(
        OPTConfig(vocab_size=400, max_position_embeddings=128, bos_token_id=0, eos_token_id=0, **shape)
    ).save_pretrained(folder)
    task = TextGeneration(Options(max_length=128))
    splits = load_splits(DataSection(id=str(tiny_text.texts(tmp_path / "texts"))), task.data)
    net = task.build(resolve(ModelSection(id=str(folder))), splits).eval()
    assert not task.packs
    assert len(task.encode(splits.test)) == len(splits.test)
    assert close(costs(task, net, splits.test, 4), costs(task, net, splits.test, 1))


def test_lines_of_a_running_text_are_foretold_from_those_before(tmp_path: Path) -> None:
    rows = tiny_text.texts(tmp_path / "lines", n=1, splits=("train", "test"))
    line = json.loads((rows / "test.jsonl").read_text())["text"]
    (rows / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (line, line, line)))
    (rows / "train.jsonl").write_text("".join(json.dumps({"text": f"{line} {i}"}) + "\n" for i in range(12)))
    task, net, splits = made(tmp_path, data=rows, rows="line", max_length=128)
    found = costs(task, net, splits.test, 1)
    tokens = len(task.tokenizer(line)["input_ids"])
    assert [n for _, n in found.values()] == [tokens - 1, tokens, tokens]


# ---- answers ----


def test_greedy_answers_are_the_library_s(tmp_path: Path) -> None:
    """Prompts of different lengths, padded on the left, get the answers that `generate` gives for each alone."""
    task, net, splits = made(
        tmp_path, data=tiny_text.squad(tmp_path / "squad"), prompt=PROMPT, max_length=128, max_new_tokens=12
    )
    examples = Examples(task, task.encode(splits.test))
    batch = examples[[(None, i) for i in range(6)]].batch
    assert len(set(map(len, batch["prompt"]))) > 1
    with torch.no_grad():
        ours = [r["predicted"] for r in task.predict(net, batch)]
        theirs = [
            net.generate(torch.tensor([p]), max_new_tokens=12, do_sample=False)[0, len(p) :] for p in batch["prompt"]
        ]
    assert ours == [task.tokenizer.decode(one, skip_special_tokens=True).strip() for one in theirs]


def test_an_answer_ends_where_the_model_can_read_no_further(tmp_path: Path) -> None:
    """An answer does not depend on the rest of the batch: a prompt that nearly fills the model, and a short one."""
    task, net, _ = made(tmp_path, max_length=128)
    long, short = [5] * 126, [5, 6]
    both = continuations(net, [long, short], set(), 8, limit=task.limit, pad=0)
    assert [len(one) for one in both] == [2, 8]
    assert both == [continuations(net, [one], set(), 8, limit=task.limit, pad=0)[0] for one in (long, short)]
    assert len(list(task.infer(net, "The song was made. " * 20, max_new_tokens=500))) <= 128


def test_the_loss_is_on_the_answer_and_its_end_alone(tmp_path: Path) -> None:
    task, _, splits = made(tmp_path, data=tiny_text.squad(tmp_path / "squad"), prompt=PROMPT, max_length=128)
    encoded = task.encode(splits.train)
    for i in range(8):
        wanted = [t for t in encoded[i]["labels"] if t != IGNORED]
        assert task.tokenizer.decode(wanted) == f" {splits.train[i]['answer'][0]}{task.tokenizer.eos_token}"
        asked = task.tokenizer.decode(encoded[i]["input_ids"][: encoded[i]["prompt"]])
        assert asked == PROMPT.format(context=splits.train[i]["context"], question=splits.train[i]["question"])


def test_a_drawn_text_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    task, net, _ = made(tmp_path)

    def drawn(**settings: Any) -> str:
        return list(task.infer(net, "The song was", max_new_tokens=16, **settings))[-1]

    assert drawn(temperature=1.0, seed=1) == drawn(temperature=1.0, seed=1) != drawn(temperature=1.0, seed=2)
    assert drawn(temperature=1.0, top_p=1e-6) == drawn()
    with pytest.raises(DataError, match="reads at most 128"):
        list(task.infer(net, "The song was made. " * 60))


def test_an_adapter_leaves_the_shared_embedding_alone(tmp_path: Path) -> None:
    """The merged model equals the trained one.

    GPT-2's layers are no Linear, and its output layer is its input embedding.
    """
    from transformers import AutoModelForCausalLM

    raw = TestAnswers().recipe(tmp_path) | {
        "model": {"id": str(tiny_text.gpt(tmp_path / "gpt")), "adapter": {"kind": "lora", "rank": 4}}
    }
    results = train(validate(raw), tmp_path / "run")
    assert results
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder) for folder in (raw["model"]["id"], tmp_path / "run" / "model")
    )
    assert torch.equal(before.transformer.wte.weight, after.transformer.wte.weight)
    assert after.lm_head.weight is after.transformer.wte.weight
    assert not torch.equal(before.transformer.h[0].attn.c_attn.weight, after.transformer.h[0].attn.c_attn.weight)
    assert results["model"]["trainable_parameters"] < results["model"]["parameters"] / 4


def test_prompts_need_no_question(tmp_path: Path) -> None:
    """A prompt may use any columns: instructions, translations, or others of a table."""
    lines = [json.dumps({"order": f"Say {word}", "answer": word}) for word in ("Rome", "Oslo", "Lima", "Cairo") * 6]
    (tmp_path / "orders.jsonl").write_text("\n".join(lines))
    raw = TestAnswers().recipe(tmp_path)
    raw |= {
        "data": {"id": str(tmp_path / "orders.jsonl"), "workers": 0},
        "options": {"prompt": "{order}:", "max_new_tokens": 4},
    }
    results = train(validate(raw), tmp_path / "run")
    assert results
    assert list(results["test"]["tables"]) == ["by answer length"]
    assert "A language model that answers a prompt of order" in (tmp_path / "run" / "model" / "README.md").read_text()


# ---- conversations ----


@pytest.mark.integration
class TestChats(TestContract):
    """Answers in a chat."""

    spine = False

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            **super().recipe(folder),
            "model": {"id": str(tiny_text.llama(folder / "llama"))},
            "data": {"id": str(tiny_text.chats(folder / "chats", 40)), "workers": 0},
            "options": {"chat": True, "max_length": 100, "max_new_tokens": 8},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": row["id"], "nll": 0.0, "tokens": 4, "true": ["a"], "predicted": "a"} for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (json.loads((run / "model" / "examples" / "examples.json").read_text())[0]["messages"],)

    def test_the_demo_goes_on_with_a_chat(self, run: Path, gradio_page: Path) -> None:
        from pipelines.apps.launch import app

        loaded = load(run, device="cpu")
        (answer,) = (one.fn for one in app(loaded).fns.values() if one.api_name == "predict")
        said: list[dict[str, Any]] = []
        for text in ("The song 7?", "The clock 8?"):
            *_, (field, found) = answer(text, said, "Desk 1.", 8, 0, 1, 0)
            asked = [{"role": "system", "content": "Desk 1."}, *said, {"role": "user", "content": text}]
            assert (field, found) == ("", [*asked[1:], {"role": "assistant", "content": loaded.infer(asked)}])
            said = found


@pytest.mark.integration
class TestChatsWithoutATemplate(TestChats):
    """Answers in a chat, by a model that comes without a chat template."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        raw = super().recipe(folder)
        return {**raw, "model": {"id": str(tiny_text.llama(folder / "plain", template=None))}}


def test_a_rule_is_learned_from_300_conversations(tmp_path: Path) -> None:
    """The exported model answers by the rule, and as transformers' own chat pipeline does."""
    from transformers import pipeline

    recipe = validate(
        {
            "task": "text-generation",
            "model": {"id": str(tiny_text.llama(tmp_path / "llama"))},
            "data": {"id": str(tiny_text.chats(tmp_path, 300)), "workers": 0},
            "options": {"chat": True, "max_length": 128, "max_new_tokens": 8},
            "train": {"epochs": 8, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
        }
    )
    with without_pictures():
        results = train(recipe, tmp_path / "run")
    assert results is not None
    assert results["test"]["metrics"]["exact_match"] > 90
    assert results["test"]["metrics"]["perplexity"] < 1.2
    loaded = load(tmp_path / "run", device="cpu")
    own = pipeline("text-generation", model=str(tmp_path / "run" / "model"), device="cpu")
    asked = [{"role": "user", "content": "The song 7?"}]
    followed = [*asked, {"role": "assistant", "content": tiny_text.OWNERS["song"]}]
    for messages in (asked, [{"role": "system", "content": "Desk 4."}, *asked], [*followed, *asked]):
        found = own(messages, max_new_tokens=8, do_sample=False)[0]["generated_text"][-1]
        assert found == {"role": "assistant", "content": loaded.infer(messages)}
    assert loaded.infer(asked) == loaded.infer("The song 7?") == tiny_text.OWNERS["song"]


def test_what_is_too_long_is_known_before_the_first_step(tmp_path: Path) -> None:
    """So `graft check` counts the same rows as a run."""
    rows = [
        {"messages": [{"role": "user", "content": "a" * (200 if n == 2 else 5) + str(n)}, ANSWER]} for n in range(9)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TextGeneration(Options(chat=True, max_length=100))
    splits = load_splits(DataSection(id=str(tmp_path / "a.jsonl")), task.data)
    task.build(resolve(ModelSection(id=str(tiny_text.llama(tmp_path / "llama")))), splits)
    whole = concatenate_datasets([splits.train, splits.validation, splits.test])
    taken, skipped, _ = sorted_out(task.encode(whole), whole["id"], "train")
    assert len(taken) == 8
    ((name, why),) = skipped
    assert name == "a.jsonl:3"
    assert why.startswith("a.jsonl:3: its first answer begins after ")


ANSWER = {"role": "assistant", "content": "b"}
