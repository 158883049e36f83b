"""The vocabulary of a CTC model: the characters of the training transcripts, or the model's own tokenizer."""

import json
import logging
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, ModelError
from pipelines.models.pretrained import called, first_line

log = logging.getLogger("graft")

CASES: dict[str, Callable[[str], str]] = {"keep": str, "lower": str.lower, "upper": str.upper}
MOST = 10_000  # characters; an alphabet has fewer


def made(texts: Iterable[str]) -> Any:
    """A tokenizer with every character of these transcripts, in the order of their code points. Raises DataError."""
    from transformers import Wav2Vec2CTCTokenizer

    letters = sorted(set().union(*texts) - {" ", "|"})
    if not letters:
        raise DataError(
            "the transcripts of train hold no character to learn: look at their column, and at options.ignore"
        )
    if len(letters) > MOST:
        raise DataError(
            f"the transcripts of train hold {len(letters):,} different characters, at most {MOST:,} are learned"
        )
    tokens = {token: number for number, token in enumerate(["<pad>", "<unk>", "|", *letters])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(str(path), bos_token=None, eos_token=None)


def read(folder: Path | None) -> Any:
    """The CTC tokenizer of a model folder. Raises ModelError if it has none or it cannot be read."""
    from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer

    if folder is None or not (folder / "vocab.json").is_file():
        raise ModelError(
            f"{called(folder)}: no vocabulary here (vocab.json): copy it, or let options.vocabulary=data build one"
        )
    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its vocabulary cannot be read: {first_line(error)}") from error
    if not isinstance(found, Wav2Vec2CTCTokenizer):
        raise ModelError(
            f"{called(folder)}: its tokenizer ({type(found).__name__}) does not spell letters: "
            "take options.vocabulary=data"
        )
    return found


def own_case(tokenizer: Any) -> str:
    """The case of a vocabulary's letters, `lower` or `upper`; `keep` if it has both or neither."""
    letters = [token for token in tokenizer.get_vocab() if len(token) == 1]
    lower, upper = any(letter.islower() for letter in letters), any(letter.isupper() for letter in letters)
    if tokenizer.do_lower_case:
        return "keep"  # the tokenizer changes the case itself
    return "keep" if lower == upper else "lower" if lower else "upper"


def spelled(text: str, case: str, ignore: str) -> str:
    """A transcript as it is learned: NFC, in the given case, without characters of `ignore`, single spaces."""
    text = unicodedata.normalize("NFC", text)
    return " ".join(CASES[case](text).translate(dict.fromkeys(map(ord, ignore))).split())


class Speller:
    """Turn a transcript into token ids [tokens].

    Characters that are not in the vocabulary are dropped and counted in `strange`. A word of only such characters is
    dropped as well.
    """

    def __init__(self, tokenizer: Any, case: str, ignore: str) -> None:
        self.tokenizer, self.case, self.ignore = tokenizer, case, ignore
        self.strange: Counter[str] = Counter()
        self.words: dict[str, tuple[list[int], list[str]]] = {}  # word -> its tokens, and its unknown characters
        # A transcript may contain "|" or "<pad>". As tokens they would end a word or act as the blank.
        self.reserved = {*tokenizer.all_special_ids, tokenizer.word_delimiter_token_id}
        self.between = (
            [tokenizer.word_delimiter_token_id] if tokenizer.word_delimiter_token in tokenizer.encoder else []
        )

    def __call__(self, text: str) -> list[int]:
        target: list[int] = []
        for word in spelled(text, self.case, self.ignore).split():
            if word not in self.words:
                self.words[word] = self._spell(word)
            tokens, unknown = self.words[word]
            self.strange.update(unknown)
            if tokens:
                target += [*(self.between if target else ()), *tokens]
        return target

    def _spell(self, word: str) -> tuple[list[int], list[str]]:
        """The tokens of a word, and its characters that have none.

        If some are unknown, the decomposed form (NFD) is tried: a vocabulary may list accents as characters of their
        own.
        """
        found, decomposed = self._spell_as(word), unicodedata.normalize("NFD", word)
        if found[1] and decomposed != word:
            other = self._spell_as(decomposed)
            return found if other[1] else other
        return found

    def _spell_as(self, word: str) -> tuple[list[int], list[str]]:
        found = self.tokenizer(word, split_special_tokens=True).input_ids
        tokens = [token for token in found if token not in self.reserved]
        unknown = (
            [c for c in word if self.reserved.intersection(self.tokenizer(c, split_special_tokens=True).input_ids)]
            if len(tokens) < len(found)
            else []
        )
        return tokens, unknown

    def tell(self) -> None:
        """Warn of the characters that were dropped."""
        if self.strange:
            listed = ", ".join(f"{character!r} ({n:,})" for character, n in self.strange.most_common(8))
            log.warning(
                "characters that the vocabulary lacks, which the model never writes, so that they count as errors: "
                "%s%s; options.case, options.ignore and options.normaliser decide about them",
                listed,
                f" and {len(self.strange) - 8} more" if len(self.strange) > 8 else "",
            )
