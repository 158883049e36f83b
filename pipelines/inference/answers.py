"""Answers of a model as lines, as rows of a table, and as a file (`graft predict --out`).

An answer has one of these forms, which the tasks' `infer` return: classes with scores, a number ({"value"}), an answer
from a passage, a transcript ({"text"}), tokens for masks, a text, or a file that was made with its settings.
"""

import contextlib
import csv
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pipelines.errors import DataError, RunError
from pipelines.utils.files import to_json
from pipelines.utils.formatting import printable

LIKELY = 0.5  # score from which a label counts, if a row may have several labels
FORMATS = (".csv", ".jsonl")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins so


def labels(output: Any, several: bool) -> list[str]:
    """The labels that an answer decides for: the best one, or, if a row may have several, all that are likely.

    Empty if the answer is no ranking of classes.
    """
    if not _is_ranking(output):
        return []
    return [one["label"] for one in output if one["score"] >= LIKELY] if several else [output[0]["label"]]


def _is_ranking(output: Any) -> bool:
    return isinstance(output, list) and bool(output) and isinstance(output[0], dict) and "label" in output[0]


# ---- on the screen ----


def line(name: str, columns: Mapping[str, Any], output: Any) -> str:
    """An answer as a line for people. Control characters of texts and labels are replaced."""
    return printable(_line(name, columns, output), keep="\n\t")


def _line(name: str, columns: Mapping[str, Any], output: Any) -> str:
    if _is_ranking(output):
        return f"{name}: {', '.join('{label} {score:.3f}'.format_map(one) for one in output)}"
    if isinstance(output, list):
        masks = [", ".join("{token} {score:.3f}".format_map(one) for one in mask) for mask in output]
        return f"{name}: {' | '.join(masks)}"
    if isinstance(output, str):  # a text that goes on from the input, or the answer to a prompt with several columns
        seed = f"  (seed {columns['seed']})" if "seed" in columns else ""
        return (f"{name}{output}" if columns.get("text") == name else f"{name}: {output}") + seed
    if "value" in output:
        return f"{name}: {output['value']:.4g}"
    if "answer" in output:
        return f"{output['answer'] or 'no answer'}  ({output['score']:.2f})  {columns['question']}"
    if "text" in output:
        return f"{name}: {output['text'] or '(no words)'}"
    made, *settings = output.items()
    return f"{made[1]}: {', '.join(f'{key} {value}' for key, value in settings)}"


def totals(counts: Mapping[str, int]) -> str:
    """{"dog": 19, "cat": 31} -> cat 31, dog 19."""
    return printable(", ".join(f"{label} {count:,}" for label, count in Counter(counts).most_common()), keep="\n\t")


# ---- in a file ----


def row(name: str, columns: Mapping[str, Any], output: Any, several: bool) -> dict[str, Any]:
    """An answer as one record. Its plain values are the columns of a table; `scores` and other details are nested."""
    start: dict[str, Any] = {"input": name}
    if _is_ranking(output):
        scores = {one["label"]: one["score"] for one in output}
        if several:
            return {**start, "labels": labels(output, True), "scores": scores}
        return {**start, "label": output[0]["label"], "score": output[0]["score"], "scores": scores}
    if isinstance(output, list):
        best = [mask[0] for mask in output]
        return {**start, "tokens": [b["token"] for b in best], "scores": [b["score"] for b in best], "masks": output}
    if isinstance(output, str):
        drawn = {key: columns[key] for key in ("seed", "temperature", "top_p") if key in columns}
        return {**start, "text": output, **drawn}
    return {**start, **({"question": columns["question"]} if "answer" in output else {}), **output}


class AnswerFile:
    """A file that answers are written to, one by one: lines of JSON, or a csv table with the plain values.

    The first answer decides the columns of a table.
    """

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.file = path, file
        self.names: list[str] = []

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one answer. Raises RunError if the disk refuses."""
        try:
            if self.path.suffix.lower() == ".jsonl":
                self.file.write(to_json(record) + "\n")
            else:
                self._row(record)
        except OSError as error:
            raise _refused(self.path, error) from None

    def _row(self, record: Mapping[str, Any]) -> None:
        # lists of words are joined; what is nested (scores of all classes, words with their times) is for jsonl
        plain = {
            key: " | ".join(map(str, value)) if isinstance(value, list) else value
            for key, value in record.items()
            if not isinstance(value, dict)
            and not (isinstance(value, list) and any(isinstance(one, dict | list) for one in value))
        }
        writer = csv.writer(self.file)
        if not self.names:
            self.names = list(plain)
            writer.writerow(self.names)
        writer.writerow([_cell(plain.get(name)) for name in self.names])


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: such a text gets an apostrophe in front. Numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def check_file(path: Path) -> None:
    """Raise DataError if answers cannot be written to a file of this name."""
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"--out {path}: give a file that ends in {' or '.join(FORMATS)}")
    if path.is_dir():
        raise DataError(f"--out {path}: this is a folder: give the name of a file")


@contextlib.contextmanager
def answer_file(path: Path) -> Iterator[AnswerFile]:
    """A file for answers. It appears when all are written; after an error the old file is as it was.

    Raises DataError for another suffix than .csv or .jsonl, RunError if the disk refuses.
    """
    check_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        raise _refused(path, error) from None
    file = os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="")
    try:
        yield AnswerFile(path, file)
        try:
            file.close()
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except OSError as error:
            raise _refused(path, error) from None
    finally:
        with contextlib.suppress(OSError):  # a full disk refuses to close, too, and that was raised already
            file.close()
        Path(temporary).unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be written: {error.strerror or error}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
