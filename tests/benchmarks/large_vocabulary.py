"""Peak memory of the loss over a large vocabulary: `python -m tests.benchmarks.large_vocabulary`.

A small Llama from random weights takes a forward and a backward pass over 2,048 tokens with a vocabulary of 150,000.
The plain loss scores all tokens at once. Each way runs in a process of its own, so that the peaks do not mix. Memory is
what a pass takes above the memory of libraries, weights and a first small pass. The gradients of both are compared.
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.losses.language_modelling import Head, at_targets, head_of

IGNORED = -100
WAYS = {"plain": "plain cross-entropy", "parts": "in parts, as Graft trains"}


def passed(model: Any, head: Head | None, tokens: int) -> torch.Tensor:
    """The mean loss of a pass over `tokens` tokens; the gradients stay in the model."""
    torch.manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (1, tokens + 1))
    (found,) = at_targets(model, head, {"input_ids": ids[:, :-1]}, ids[:, 1:], IGNORED, tokens)
    loss = found.sum() / tokens
    loss.backward()
    return loss.detach()


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(way: str, vocabulary: int, tokens: int, hidden: int, out: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes)).train()
    head = None if way == "plain" else head_of(model, {"input_ids": torch.tensor([[3, 4, 5]])})
    passed(model, head, 16)  # gradients exist from here on
    model.zero_grad(set_to_none=False)
    before, began = peak(), time.perf_counter()
    loss = passed(model, head, tokens)
    seconds, taken = time.perf_counter() - began, peak() - before
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.save({"loss": loss, "peak": taken, "seconds": seconds, "gradients": gradients}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.way:
        measure(given.way, given.vocabulary, given.tokens, given.hidden, given.out)
        return
    sizes = [str(part) for key in ("vocabulary", "tokens", "hidden") for part in (f"--{key}", getattr(given, key))]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            out = Path(folder) / way
            command = [sys.executable, "-m", "tests.benchmarks.large_vocabulary", *sizes]
            subprocess.run([*command, "--way", way, "--out", str(out)], check=True)
            found[way] = torch.load(out, mmap=True)
        plain, parts = found["plain"], found["parts"]
        differ = max(
            float((parts["gradients"][name] - value).abs().max() / value.abs().max())
            for name, value in plain["gradients"].items()
        )
        loss = abs(float(parts["loss"] - plain["loss"])) / float(plain["loss"])
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, torch {torch.__version__}: "
            f"{given.tokens:,} tokens, vocabulary {given.vocabulary:,}, hidden size {given.hidden}, float32\n"
        )
        print("| loss | peak memory, MB | ratio | seconds |\n|---|---|---|---|")
        for way, what in WAYS.items():
            one = found[way]
            print(f"| {what} | {one['peak']:.0f} | {one['peak'] / plain['peak']:.2f} | {one['seconds']:.1f} |")
        print(f"\nrelative difference of the losses {loss:.1e}; of the gradients, at most {differ:.1e} of the largest")


if __name__ == "__main__":
    main()
