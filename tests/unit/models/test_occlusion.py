"""The words that decide: those that a model with known weights of words relies on."""

from typing import Any

import torch
from torch import nn

from pipelines.models.occlusion import Region, deciding_words, hide, regions

WORDS = {"[PAD]": 0.0, "good": 3.0, "bad": -2.0, "a": 0.0, "film": 0.1, "very": 0.5, "…": 0.0}


class Sum(nn.Module):
    """The score of a text is the sum of fixed weights of its words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor([[w, 1.0] for w in WORDS.values()]), freeze=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids)[..., 0].sum(1)


def encode(texts: Any) -> dict[str, Any]:
    rows = [[list(WORDS).index(word) for text in one for word in text.split()] for one in texts]
    longest = max(map(len, rows))
    return {"ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows])}


def decided(texts: tuple[str, ...], tokens: int = 1000) -> list[tuple[str, float]]:
    model = Sum()
    found = regions(texts, [len(text) for text in texts], most=10_000)
    places = [tuple(place) for place in found]
    drops = deciding_words(model, encode, lambda batch: model(batch["ids"]), texts, places, tokens)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    return [(texts[word.text][word.start : word.end], round(drop, 3)) for word, drop in drops]


def test_the_strongest_words_come_first_with_their_sign() -> None:
    assert decided(("a very good bad film",))[:3] == [("good", 3.0), ("bad", -2.0), ("very", 0.5)]
    assert decided(("a film", "very good"))[0] == ("good", 3.0)


def test_a_long_text_costs_no_more() -> None:
    text = "a film " * 500 + "good"
    found = decided((text,), tokens=1)
    assert len(found) == 4
    assert found[0] == ("good", 3.0)


def test_a_text_of_one_word_has_nothing_to_compare_with() -> None:
    assert decided(("good",)) == []


def test_a_model_without_an_embedding_of_tokens_has_no_words() -> None:
    model = nn.Linear(1, 1)
    places = [(0, 0, 4), (0, 5, 9)]
    score = lambda batch: model(batch["ids"][..., :1].float())[:, 0]  # noqa: E731
    found = deciding_words(model, encode, score, ("very good",), places, 9)
    assert found == []


def test_hidden_words_leave_a_text() -> None:
    assert hide(("good", "a film"), Region(0, 0, 4)) == ("…", "a film")
    assert hide(("good", "a film"), Region(1, 0, 1)) == ("good", " film")
