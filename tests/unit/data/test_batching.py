"""Steps and micro-batches: every example once, equally many parts per process, no part above its budget."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.batching import Plan, epoch_steps, shares, steps_per_epoch

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 20), st.sampled_from([None, 1, 100, 1000]), st.booleans())
def test_a_step_is_shared_out_whole(
    lengths: list[int], processes: int, micro_batch: int, tokens: int | None, ragged: bool
) -> None:
    step = np.random.default_rng(len(lengths)).permutation(len(lengths))
    shared = shares(step, micro_batch, processes, lengths if ragged else None, tokens)
    parts = [part for share in shared for part in share]
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert len({len(share) for share in shared}) == 1, "processes would wait for one another"
    assert max(map(len, parts)) <= micro_batch
    if ragged and tokens is not None:
        assert all(len(part) == 1 or len(part) * max(lengths[i] for i in part) <= tokens for part in parts if len(part))


@given(LENGTHS, st.integers(1, 8), st.integers(0, 3))
def test_an_epoch_holds_every_example_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    for known in (None, lengths):
        steps = epoch_steps(len(lengths), batch_size, 0, epoch, known)
        assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
        assert all(
            np.array_equal(a, b)
            for a, b in zip(steps, epoch_steps(len(lengths), batch_size, 0, epoch, known), strict=True)
        )


@given(st.integers(2, 80), st.integers(2, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_no_share_of_one(n: int, batch_size: int, micro_batch: int, processes: int, epoch: int, ragged: bool) -> None:
    """For a model that compares rows. A step without such a part stays as it is, to the last row."""
    lengths = list(range(1, n + 1)) if ragged else None
    plain = epoch_steps(n, batch_size, 0, epoch, lengths)
    steps = epoch_steps(n, batch_size, 0, epoch, lengths, least=2)
    assert sorted(i for step in steps for i in step) == list(range(n))
    assert len(steps) == steps_per_epoch(n, batch_size, 2)
    assert min(map(len, steps)) >= 2
    assert max(map(len, steps)) <= max(batch_size, 3)
    if min(map(len, plain)) > 1:
        assert [list(step) for step in steps] == [list(step) for step in plain]
    for step in steps:
        before = [[list(p) for p in share] for share in shares(step, micro_batch, processes, lengths)]
        after = [[list(p) for p in share] for share in shares(step, micro_batch, processes, lengths, least=2)]
        parts = [part for share in after for part in share]
        assert sorted(i for part in parts for i in part) == sorted(step)
        assert all(len(part) != 1 for part in parts)
        assert len({len(share) for share in after}) == 1, "processes would wait for one another"
        assert max(map(len, parts)) <= max(micro_batch + 1, 3)
        if all(len(part) != 1 for share in before for part in share):
            assert after == before


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(33, 32, [17, 16]), (65, 32, [32, 17, 16]), (5, 2, [2, 3]), (3, 2, [3]), (64, 32, [32, 32]), (1, 8, [1])],
)
def test_the_step_before_shares_with_a_lone_row(n: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(step) for step in epoch_steps(n, batch_size, 0, 0, least=2)] == sizes
    assert Plan(n, batch_size, batch_size, 0, 0, 1, least=2).steps_per_epoch == len(sizes)


def test_little_is_padded() -> None:
    """Lengths like those of SQuAD's windows, in steps of 12, with the budget of a CPU.

    At most 5 % of the tokens are padding.
    """
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(9, 19, 5000).astype(int), 40, 384)
    padded, real = 0, 0
    for step in epoch_steps(len(lengths), 12, 0, 0, lengths):
        for (part,) in zip(*shares(step, 12, 1, lengths, 1536), strict=True):
            padded += len(part) * lengths[part].max()
            real += lengths[part].sum()
    assert real == lengths.sum()
    assert 1 - real / padded < 0.05


def test_loader_processes_ignore_signals_from_their_first_moment() -> None:
    """A signal to the whole group may reach a loader process before it has run a line of its own."""
    code = """
import os, signal
from pipelines.data import batching

class Numbers:
    def __getitem__(self, key):
        return key

def signals():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)

os.register_at_fork(after_in_child=signals)
found = list(batching.loader(Numbers(), range(6), workers=2))
assert found == [0, 1, 2, 3, 4, 5], found
assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "the main process answers signals"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
