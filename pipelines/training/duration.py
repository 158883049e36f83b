"""How long a training takes on this machine, from the time of its forward passes.

A training step on an example costs about three forward passes: one forward, and a backward pass that costs two
(Kaplan et al. 2020, Scaling Laws for Neural Language Models, section 2.1). If only the head trains and nothing random
comes before it, the trunk runs once over each example, and later epochs cost next to nothing.
"""

import time

BACKWARD = 2.0  # forward passes
HEAD = 0.02  # the head's share of a forward pass, where the trunk's outputs are stored


class Stopwatch:
    """Measures the seconds per example over batches. The first batch is left out if there are others: it is slow."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first: tuple[int, float] | None = None
        self.examples, self.seconds = 0, 0.0

    def tick(self, examples: int) -> None:
        """Note that a batch of this size is done."""
        if self.first is None:
            self.first = (examples, time.perf_counter() - self.began)
        else:
            self.examples += examples
            self.seconds = time.perf_counter() - self.began - self.first[1]

    def per_example(self) -> float | None:
        """Seconds per example; None before the first batch."""
        if self.first is None:
            return None
        return self.seconds / self.examples if self.examples else self.first[1] / max(1, self.first[0])


def seconds(
    forward: float, rows: int, validation_rows: int, examples: float, evaluations: int, *, only_head: bool, stored: bool
) -> float:
    """The expected seconds of a training that shows `examples` examples, if a forward pass of one takes `forward`.

    `stored`: the outputs of the frozen trunk are computed once and stored.
    """
    if only_head and stored:
        return forward * (rows + validation_rows + HEAD * (examples * (1 + BACKWARD) + evaluations * validation_rows))
    return forward * (examples * (1 if only_head else 1 + BACKWARD) + evaluations * validation_rows)


def in_words(expected: float) -> str:
    """30 -> less than a minute; 400 -> about 7 minutes; 9000 -> about 2.5 hours."""
    if expected < 60:
        return "less than a minute"
    if expected < 5400:
        minutes = round(expected / 60)
        return f"about {minutes} minute{'s' * (minutes != 1)}"
    return f"about {expected / 3600:.2g} hours" if expected < 172_800 else f"about {expected / 86_400:.2g} days"


def advice(expected: float, device: str, *, only_head: bool) -> str:
    """What makes a training of hours shorter; empty if it takes less."""
    if expected < 5400 or device != "cpu":
        return ""
    return ": a GPU is many times faster" + ("" if only_head else ", and model.freeze=backbone trains the head alone")
