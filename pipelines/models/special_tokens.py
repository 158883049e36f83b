"""Special tokens of a tokenizer (<s>, [SEP], <|endoftext|>) that texts contain as characters.

A tokenizer reads them as its tokens, wherever they stand: HTML's <s> would begin a new document, and [SEP] would end a
question. `reader` returns a tokenizer that reads them as ordinary text.
"""

import copy
import json
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.data.text.rows import SpecialTokens
from pipelines.errors import ModelError
from pipelines.models.pretrained import first_line

log = logging.getLogger("graft")

GUARD = "\0"  # no text contains it: data.text.rows.check_characters refuses NUL
MOST_LOOKED_AT = 20_000  # texts that are searched for special tokens


def marks(tokenizer: Any) -> list[str]:
    """The special tokens that a text may contain by chance, and tokens such as <|0.00|>, the longest first.

    Short or plain ones are left out: in some tokenizers "!" or a line break is a special token.
    """
    special = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
    special |= dict.fromkeys(tokenizer.all_special_tokens, True)
    found = [
        text
        for text, is_special in special.items()
        if len(text) >= 3 and not text.isalnum() and (is_special or re.fullmatch(r"<\|.*\|>", text))
    ]
    return sorted(found, key=lambda text: (-len(text), text))


def guarded(text: str, reader: Any, names: Sequence[str]) -> str:
    """A text in which a tokenizer of `reader` reads the special tokens `names` with their meaning."""
    hidden = [name for name in names if reader.backend_tokenizer.token_to_id(GUARD + name) is not None]
    return re.sub("|".join(map(re.escape, hidden)), lambda found: GUARD + found[0], text) if hidden else text


def reader(tokenizer: Any, special_tokens: SpecialTokens) -> Any:
    """The tokenizer for the texts of users. It reads special tokens in a text as text; with `keep` as tokens.

    It is a copy in which every special token has a name that no text contains. Ids are the same. The tokenizer itself
    is the one to save. Raises ModelError if it cannot be copied.
    """
    names = marks(tokenizer)
    if special_tokens == "keep" or not names:
        return tokenizer
    found = copy.copy(tokenizer)
    known = vars(tokenizer)["_special_tokens_map"]  # so that `eos_token_id` and the others stay the same
    vars(found)["_special_tokens_map"] = {
        key: GUARD + str(value) if str(value) in names else value for key, value in known.items()
    }
    try:
        backend = _renamed(json.loads(tokenizer.backend_tokenizer.to_str()), set(names))
        renamed = type(tokenizer.backend_tokenizer).from_str(json.dumps(backend))
        numbers = [renamed.encode(GUARD + name, add_special_tokens=False).ids for name in names]
    except Exception as error:  # the library raises plain exceptions for vocabularies that do not fit
        raise _cannot(first_line(error)) from error
    for name, number in zip(names, numbers, strict=True):
        if tokenizer.convert_tokens_to_ids(name) not in number:
            raise _cannot(f"{name!r} gets another number")
    vars(found)["_tokenizer"] = renamed
    return found


def _cannot(why: str) -> ModelError:
    return ModelError(
        f"this tokenizer cannot read its special tokens as text ({why}): set options.special_tokens=keep, and texts "
        "that contain them are read with their meaning"
    )


def _renamed(backend: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The JSON of a tokenizer in which these tokens begin with GUARD: the added ones, and those of its vocabulary.

    The vocabulary counts, too: a Unigram model would put </s> together from the characters of a text.
    """
    for token in backend["added_tokens"]:
        if token["content"] in names:  # as it is written: a normaliser would remove the guard
            token |= {"content": GUARD + token["content"], "normalized": False}
    model = backend["model"]

    def name(piece: str) -> str:
        return GUARD + piece if piece in names else piece

    if isinstance(model["vocab"], dict):
        model["vocab"] = {name(piece): number for piece, number in model["vocab"].items()}
    else:  # a Unigram model lists pieces with their scores
        model["vocab"] = [[name(piece), score] for piece, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = name(model["unk_token"])
    if "merges" in model:
        pairs = [merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if names.isdisjoint((*pair, "".join(pair)))]
    return backend


def warn(tokenizer: Any, texts: Iterable[Sequence[Any]], special_tokens: SpecialTokens) -> None:
    """Say how many texts of the train split contain special tokens, and how they are read.

    `texts` are the columns with texts. The first 20,000 rows are searched.
    """
    names = marks(tokenizer)
    rows = list(zip(*(column[:MOST_LOOKED_AT] for column in texts), strict=True))
    pattern = re.compile("|".join(map(re.escape, names)))
    found = [{mark for text in row for mark in pattern.findall(text or "")} for row in rows] if names else []
    count = sum(map(bool, found))
    if not count:
        return
    counts = {name: sum(name in some for some in found) for name in names}
    listed = [f"{name!r} in {n:,}" for name, n in sorted(counts.items(), key=lambda pair: -pair[1]) if n]
    some = f"{', '.join(listed[:8])}{f' and {len(listed) - 8} more' if len(listed) > 8 else ''}"
    how = {
        "text": "they are read as text, not as tokens; options.special_tokens=keep reads them as tokens",
        "keep": "options.special_tokens=keep reads them as tokens; those that every text gets are added",
    }
    log.warning(
        "%s of %s texts of train contain special tokens of this model (%s): %s",
        f"{count:,}",
        f"{len(rows):,}",
        some,
        how[special_tokens],
    )
