"""Cached features of texts, which differ in length: the losses equal those of a run without a cache."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import validate
from pipelines.training.feature_cache import store
from pipelines.training.feature_cache.hooks import ragged_dims
from pipelines.training.feature_cache.ragged import Ragged, without_padding
from pipelines.training.run import train
from tests.support import tiny_text
from tests.support.runs import losses, one_thread, outcome, without_pictures  # noqa: F401 (one_thread is a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")

WIDE = {"initializer_range": 0.2}  # so that the head can learn
CLASSIFY = ("text-classification", "labelled", {"max_length": 40})
ANSWER = ("question-answering", "squad", {"max_length": 48, "stride": 8, "max_question_length": 12})


def other(folder: Path, kind: str) -> Path:
    """A model of another kind, whose head has dropout."""
    import transformers

    words = tiny_text.tokenizer(folder)
    shape = {
        "hidden_size": 32,
        "embedding_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        max_position_embeddings=130,
        initializer_range=0.2,
        **shape,
    )
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


CASES: dict[str, tuple[Callable[[Path], Path], tuple[str, str, dict], dict[str, Any]]] = {
    "pooled": (lambda f: tiny_text.bert(f, "BertForSequenceClassification", **WIDE), CLASSIFY, {"freeze": "backbone"}),
    "dropout": (
        lambda f: tiny_text.bert(f, "BertForSequenceClassification", classifier_dropout=0.3, **WIDE),
        CLASSIFY,
        {"freeze": "backbone"},
    ),
    "first token": (lambda f: tiny_text.distilbert(f, **WIDE), CLASSIFY, {"freeze": "backbone"}),
    "first token inside": (lambda f: other(f, "electra"), CLASSIFY, {"freeze": "backbone"}),
    "no token types": (lambda f: other(f, "roberta"), CLASSIFY, {"freeze": "backbone"}),
    "every token": (lambda f: tiny_text.bert(f, **WIDE), ANSWER, {"freeze": "backbone"}),
    "half of the trunk": (
        lambda f: tiny_text.bert(f, "BertForSequenceClassification", **WIDE),
        CLASSIFY,
        {"freeze": 1},
    ),
    "last token": (tiny_text.gpt, CLASSIFY, {"freeze": "backbone"}),
}
RAGGED = {"every token": [1], "half of the trunk": [1], "last token": [1]}  # the others: none


class Bench:
    """Runs of one case, with their own feature cache. `seen` holds the caches that they trained on."""

    def __init__(self, folder: Path, case: str) -> None:
        make, (task, data, options), frozen = CASES[case]
        self.folder, self.seen = folder, []
        self.raw: dict[str, Any] = {
            "task": task,
            "model": {"id": str(make(folder / "model")), **frozen},
            "data": {
                "id": str(getattr(tiny_text, data)(folder / "data", n=30 if data == "labelled" else 4)),
                "workers": 0,
            },
            "options": options,
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32", "log_every": 1},
        }

    def __call__(self, name: str, **data: Any) -> Path:
        with without_pictures():
            train(validate({**self.raw, "data": {**self.raw["data"], **data}}), self.folder / name, name="small")
        return self.folder / name


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bench]:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    seen: list[Any] = []
    real = store.record

    def record(*args: Any, **kwargs: Any) -> Any:
        seen.append(real(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(store, "record", record)

    def make(case: str) -> Bench:
        made = Bench(tmp_path, case)
        made.seen = seen
        return made

    return make


@pytest.mark.parametrize("case", CASES)
def test_cached_equals_uncached(case: str, bench: Callable[[str], Bench]) -> None:
    run = bench(case)
    plain = run("plain", cache_gb=0)
    assert run.seen == []
    cached = run("cached")
    assert [c is not None for c in run.seen] == [True, True]
    assert sorted(run.seen[0].plan.ragged.values()) == RAGGED.get(case, [])
    assert losses(cached) == pytest.approx(losses(plain), abs=1e-5)
    assert len(losses(cached)) >= 9
    assert losses(plain)[0] != losses(plain)[-1]
    predicted = [
        [json.loads(line) for line in (r / "predictions" / "test.jsonl").read_text().splitlines()]
        for r in (plain, cached)
    ]
    assert [r["predicted"] for r in predicted[0]] == [r["predicted"] for r in predicted[1]]
    before = {p: p.stat().st_mtime_ns for p in (run.folder / "cache").rglob("*.bin")}
    assert outcome(run("read")) == outcome(cached)
    assert {p: p.stat().st_mtime_ns for p in (run.folder / "cache").rglob("*.bin")} == before


@pytest.mark.parametrize("case", ["pooled", "every token"])
@pytest.mark.parametrize("damage", ["zeros", "cut", "half", "no rows", "other rows"])
def test_a_damaged_cache_is_made_again(case: str, damage: str, bench: Callable[[str], Bench]) -> None:
    run = bench(case)
    wanted = outcome(run("first"))
    for folder in (run.folder / "cache" / "features").iterdir():
        file = folder / ("rows.json" if "rows" in damage else "feature_0.bin")
        content = file.read_bytes()
        few = json.dumps({"plain": json.loads((folder / "rows.json").read_text())["plain"][:-1], "why": {}}).encode()
        spoiled = {
            "zeros": b"\0" * len(content),
            "cut": b"",
            "half": content[: len(content) // 2],
            "no rows": b"",
            "other rows": few,
        }
        file.write_bytes(spoiled[damage])
    assert outcome(run("second")) == wanted


def test_nothing_ragged_is_stored_where_one_vector_will_do(bench: Callable[[str], Bench]) -> None:
    run = bench("pooled")
    run("cached")
    cached = run.seen[0]
    assert not cached.ragged
    assert set(cached.plan.absent) == {"input_ids", "attention_mask"}
    assert [value.shape[1:] for value in cached.features] == [(32,)]
    assert not cached.plan.anew
    micro = cached[[(None, 0), (None, 4)]]
    longest = int(cached.plan.lengths[[0, 4]].max())
    for value in [*micro.batch["features"], *(v for v in micro.batch.values() if torch.is_tensor(v))]:
        torch.empty_strided(value.shape, value.stride()).copy_(value)  # what pinning does, which needs a GPU
    cached.feed(micro.batch)
    assert micro.batch["input_ids"].shape == (2, longest)  # a placeholder as wide as the text would be
    assert micro.batch["input_ids"].untyped_storage().nbytes() == 8


def test_words_that_something_reads_are_kept(bench: Callable[[str], Bench]) -> None:
    """The loss masks the padding of a passage. Every prediction needs the positions of its words."""
    run = bench("every token")
    run("cached")
    cached = run.seen[0]
    assert {"attention_mask", "offsets"} <= {*cached.plan.anew} | {"offsets"}
    assert "input_ids" in cached.plan.absent
    keys = [(None, i) for i in range(5)]
    real, replayed = cached.examples[keys].batch, cached[keys].batch
    assert torch.equal(real["attention_mask"], replayed["attention_mask"])
    assert real["offsets"] == [[list(pair) for pair in line] for line in replayed["offsets"]]


def test_ragged_tensors_come_back_padded_with_zeros() -> None:
    lengths = np.array([2, 5, 1, 3])
    for dim, shape in ((1, (5, 4)), (2, (4, 5)), (3, (2, 3, 5))):
        batch = torch.randn(4, *shape)
        small = [n if d + 1 != dim else 0 for d, n in enumerate(shape)]
        kept = Ragged(torch.full((int(lengths.sum()), *[n for n in small if n]), torch.nan), lengths, dim)
        kept.put([0, 1], batch[:2])
        kept.put([2, 3], batch[2:])
        wanted = without_padding(batch, lengths.tolist(), dim)
        assert torch.equal(kept.take([0, 1, 2, 3]), wanted)
        assert torch.equal(kept.take([3, 0]), wanted[[3, 0]].movedim(dim, 1)[:, :3].movedim(1, dim))
        assert wanted.count_nonzero() == lengths.sum() * batch[0].numel() // 5


def test_what_is_ragged_is_seen_by_two_batches() -> None:
    assert ragged_dims((9, 32), (5, 32), (9, 5)) == [0]
    assert ragged_dims((2, 9, 9), (2, 5, 5), (9, 5)) == [1, 2]
    assert ragged_dims((32,), (32,), (9, 5)) == []
    assert ragged_dims((10, 32), (6, 32), (9, 5)) is None
    assert ragged_dims((9,), (5, 1), (9, 5)) is None
