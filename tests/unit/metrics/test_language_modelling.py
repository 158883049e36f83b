"""The wrong token of which a language model was surest."""

import pytest
import torch
from datasets import Dataset

from pipelines.metrics import language_modelling


def test_the_surest_wrong_token_needs_no_second_softmax() -> None:
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    wanted = torch.arange(40) % 9
    nats = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    sure, token = language_modelling.surest_wrong(logits, wanted, nats)
    best = logits.softmax(-1).max(-1)
    assert torch.equal(token, best.indices)
    right = token == wanted
    assert 0 < int(right.sum()) < 40
    assert sure[right].abs().sum() == 0
    assert sure[~right].tolist() == pytest.approx(best.values[~right].tolist(), abs=1e-6)


def test_a_row_keeps_the_surest_of_its_blocks() -> None:
    rows = Dataset.from_dict({"id": ["a", "b"], "text": ["x", "y"]})
    weak, strong = ({"row": 0, "sure": sure} for sure in (0.2, 0.9))
    blocks = [{"parts": [[0, 1.0, 1], [1, 2.0, 1]], "surest": weak}, {"parts": [[0, 1.0, 1]], "surest": strong}]
    found = language_modelling.rows_of(blocks, rows)
    assert [row.get("surest") for row in found] == [strong, None]
    windows = [{"row": 1, "nll": 1.0, "tokens": 1, "top_1": 0, "top_5": 1, "surest": one} for one in (None, weak)]
    assert language_modelling.masked_rows(windows, rows)[0]["surest"] == weak
