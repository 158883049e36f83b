"""The words that decide: those that a model with known weights of words relies on."""

from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.models.occlusion import Region, deciding_frames, deciding_words, hide, regions

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


def test_the_frames_that_decide_are_found() -> None:
    """A light is on in frames 5 and 6, and the score is its brightness above the rest."""
    frames = np.full((12, 6, 8, 3), 40, np.uint8)
    frames[5:7, 2:4, 2:4] = 240
    seen: list[int] = []

    def score(clips: Any) -> list[float]:
        seen.append(len(clips))
        return [float(clip.astype(float).max() - clip.astype(float).mean()) for clip in clips]

    before = frames.copy()
    found = deciding_frames(score, frames, 6, batch=4)
    assert [tuple(stretch) for stretch, _ in found] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]
    assert np.array_equal(frames, before)
    assert seen == [1, 4, 2]
    light = deciding_frames(score, frames[:, :, :, :], 4)
    drops = {tuple(stretch): drop for stretch, drop in light}
    assert max(drops, key=lambda stretch: drops[stretch]) == (3, 6) or drops[3, 6] == drops[6, 9]
    frames[:] = 40
    frames[5, 2:4, 2:4] = 240
    drops = {tuple(stretch): drop for stretch, drop in deciding_frames(score, frames, 6)}
    assert drops[4, 6] > 100
    assert all(abs(drop) < 1 for stretch, drop in drops.items() if stretch != (4, 6))
    assert [tuple(stretch) for stretch, _ in deciding_frames(score, frames[:3], 8)] == [(0, 1), (1, 2), (2, 3)]
