"""Generate text from a causal language model, token by token, with a cache of keys and values."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.utils.distributed import all_ended

if TYPE_CHECKING:
    from torch import Tensor


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: set[int],
    most: int,
    *,
    limit: int,
    pad: int = 0,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] = (),
) -> Iterator[list[int | None]]:
    """Yield the next token of each prompt, up to `most` times; None for a row that has ended.

    A row ends with a token of `ends`, which is not yielded, or when prompt and answer have `limit` tokens, the most
    that the model can read. Temperature 0 takes the most probable token. A higher temperature samples from the smallest
    set of tokens with a total probability of at least `top_p` (Holtzman et al. 2020, arXiv:1904.09751). Each row draws
    with its own one of `seeds`, so its text does not depend on the other rows; by default all have the seed 0.
    """
    import torch

    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    generators = [torch.Generator(device="cpu").manual_seed(seed) for seed in seeds or [0] * len(prompts)]
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    sizes = torch.tensor([len(p) for p in prompts])
    kept = None
    for number in range(most):
        places = (mask.cumsum(-1) - 1).clamp(0, limit - 1)[:, -ids.shape[1] :]
        with torch.no_grad():
            found = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=kept,
                use_cache=True,
                logits_to_keep=1,
            )
        kept = found.past_key_values
        chosen = _choose(found.logits[:, -1].float().cpu(), temperature, top_p, generators)
        ended |= torch.tensor([token in ends for token in chosen.tolist()]) | (sizes + number >= limit)
        yield [None if over else token for token, over in zip(chosen.tolist(), ended.tolist(), strict=True)]
        if all_ended(bool(ended.all()), device):
            return
        ids = chosen.masked_fill(ended, pad)[:, None].to(device)
        mask = torch.cat([mask, torch.ones_like(ids)], 1)


def continuations(
    model: Any, prompts: Sequence[Sequence[int]], ends: set[int], most: int, *, limit: int, pad: int = 0
) -> list[list[int]]:
    """The most probable continuation of each prompt by greedy decoding: at most `most` tokens, up to its end."""
    found: list[list[int]] = [[] for _ in prompts]
    for tokens in decode(model, prompts, ends, most, limit=limit, pad=pad):
        for row, token in zip(found, tokens, strict=True):
            if token is not None:
                row.append(token)
    return found


def _choose(logits: "Tensor", temperature: float, top_p: float, generators: Sequence[Any]) -> "Tensor":
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    ranked[ranked.cumsum(-1) - ranked >= top_p] = 0.0
    drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(ranked, generators, strict=True)]
    return order.gather(-1, torch.stack(drawn))[:, 0]
