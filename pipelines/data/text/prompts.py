"""Prompts with names of columns in braces, such as "{context} Question: {question} Answer:", and their answers as
tokens.
"""

from collections.abc import Sequence
from string import Formatter
from typing import Any

from pipelines.data.text.packing import IGNORED


def columns(prompt: str) -> tuple[str, ...]:
    """The columns that a prompt names, without duplicates. Raises ValueError for braces without a valid name."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is part of the text is written twice") from None
    if not names or not all(name.isidentifier() for name in names):
        odd = next((name for name in names if name and not name.isidentifier()), None)
        hint = (
            f"; {odd!r} is no such name: take letters, digits and _, and say with data.columns what the data call it"
            if odd
            else ""
        )
        raise ValueError(f'name the columns in braces, such as "{{question}} Answer:"{hint}')
    return tuple(dict.fromkeys(names))


def encoded(words: Any, prompts: Sequence[str], answers: Sequence[Sequence[str]], window: int) -> dict[str, list[Any]]:
    """Encode prompts, each with its first answer and the end-of-text token; `words` is the tokenizer.

    `labels` are the tokens to predict: those of the answer and the end. `prompt` is the number of tokens before them.
    An example with more than `window` tokens cannot be used, and `wrong` holds the reason.
    """
    tokens = words(
        [f"{p} {a[0]}" if a else p for p, a in zip(prompts, answers, strict=True)], return_offsets_mapping=True
    )
    examples: dict[str, list[Any]] = {key: [] for key in ("length", "input_ids", "labels", "prompt", "wrong")}
    for prompt, ids, offsets in zip(prompts, tokens["input_ids"], tokens["offset_mapping"], strict=True):
        ids = ids[:-1] if ids and ids[-1] == words.eos_token_id else ids
        cut = next((i for i, (_, end) in enumerate(offsets[: len(ids)]) if end > len(prompt)), len(ids))
        sequence = [*ids, words.eos_token_id]
        fits = cut >= 1 and len(sequence) <= window
        examples["length"].append(min(len(sequence), window))
        examples["input_ids"].append(sequence[:window])
        examples["labels"].append([IGNORED] * (cut - 1) + sequence[cut:] + [IGNORED] if fits else [IGNORED] * window)
        examples["prompt"].append(cut)
        long = f"prompt and answer have {len(sequence):,} tokens, and {window:,} are read (options.max_length)"
        examples["wrong"].append("" if fits else long if cut else "its prompt holds no word that this model knows")
    return examples
