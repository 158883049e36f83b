"""The expected length of a training: from the time of a forward pass to words."""

import pytest

from pipelines.config.recipe import load_recipe
from pipelines.training import duration
from pipelines.training.trainer import length


def test_the_first_batch_does_not_count_if_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 11.0, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = duration.Stopwatch()
    assert watch.per_example() is None
    watch.tick(4)
    assert watch.per_example() == 2.5
    watch.tick(4)
    watch.tick(2)
    assert watch.per_example() == pytest.approx(3 / 6)


def test_a_step_costs_three_forward_passes_and_a_stored_trunk_one() -> None:
    of = {"rows": 100, "validation_rows": 10, "examples": 500, "evaluations": 5}
    assert duration.seconds(1.0, **of, only_head=False, stored=False) == 500 * 3 + 50
    assert duration.seconds(1.0, **of, only_head=True, stored=False) == 550
    assert duration.seconds(1.0, **of, only_head=True, stored=True) == pytest.approx(110 + 0.02 * (1500 + 50))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "less than a minute"),
        (80, "about 1 minute"),
        (400, "about 7 minutes"),
        (9000, "about 2.5 hours"),
        (400_000, "about 4.6 days"),
    ],
)
def test_words(seconds: float, words: str) -> None:
    assert duration.in_words(seconds) == words


def test_advice_is_for_hours_on_a_cpu() -> None:
    assert duration.advice(400, "cpu", only_head=False) == duration.advice(9000, "cuda", only_head=False) == ""
    assert "model.freeze=backbone" in duration.advice(9000, "cpu", only_head=False)
    assert "freeze" not in duration.advice(9000, "cpu", only_head=True)


def test_the_least_number_of_steps_binds_on_few_rows_only() -> None:
    recipe = load_recipe("texts_minilm_frozen")  # 20 epochs of 32 rows, at least 600 steps
    assert length(recipe, 192, 1) == (600, 6)
    assert length(recipe, 3200, 1) == (2000, 100)
    assert length(load_recipe("texts_minilm_frozen", ["train.epochs=2"]), 192, 1) == (12, 6)
