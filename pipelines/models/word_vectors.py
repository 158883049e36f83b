"""Word vectors from files: GloVe's text (Pennington et al. 2014), and word2vec's text and binary form (Mikolov et al.
2013), all of them also as .gz.

The files are not trusted: sizes have bounds, and only vectors of the vocabulary are kept in memory.
"""

import gzip
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipelines.errors import ModelError
from pipelines.utils.files import problem

log = logging.getLogger("graft")

KEY = "model.config.word_vectors"
MOST_SIZE = 10_000  # numbers of a vector
MOST_WORD = 10_000  # bytes of a word: files of web text hold long addresses
MOST_NUMBER = 64  # bytes of a number as text


def of(config: Any, tokenizer: Any, folder: Path | None) -> dict[int, np.ndarray]:
    """The vectors that `config.word_vectors` holds of a tokenizer's words: token -> float32 [size].

    `folder` is that of the model. Only a recipe may name a file: the configuration of a folder comes from anybody.

    `config.embedding_size` becomes their size. Empty if none are asked for. A word in upper case without a vector has
    that of its lower case, because many files hold no other. Raises ModelError.
    """
    from pipelines.models.classics import usual

    if folder is not None:
        return {}
    path = getattr(config, "word_vectors", None)
    frozen = getattr(config, "freeze_word_vectors", False)
    if path is None:
        if frozen:
            raise ModelError("model.config.freeze_word_vectors: there are no word_vectors to freeze: give their file")
        return {}
    if not isinstance(path, str) or type(frozen) is not bool:
        raise ModelError(f"{KEY} is the path of a file, and freeze_word_vectors true or false")
    if config.tokenizer != "words":
        raise ModelError(f"{KEY}: vectors of words need model.config.tokenizer=words")
    vocabulary = tokenizer.get_vocab()
    wanted = {**{word.lower(): word for word in vocabulary}, **{word: word for word in vocabulary}}
    size, found = read(Path(path).expanduser(), wanted)
    rows = {number: found.get(word, found.get(word.lower())) for word, number in vocabulary.items()}
    kept = {number: row for number, row in rows.items() if row is not None}
    if not kept:
        raise ModelError(
            f"{KEY}: {path} has none of the {len(vocabulary):,} words of the vocabulary: is it another language?"
        )
    name = "embedding_size" if hasattr(config, "embedding_size") else "hidden_size"
    asked = getattr(config, name)
    if asked != size and (name == "hidden_size" or asked != usual(config, name)):
        raise ModelError(
            f"{KEY}: its vectors have {size} numbers, and model.config.{name} is {asked}: set it to {size}"
        )
    setattr(config, name, size)
    log.info("%s of %s words of the vocabulary have a vector", f"{len(kept):,}", f"{len(vocabulary):,}")
    return kept


def put(model: Any, rows: Mapping[int, np.ndarray], *, frozen: bool) -> None:
    """Write vectors into a model's embedding; words without one get random numbers of the same spread."""
    import torch
    from torch import nn

    table = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    values = torch.from_numpy(np.stack(list(rows.values())))
    with torch.no_grad():
        nn.init.normal_(table.weight, std=float(values.std(correction=0)))
        table.weight[list(rows)] = values
    if frozen:
        table.weight.requires_grad_(False)


def read(path: Path, words: Mapping[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
    """The size of the vectors of a file, and those of `words`, float32 [size]. Raises ModelError."""
    if why := problem(str(path)):
        raise ModelError(f"{KEY}: {why}")
    if not path.is_file():
        raise ModelError(f"{KEY}: {path} is no file: give a file of GloVe or word2vec")
    opened = gzip.open if path.suffix == ".gz" else open
    binary = path.name.removesuffix(".gz").endswith(".bin")
    try:
        with opened(path, "rb") as file:
            size, pairs = (_binary if binary else _text)(path, file, words)  # type: ignore[arg-type]
            found: dict[str, np.ndarray] = {}
            for place, word, row in pairs:
                if not np.isfinite(row).all():
                    raise ModelError(f"{place}: the vector of {word[:40]!r} holds a number that is not finite")
                found.setdefault(word, row)
            return size, found
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{KEY}: {path} cannot be read: {error}") from error


Pairs = Iterator[tuple[str, str, np.ndarray]]


def _sizes(path: Path, line: bytes) -> tuple[int, int] | None:
    """Count and size, if a line is the header of a word2vec file. Raises ModelError."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 16 for part in parts):
        return None
    count, size = map(int, parts)
    return count, _checked(path, size)


def _checked(path: Path, size: int) -> int:
    if not 1 <= size <= MOST_SIZE:
        raise ModelError(f"{path}:1: vectors of {size:,} numbers, must be 1 to {MOST_SIZE:,}: is it a file of vectors?")
    return size


def _text(path: Path, file: IO[bytes], words: Mapping[str, Any]) -> tuple[int, Pairs]:
    first = file.readline(MOST_WORD + MOST_SIZE * MOST_NUMBER)
    if not first.strip():
        raise ModelError(f"{path}: no vectors here")
    if head := _sizes(path, first):
        return head[1], _lines(path, file, 1, head[1], head[0], words)
    size = _checked(path, len(first.split()) - 1)
    file.seek(0)
    return size, _lines(path, file, 0, size, None, words)


def _lines(path: Path, file: IO[bytes], before: int, size: int, count: int | None, words: Mapping[str, Any]) -> Pairs:
    most, lines = MOST_WORD + size * MOST_NUMBER, 0
    while line := file.readline(most + 1):
        lines += 1
        place = f"{path}:{before + lines}"
        if len(line) > most:
            raise ModelError(f"{place}: a line of more than {most:,} bytes: is it a file of vectors?")
        parts = line.rsplit(None, size)  # by spaces or tabs, as the first line; a word may hold spaces
        if len(parts) != size + 1 or not parts[0]:
            raise ModelError(
                f"{place}: a word and {size} numbers must be here, and {len(line.split()) - 1} numbers are"
            )
        try:
            word = parts[0].decode()
        except UnicodeDecodeError:
            raise ModelError(f"{place}: the word is not UTF-8: {parts[0][:40]!r}") from None
        if word not in words:
            continue
        try:
            values = [float(part) for part in parts[1:]]
        except ValueError as error:
            raise ModelError(f"{place}: the vector of {word[:40]!r}: {error}") from None
        with np.errstate(over="ignore"):  # what is too large for float32 is not finite, and told
            yield place, word, np.array(values, np.float32)
    if count is not None and lines != count:
        raise ModelError(f"{path}: its first line promises {count:,} vectors, and {lines:,} are here: copy it again")


def _binary(path: Path, file: IO[bytes], words: Mapping[str, Any]) -> tuple[int, Pairs]:
    head = _sizes(path, file.readline(64))
    if head is None:
        raise ModelError(f"{path}: a .bin of word2vec begins with two numbers, this one does not")
    return head[1], _vectors(path, file, *head, words)


def _vectors(path: Path, file: IO[bytes], count: int, size: int, words: Mapping[str, Any]) -> Pairs:
    for number in range(1, count + 1):
        place = f"{path}: vector {number:,} of {count:,}"
        name = bytearray()
        while (letter := file.read(1)) not in (b" ", b""):
            name += letter
            if len(name) > MOST_WORD:
                raise ModelError(f"{place}: a word of more than {MOST_WORD:,} bytes: is it a file of word2vec?")
        data = file.read(4 * size)
        if len(data) < 4 * size:
            raise ModelError(f"{place}: the file ends here: copy it again")
        word = bytes(name).lstrip(b"\n").decode(errors="replace")
        if word in words:
            yield place, word, np.frombuffer(data, "<f4").copy()
    if file.read(2).strip():
        raise ModelError(f"{path}: more follows after {count:,} vectors of {size} numbers: copy it again")
