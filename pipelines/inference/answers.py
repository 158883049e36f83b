"""Answers of a model as lines, as rows of a table, and as a file (`graft predict --out`).

An answer has one of these forms, which the tasks' `infer` return: classes with scores, objects with boxes, segments
of an image with their share of its pixels, a number ({"value"}), an answer from a passage, a transcript ({"text"}),
tokens for masks, a text, or a file that was made with its settings.
"""

import contextlib
import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pipelines.data.image.reading import upright_size
from pipelines.errors import DataError, RunError
from pipelines.inference import coco
from pipelines.utils.files import to_json
from pipelines.utils.formatting import printable, short
from pipelines.utils.lock import locked

LIKELY = 0.5  # score from which a label counts, if a row may have several labels
FORMATS = (".csv", ".jsonl")
COCO = ".json"  # a file of COCO's format, for objects with boxes
LINES = ".lines"  # the suffix of the file next to it that holds the answers until all are there
UNFINISHED = ".unfinished"  # the suffix of the file that lies next to answers until all are written
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins so


def labels(output: Any, several: bool) -> list[str]:
    """The labels that an answer decides for: the best one, or, if a row may have several, all that are likely.

    For objects with boxes the class of each, for segments of an image each class once. Empty if the answer has no
    classes.
    """
    if _is_objects(output):
        return [one["label"] for one in output]
    if _is_segments(output):
        return list(dict.fromkeys(one["label"] for one in output))
    if not _is_ranking(output):
        return []
    return [one["label"] for one in output if one["score"] >= LIKELY] if several else [output[0]["label"]]


def _is_ranking(output: Any) -> bool:
    return isinstance(output, list) and bool(output) and isinstance(output[0], dict) and "label" in output[0]


def _is_objects(output: Any) -> bool:
    """Whether an answer is a list of objects with boxes. It is empty if the model found nothing."""
    return isinstance(output, list) and (not output or (isinstance(output[0], dict) and "box" in output[0]))


def _is_segments(output: Any) -> bool:
    """Whether an answer is a list of the segments that an image consists of."""
    return isinstance(output, list) and bool(output) and isinstance(output[0], dict) and "share" in output[0]


# ---- on the screen ----


def line(name: str, columns: Mapping[str, Any], output: Any) -> str:
    """An answer as a line for people. Control characters of texts and labels are replaced."""
    return printable(_line(name, columns, output), keep="\n\t")


def _line(name: str, columns: Mapping[str, Any], output: Any) -> str:
    if _is_objects(output):
        return f"{name}: {', '.join(map(_object, output)) or '(nothing found)'}"
    if _is_segments(output):
        return "\n".join([f"{name}:", *map(_segment, output)])
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


def _object(one: Mapping[str, Any]) -> str:
    """A found object with the corners of its box in pixels."""
    corners = ", ".join(f"{one['box'][side]:.0f}" for side in ("xmin", "ymin", "xmax", "ymax"))
    return f"{one['label']} {one['score']:.3f} ({corners})"


def _segment(one: Mapping[str, Any]) -> str:
    """A segment of an image with its share of the pixels."""
    return f"  {100 * one['share']:5.1f} %  {short(one['label'], 60)}  (score {one['score']:.3f})"


def totals(counts: Mapping[str, int]) -> str:
    """{"dog": 19, "cat": 31} -> cat 31, dog 19."""
    return printable(", ".join(f"{label} {count:,}" for label, count in Counter(counts).most_common()), keep="\n\t")


# ---- in a file ----


def row(name: str, columns: Mapping[str, Any], output: Any, several: bool) -> dict[str, Any]:
    """An answer as one record. Its plain values are the columns of a table; `scores` and other details are nested."""
    start: dict[str, Any] = {"input": name}
    if _is_objects(output):
        width, height = upright_size(columns["image"])
        found = {"count": len(output), "labels": labels(output, True), "objects": output}
        return {**start, "width": width, "height": height, **found}
    if _is_segments(output):
        height, width = output[0]["mask"]["size"]
        columns_of: dict[str, Any] = {"labels": [one["label"] for one in output]}
        columns_of |= {f"{key}s": [round(one[key], 6) for one in output] for key in ("share", "score")}
        return {**start, "width": width, "height": height, "count": len(output), **columns_of, "segments": output}
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
    """A file that answers are written to as they come: lines of JSON, or a csv table with the plain values.

    The first answer decides the columns of a table. Until all inputs are answered, the file `state` lies next to it. It
    says which model and inputs these are, and which inputs had no answer. So the same command goes on after it was
    stopped or killed: `passed` is true for the inputs that came before.
    """

    def __init__(self, path: Path, state: Path, about: Mapping[str, Any]) -> None:
        self.path, self.state, self.about = path, state, dict(about)
        self.table = path.suffix.lower() == ".csv"
        self.names: list[str] = []
        self.labels: list[str] = []  # the model's classes, for a file of COCO's format
        self.file: IO[bytes] | None = None
        self.count = 0  # answers in the file
        self.before: Iterator[str] = iter(())  # names of the inputs that were answered before
        self.failed: list[str] = []  # names of the inputs that had no answer before
        self.next: str | None = None
        if state.is_file() and not state.is_symlink():
            self._go_on()

    def _go_on(self) -> None:
        """Cut the file after its last complete answer. Raises RunError if another command wrote it."""
        lines = self.state.read_text(encoding="utf-8").split("\n")
        try:
            about, *failed = [json.loads(line) for line in lines[:-1]]  # the last is empty, or was not finished
        except ValueError:
            return
        if about != self.about:
            what = " and ".join(name for name in self.about if about.get(name) != self.about[name])
            raise RunError(
                f"{self.path}: a command that did not finish left answers here, and it had another {what}: repeat that "
                f"command to go on, give another --out, or delete {self.state} to begin again"
            )
        size, count = _complete(self.path, self.table)
        if not count:
            return
        try:
            self.file = self.path.open("r+b", buffering=0)
            self.file.truncate(size)
            self.file.seek(size)
        except OSError as error:
            raise _refused(self.path, error) from None
        self.failed, self.before = failed, self._inputs()
        self.count = count - self.table
        self.next = next(self.before, None)

    def _inputs(self) -> Iterator[str]:
        """The names of the inputs in the file. The columns of a table are read, too."""
        with self.path.open(encoding="utf-8", newline="") as file:
            if self.table:
                csv.field_size_limit(sys.maxsize)
                rows = csv.reader(file)
                self.names = next(rows)
                yield from (cells[0] for cells in rows)
            else:
                yield from (json.loads(line)["input"] for line in file)

    def passed(self, name: str) -> bool:
        """Whether the next input, which has this name, was answered before, or had no answer.

        Raises RunError if another input was the next one.
        """
        if self.file is None or (self.next is None and not self.failed):
            return False
        if self.next is not None and self.next == self._written(name):
            self.next = next(self.before, None)
        elif self.failed and self.failed[0] == _unicode(name):
            del self.failed[0]
        elif self.next is None:
            return False
        else:
            raise RunError(
                f"{self.path}: the inputs are no longer those of the command that did not finish ({short(name)} is "
                f"new or was at another place): delete {self.state} to begin again"
            )
        return True

    def _written(self, name: str) -> str:
        return _unicode(_cell(name) if self.table else name)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one answer. Raises RunError if the disk refuses."""
        file = self.file or self._begin()
        self._append(file, self.path, self._row(record) if self.table else to_json(record) + "\n")
        self.count += 1

    def fail(self, name: str) -> None:
        """Note an input that has no answer."""
        if self.file is None:
            self.failed.append(name)
            return
        with self.state.open("ab", buffering=0) as file:
            self._append(file, self.state, json.dumps(_unicode(name)) + "\n")

    def _begin(self) -> IO[bytes]:
        """Empty the file, which may hold the answers of an earlier command."""
        try:
            file = self.path.open("wb", buffering=0)
            lines = [self.about, *map(_unicode, self.failed)]
            self.state.unlink(missing_ok=True)  # a new file: a link could lead to a file of somebody else
            with self.state.open("x", encoding="utf-8") as state:
                state.write("".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:
            raise _refused(self.path, error) from None
        self.file, self.failed = file, []
        return file

    def _append(self, file: IO[bytes], path: Path, text: str) -> None:
        """Write the text at once: a process that is killed leaves complete answers."""
        left = text.encode("utf-8", "replace")
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise _refused(path, error) from None

    def _row(self, record: Mapping[str, Any]) -> str:
        # lists of words are joined; what is nested (scores of all classes, words with their times) is for jsonl
        plain = {
            key: " | ".join(map(str, value)) if isinstance(value, list) else value
            for key, value in record.items()
            if not isinstance(value, dict)
            and not (isinstance(value, list) and any(isinstance(one, dict | list) for one in value))
        }
        out = io.StringIO()
        writer = csv.writer(out)
        if not self.names:
            self.names = list(plain)
            writer.writerow(self.names)
        writer.writerow([_cell(plain.get(name)) for name in self.names])
        return out.getvalue()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def _complete(path: Path, table: bool) -> tuple[int, int]:
    """The size of the complete records at the start of a file, and their number. A cell may hold line breaks."""
    size = complete = count = quotes = 0
    try:
        with path.open("rb") as file:
            for line in file:
                size += len(line)
                quotes += line.count(b'"') if table else 0
                if line.endswith(b"\r\n" if table else b"\n") and quotes % 2 == 0:
                    complete, count = size, count + 1
    except FileNotFoundError:
        return 0, 0
    return complete, count


def _unicode(text: str) -> str:
    """A text as it is written: half a character becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: such a text gets an apostrophe in front. Numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def check_file(file: str | Path, boxes: bool = True, folder: bool = False) -> None:
    """Raise DataError if answers cannot be written to a file of this name. `boxes`: the answers have boxes or masks.

    `folder`: they may also be written to a folder of masks.
    """
    if folder and is_folder(file):
        return
    path = Path(file)
    if path.is_dir():
        raise DataError(f"--out {path}: this is a folder: give the name of a file")
    if path.suffix.lower() not in (*FORMATS, *([COCO] if boxes else [])):
        also = f" ({COCO} is COCO's format, for models that find boxes)" if path.suffix.lower() == COCO else ""
        also = ", or a folder for masks: a name without a dot" if folder else also
        raise DataError(f"--out {path}: give a file that ends in {' or '.join(FORMATS)}{also}")


def is_folder(name: str | Path) -> bool:
    """Whether `--out` names a folder: one that is there, a name with a slash at its end, or one without a suffix."""
    path = Path(name)
    if path.is_file():
        return False
    return path.is_dir() or not path.suffix or os.fspath(name).endswith(("/", os.sep))


@contextlib.contextmanager
def answer_file(path: Path, about: Mapping[str, Any]) -> Iterator[AnswerFile]:
    """A file for answers, written one by one. An old file stays as it was until the first answer.

    `about` is what the answers depend on: what -> plain values. If the file holds the answers of a command that did not
    finish, this one goes on. A file of COCO's format is written when all answers are there, with the classes in
    `labels` of the result. Raises DataError for another suffix than .csv, .jsonl or .json, RunError if the
    disk refuses, if another command writes the file, or if `about` is not that of the command that did not finish.
    """
    check_file(path)
    whole = path.suffix.lower() == COCO
    written = path.with_name(f"{path.name}{LINES}") if whole else path
    state = path.with_name(f"{path.name}{UNFINISHED}")
    lock = path.with_name(f".{path.name}.lock")  # not `state`: closing any handle of a file ends its lock
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mine = stack.enter_context(locked(lock))
        except OSError as error:
            raise _refused(lock if lock.is_symlink() else path, error) from None
        if not mine:
            raise RunError(f"{path}: another command is writing its answers here: wait for it, or give another --out")
        stack.callback(lock.unlink, missing_ok=True)
        if whole and written.is_symlink():  # it could lead to a file of somebody else
            written.unlink()
        file = AnswerFile(written, state, about)
        stack.callback(file.close)
        yield file
        if file.next is not None:
            raise RunError(
                f"{path}: it holds answers to more inputs than these, of a command that did not finish: delete {state} "
                "to begin again"
            )
        if whole and file.file is not None:
            try:
                coco.write(written, path, file.labels)
            except OSError as error:
                raise _refused(path, error) from None
        state.unlink(missing_ok=True)
        if whole:
            written.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be written: {error.strerror or error}")
