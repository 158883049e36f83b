"""SQuAD's own JSON files, 1.1 and 2.0, compressed or not: one file, or a folder with train*.json and dev*.json.

dev*.json is the test split.

{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data import compressed
from pipelines.data.files import kind_of
from pipelines.data.formats import table
from pipelines.data.schema import Source
from pipelines.errors import DataError, MissingColumn


def detect(path: Path) -> bool:
    """Whether a file, or one of the files in a folder, is in SQuAD's format."""
    files = _files(path)
    return any(_looks_right(file) for file in files)


def _looks_right(path: Path) -> bool:
    """Whether the file holds one object with SQuAD's keys, and not rows with a column of such a name."""
    try:
        with compressed.opened(path) as file:
            start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    except DataError:
        return True  # reading it will report why
    if not start.startswith(b"{") or not any(key in start[:4000] for key in (b'"data"', b'"paragraphs"', b'"version"')):
        return False
    filled = re.search(rb'"data"\s*:\s*\[\s*[^\s\]]', start) is not None
    if filled and not any(key in start for key in (b'"paragraphs"', b'"qas"', b'"question"', b'"context"')):
        return False  # pandas has such a form for tables, and so have APIs of many sites
    try:
        first = json.loads(start.splitlines()[0])
    except (ValueError, RecursionError):
        return True  # an object over several lines, or a long one
    if not isinstance(first, dict) or "version" in first:
        return True
    return isinstance(first.get("data", first.get("paragraphs")), (list, str))


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else path.iterdir() if path.is_dir() else ()
    named = [file for file in files if compressed.inner(file).suffix == ".json" and not file.name.startswith(".")]
    return sorted(file for file in named if file.is_file())


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict.fromkeys(("question", "context", "answer", "title"), "text")


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of SQuAD files: one per question. Raises DataError or MissingColumn."""
    path = Path(section.id).expanduser()
    if not path.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    lacking = [column for column in columns if column not in ("question", "context", "answer", "title")]
    if lacking:
        raise DataError(
            f"data.id: {section.id} is in SQuAD's form, with questions, contexts and answers; "
            f"this task needs {', '.join(lacking)}"
        )
    if section.columns:
        raise MissingColumn(
            f"data.columns: {section.id} is in SQuAD's form, which has columns of its own: leave it out"
        )
    files = _files(path)
    if not files:
        raise DataError(f"data.id: {section.id} holds no .json file")
    source = Source(splits={})
    for file in files:
        rows = list(_rows(file))
        if not rows:
            raise DataError(f"{file}: no questions")
        name = "train" if path.is_file() else compressed.inner(file).stem
        if name in source.splits:
            raise DataError(f"{path}: two files are called {name}.json, compressed or not: take one out")
        source.splits[name], source.skipped[name] = table.as_dataset(file, rows)
    if path.is_dir():
        short = {name: _short(name, list(source.splits)) for name in source.splits}
        source.splits = {short[name]: rows for name, rows in source.splits.items()}
        source.skipped = {short[name]: rows for name, rows in source.skipped.items()}
        source.ignored = dict(Counter(kind_of(file) for file in sorted(path.iterdir()) if _is_other(file)))
        # the official test set is not public, so results are reported on dev
        if "dev" in source.splits and "test" not in source.splits:
            source.splits["test"], source.skipped["test"] = source.splits.pop("dev"), source.skipped.pop("dev")
    return source


def _is_other(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and compressed.inner(file).suffix != ".json"


def _short(name: str, names: list[str]) -> str:
    """train-v1.1 -> train.

    Of dev-v1.1 and dev-v2.0, the one with train's version becomes dev, the other keeps its name.
    """
    short, _, version = name.partition("-")
    alike = [other for other in names if other.partition("-")[0].lower() == short.lower()]
    of_train = {other.partition("-")[2] for other in names if other.lower().startswith("train")}
    return short.lower() if len(alike) == 1 or {version} == of_train else name


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        articles = json.loads(compressed.text(path))["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = [] if question.get("is_impossible") else question.get("answers", [])
                    yield {
                        "id": str(question["id"]),
                        "question": question["question"],
                        "context": paragraph["context"],
                        "answer": {
                            "text": [a["text"] for a in answers],
                            "answer_start": [a["answer_start"] for a in answers],
                        },
                        "title": str(article.get("title") or ""),
                    }
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid JSON: {getattr(error, 'msg', error)} (line {getattr(error, 'lineno', '?')})"
        ) from None
    except (KeyError, TypeError, AttributeError) as error:
        form = "data > paragraphs > qas > answers"
        other = "other rows are an array of objects, or an object a line"
        raise DataError(f"{path}: not in SQuAD's form ({form}): {type(error).__name__} {error}; {other}") from None
