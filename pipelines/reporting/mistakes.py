"""The rows that a model has wrong, as people can look at them: chosen, kept in the run folder, and shown as HTML.

    found = choose(task, records, rows, "test", model=model)   at the end of a run
    save(found, run / "mistakes")
    section(read(run / "mistakes"), run)                       in its report
    html(of_rows(task, records, rows, ids))                    on any page that has style() in its <style>

A task ranks its records and shows one row (`Task.mistakes`). All the rest is the same for all tasks. The cost depends
on the number of rows that are shown, never on the size of the data.
"""

import base64
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from pipelines.data.origin import Origin, origins
from pipelines.errors import RunError
from pipelines.reporting.pages import templates
from pipelines.utils.files import read_json, write_json
from pipelines.utils.formatting import number, short

if TYPE_CHECKING:
    from markupsafe import Markup

    from pipelines.task import Record, Task

FOLDER = "mistakes"  # in the run folder
LIST = "mistakes.json"
MOST = 12  # rows that are shown; a task with small pictures shows more
LONGEST = 400  # characters of a label or an answer
LONGEST_TEXT = 3000  # characters of a text
SIDE = 160  # characters that are shown before and after a marked part of a text
LARGEST = 90_000  # bytes of a picture with several parts
SIDES = (320, 240, 160)  # pixels of such a part, tried in turn
ROOM = 3_000_000  # bytes of all files of the shown rows
KINDS = {".jpg": "image/jpeg", ".mp3": "audio/mpeg", ".flac": "audio/flac"}
SURE = "The mistakes of which the model was surest come first."
GAP = "gap"  # the mark of a part of a text that is left out

NOWHERE = Origin("", None)

Row = Mapping[str, Any]
Explain = Callable[["Mistake", "Record", Row], "Mistake"]


class Piece(NamedTuple):
    """A part of a text with its mark: true, predicted, both, for, against, gap, or none."""

    text: str
    mark: str = ""
    weight: float = 1.0  # from 0 to 1: how much the words speak for the prediction, or against it


@dataclass(frozen=True)
class Mistake:
    """One row that the model has wrong."""

    true: str | None = None
    """The right answer; None if one of the texts shows it."""
    predicted: str | None = None
    sure: float | None = None
    """The model's probability for its wrong answer; None if the task has no such number."""
    names: tuple[str, str] = ("True", "Predicted")
    """What the page calls `true` and `predicted`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Other numbers and notes: name -> value."""
    texts: Mapping[str, Sequence[Piece]] = field(default_factory=dict)
    """The texts of the row: name -> its parts."""
    picture: bytes | None = None
    """A small JPEG."""
    wide: bool = False
    """Whether the picture has parts next to each other, which need width."""
    recording: bytes | None = None
    """A short MP3 or FLAC."""
    maps: Mapping[str, bytes] = field(default_factory=dict)
    """Heat maps: method -> JPEG."""
    origin: Origin = NOWHERE
    """Where the row is in the data. The shared code sets it."""


@dataclass(frozen=True)
class MistakeSpec:
    """How a task ranks and shows the rows that its model has wrong."""

    rank: "Callable[[Record], float | None]"
    """How wrong a row is: the highest is shown first. None: the row is right."""
    show: "Callable[[Record, Row, Any], Mistake]"
    """A row as people look at it, from its record, the row, and the model (None: no model is at hand)."""
    order: str
    """A sentence on the order."""
    marks: str = ""
    """A sentence on the colours of marked words."""
    title: str = "Surest mistakes"
    graded: bool = True
    """Whether a row is right or wrong. Else the number of wrong rows is not shown."""
    most: int = MOST


@dataclass(frozen=True)
class Mistakes:
    """The shown rows of one split."""

    title: str
    order: str
    marks: str
    split: str
    graded: bool
    wrong: int
    """Number of wrong rows."""
    rows: int
    """Number of all rows."""
    shown: tuple[Mistake, ...]


# ---- choose ----


def choose(
    task: "Task",
    records: "Sequence[Record]",
    rows: Any,
    split: str,
    *,
    source: str = "",
    model: Any = None,
    explain: "Explain | None" = None,
) -> Mistakes | None:
    """The wrong rows that rank highest; None if the task shows none or every row is right.

    `source` is the path of the data, for the place of each row. `explain` adds heat maps to a row.
    """
    spec = task.mistakes
    if spec is None:
        return None
    ranked = [(rank, record["id"]) for record in records if (rank := spec.rank(record)) is not None]
    best = [id_ for _, id_ in sorted(ranked, key=lambda pair: (-pair[0], pair[1]))[: spec.most]]
    if not best:
        return None
    shown = of_rows(task, records, rows, best, source=source, model=model, explain=explain)
    return Mistakes(spec.title, spec.order, spec.marks, split, spec.graded, len(ranked), len(records), tuple(shown))


def of_rows(
    task: "Task",
    records: "Sequence[Record]",
    rows: Any,
    ids: Sequence[str],
    *,
    source: str = "",
    model: Any = None,
    explain: "Explain | None" = None,
) -> list[Mistake]:
    """The rows with these ids, in this order, whether they are right or wrong. Ids without a record are left out."""
    spec = task.mistakes
    wanted = set(ids)
    known = {record["id"]: record for record in records if record["id"] in wanted}
    where = {id_: place for place, id_ in enumerate(rows["id"][:]) if id_ in known}
    if spec is None or not where:
        return []
    places = {id_: where[id_] for id_ in ids if id_ in where}
    found = origins(rows, list(places.values()), source)
    shown = []
    for (id_, place), origin in zip(places.items(), found, strict=True):
        row = rows[place]
        one = spec.show(known[id_], row, model)
        one = explain(one, known[id_], row) if explain is not None else one
        shown.append(replace(_bounded(one), origin=origin))
    return shown


def _bounded(one: Mistake) -> Mistake:
    """The same row with texts, labels and notes of a limited length, whatever the data hold."""
    true, predicted = (None if text is None else short(text, LONGEST) for text in (one.true, one.predicted))
    facts = {name: short(value, LONGEST) for name, value in one.facts.items()}
    return replace(
        one, true=true, predicted=predicted, facts=facts, texts={name: shortened(of) for name, of in one.texts.items()}
    )


# ---- helpers of tasks ----


def surest_label(record: "Record", multi_label: bool) -> float | None:
    """How sure a classifier was of its wrong label; None if it is right. With several labels, its surest wrong one."""
    if multi_label:
        return max((sure for _, sure, _ in wrong_labels(record)), default=None)
    return float(record["confidence"]) if record["true"] != record["predicted"] else None


def wrong_labels(record: "Record") -> list[tuple[str, float, bool]]:
    """The wrong labels of a record of several labels, surest first: (label, how sure the model was, predicted)."""
    true, predicted, scores = set(record["true"]), set(record["predicted"]), record["scores"]
    found = [(label, scores[label], True) for label in predicted - true]
    found += [(label, 1 - scores.get(label, 0.0), False) for label in true - predicted]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def labelled(record: "Record", multi_label: bool) -> Mistake:
    """The labels of a classifier's record, without the content of the row."""
    if not multi_label:
        true, predicted = short(record["true"], LONGEST), short(record["predicted"], LONGEST)
        return Mistake(true, predicted, record["confidence"])
    wrong = wrong_labels(record)
    missing, extra = (
        ", ".join(f"{short(label, 60)} ({sure:.0%} sure)" for label, sure, given in wrong if given is kind) or None
        for kind in (False, True)
    )
    right = sorted(set(record["true"]) & set(record["predicted"]))
    facts = {"Right": short(", ".join(right), LONGEST)} if right else {}
    return Mistake(missing, extra, names=("Missing", "Extra"), facts=facts)


def audible(one: Mistake, value: Any, *, middle: bool = False, picture: bool = False) -> Mistake:
    """The row with at most ten seconds of its recording, and a spectrogram if `picture` is set."""
    from pipelines.data.audio.reading import CLIP, clip
    from pipelines.data.audio.spectrogram import picture as spectrogram
    from pipelines.data.image.reading import thumbnail

    found = clip(value, middle)
    if found is None:
        return replace(one, facts={**one.facts, "Recording": "it cannot be read any more"})
    if found.seconds > CLIP:
        part = "in the middle" if middle else "at the beginning"
        one = replace(one, facts={**one.facts, "Recording": f"{CLIP:.0f} of {found.seconds:.1f} s, {part}"})
    drawn = thumbnail(spectrogram(found.samples, found.rate)) if picture else None
    return replace(one, recording=found.data, picture=drawn)


def wrong_words() -> MistakeSpec:
    """Of a language model: the wrong word of each text of which it was surest (`surest` of the record), in its text."""

    def show(record: "Record", row: Row, model: Any) -> Mistake:
        found = record.get("surest")
        if found is None:
            return Mistake(texts={"": [Piece(row["text"])]})
        end = "the end of the text"
        pieces = [Piece(found["before"]), Piece(found["true"] or f"[{end}]", "true"), Piece(found["after"])]
        true, predicted = (found[key].strip() or end for key in ("true", "predicted"))
        return Mistake(true, predicted, found["sure"], texts={"": pieces})

    return MistakeSpec(
        rank=lambda record: record["surest"]["sure"] if record.get("surest") else None,
        show=show,
        order="The wrong words of which the model was surest come first, one of each text.",
        marks="The right word is marked.",
        title="Surest wrong words",
    )


def wrong_transcripts(normaliser: str) -> MistakeSpec:
    """Of speech recognition: the recording, and reference and transcript with their differences marked."""
    from pipelines.metrics.speech_recognition import aligned, counts

    def share(record: "Record") -> float:
        found = counts(record["true"], record["predicted"], normaliser)
        return found.errors / max(found.words, 1)

    def show(record: "Record", row: Row, model: Any) -> Mistake:
        pairs = aligned(record, normaliser)
        texts = {"Reference": _words(pairs, 1, "true"), "Transcript": _words(pairs, 2, "predicted")}
        facts = {"Word error rate": f"{share(record):.2f}"}
        return audible(Mistake(sure=record.get("confidence"), facts=facts, texts=texts), row["audio"])

    return MistakeSpec(
        rank=lambda record: min(share(record), 1.0) * record.get("confidence", 1.0) or None,
        show=show,
        order="Transcripts with a large share of wrong words of which the model was sure come first.",
        marks="Words that the transcript lacks or replaces are green in the reference; words that it adds or puts in "
        "their place are orange.",
    )


def _words(pairs: Sequence[tuple[str, str, str]], side: int, mark: str) -> list[Piece]:
    """One line of an alignment: the words of the reference (side 1) or the transcript (side 2)."""
    found: list[Piece] = []
    for kind, *words in pairs:
        word = words[side - 1]
        if not word:
            continue
        if kind == "equal":
            before = found.pop().text if found and not found[-1].mark else ""
            found.append(Piece(f"{before}{word} "))
        else:
            found += [Piece(word, mark), Piece(" ")]
    return found or [Piece("nothing", GAP)]


def wrong_boxes(
    labels: Sequence[str], masks: bool = False, threshold: float = 0.5, white: int | None = None
) -> MistakeSpec:
    """Of detection: the image with its objects next to the predictions. Sure wrong boxes and missed objects cost."""
    from pipelines.metrics.detection import judge

    def called(number: int) -> str:  # `graft compare` loads no model and knows no labels
        return labels[number] if number < len(labels) else f"class {number}"

    def rank(record: "Record") -> float | None:
        found = judge(record, masks, threshold)
        return sum(record["scores"][place] for place in found.wrong) + len(found.missed) or None

    def show(record: "Record", row: Row, model: Any) -> Mistake:
        from pipelines.data.image.reading import read_image, thumbnail
        from pipelines.plots.detection import beside

        found = judge(record, masks, threshold)
        wrong = ", ".join(
            f"{called(record['classes'][place])} ({record['scores'][place]:.0%} sure)" for place in found.wrong
        )
        missed = ", ".join(called(record["true"]["classes"][place]) for place in found.missed)
        sheet = beside(read_image(row["image"], white=white), record, called, masks, threshold, side=400)
        picture = thumbnail(sheet, max(sheet.size))
        return Mistake(missed or None, wrong or None, names=("Missed", "Wrong boxes"), picture=picture, wide=True)

    return MistakeSpec(
        rank=rank,
        show=show,
        order="Images with many sure wrong boxes and many missed objects come first.",
        marks="Left: the objects, the missed ones orange. Right: the predictions, the wrong ones orange.",
        title="Costliest images",
        most=8,
    )


def wrong_pixels(labels: Sequence[str], white: int | None = None) -> MistakeSpec:
    """Of image segmentation: the image, its label map, the prediction and the wrong pixels. A low mean IoU costs."""
    from pipelines.metrics.segmentation import image_scores

    def called(number: int) -> str:  # `graft compare` loads no model and knows no labels
        return labels[number] if number < len(labels) else f"class {number}"

    def rank(record: "Record") -> float | None:
        iou, wrong = image_scores(record)
        return 1 - iou if wrong > 0 else None

    def show(record: "Record", row: Row, model: Any) -> Mistake:
        from pipelines.data.image.label_maps import read_map, unpacked
        from pipelines.data.image.reading import read_image, thumbnail
        from pipelines.plots.segmentation import four, overlay

        iou, wrong = image_scores(record)
        image, predicted = read_image(row["image"], white=white), unpacked(record["map"])
        true, picture = read_map(row, labels, image.size) if labels else None, None
        for side in SIDES:
            sheet = overlay(image, predicted) if true is None else four(image, predicted, true, called, side=side)
            picture = thumbnail(sheet, min(max(sheet.size), 3 * side))
            if picture is not None and len(picture) <= LARGEST:
                break
        facts = {"Mean IoU": f"{iou:.2f}", "Wrong pixels": f"{wrong:.1%}"}
        return Mistake(facts=facts, picture=picture, wide=bool(labels))

    return MistakeSpec(
        rank=rank,
        show=show,
        order="Images with a low mean IoU over their classes come first.",
        marks="Wrong pixels are orange; ignored ones are grey.",
        title="Worst images",
        graded=False,
        most=8,
    )


def hardest_images() -> MistakeSpec:
    """Of image generation, where no answer is right or wrong: the images with the highest denoising loss."""

    def show(record: "Record", row: Row, model: Any) -> Mistake:
        from pipelines.data.image.reading import thumbnail

        facts = {"Loss": number(record["loss"])}
        facts |= {"Class": str(row["label"])} if row.get("label") is not None else {}
        texts = {"": [Piece(row["text"])]} if row.get("text") else {}
        return Mistake(facts=facts, texts=texts, picture=thumbnail(row["image"]))

    return MistakeSpec(
        rank=lambda record: float(record["loss"]) or None,
        show=show,
        order="The test images with the highest denoising loss come first: they are least like what the model learned, "
        "or hold much fine detail.",
        title="Hardest images",
        graded=False,
    )


def hardest_recordings() -> MistakeSpec:
    """Of sound that is generated, where no answer is right or wrong: the recordings with the highest loss."""

    def loss(record: "Record") -> float:
        part, count = next(iter(record["parts"].values()))
        return float(part) / max(float(count), 1e-12)

    def show(record: "Record", row: Row, model: Any) -> Mistake:
        facts = {"Loss": number(loss(record))}
        facts |= {name.capitalize(): str(row[name]) for name in ("label", "speaker") if row.get(name) is not None}
        texts = {"": [Piece(row["text"])]} if row.get("text") else {}
        return audible(Mistake(facts=facts, texts=texts), row["audio"])

    return MistakeSpec(
        rank=lambda record: loss(record) or None,
        show=show,
        order="The test recordings with the highest loss come first: they are least like what the model learned.",
        title="Hardest recordings",
        graded=False,
    )


def spans(text: str, marks: Sequence[tuple[int, int, str, float]]) -> list[Piece]:
    """A text in parts, with marks (start, end, mark, weight). Where marks overlap, true and predicted become both."""
    edges = sorted({0, len(text), *(edge for start, end, *_ in marks for edge in (start, end))})
    found: list[Piece] = []
    for start, end in pairwise(edges):
        over = [(mark, weight) for first, last, mark, weight in marks if first <= start and end <= last]
        names = {mark for mark, _ in over}
        mark = "both" if {"true", "predicted"} <= names else over[0][0] if over else ""
        piece = Piece(text[start:end], mark, over[0][1] if over else 1.0)
        if found and found[-1][1:] == piece[1:]:
            piece = piece._replace(text=found.pop().text + piece.text)
        found.append(piece)
    return found


def shortened(pieces: Sequence[Piece], side: int = SIDE) -> list[Piece]:
    """The pieces with at most `side` characters of text on each side of a marked one; marked ones are cut, too.

    At most LONGEST_TEXT characters remain.
    """
    found: list[Piece] = []
    for place, piece in enumerate(pieces):
        text, last = piece.text, place == len(pieces) - 1
        if sum(len(one.text) for one in found) > LONGEST_TEXT:
            return [*found, Piece(" … ", GAP)]
        if piece.mark or len(text) <= 2 * side + 40:
            found.append(piece._replace(text=text[: 4 * side]))
            continue
        head = text[: 2 * side if last and not found else side] if place or last else ""
        tail = text[-side:] if not last else ""
        head, tail = head.rsplit(" ", 1)[0] if head else "", tail.split(" ", 1)[-1] if tail else ""
        found += [part for part in (Piece(head), Piece(" … ", GAP), Piece(tail)) if part.text]
    return found


# ---- the run folder ----


def save(found: Mistakes | None, folder: Path) -> None:
    """Write the list and its files into an empty `folder`; without mistakes there is no folder. Raises RunError."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        if found is None:
            return
        folder.mkdir(parents=True)
        listed = []
        for place, one in enumerate(found.shown):
            names: dict[str, Any] = {**write_files(one, folder, str(place)), "maps": {}}
            for number, (method, data) in enumerate(one.maps.items()):
                names["maps"][method] = f"{place}_map_{number}.jpg"
                (folder / names["maps"][method]).write_bytes(data)
            file = None if one.origin.file is None else _relative(one.origin.file, folder.parent)
            listed.append({**asdict(one), **names, "origin": {"text": one.origin.text, "file": file}})
    except OSError as error:
        raise RunError(f"{folder}: mistakes cannot be written: {error.strerror or error}") from error
    write_json(folder / LIST, {**asdict(found), "shown": listed})


def write_files(one: Mistake, folder: Path, name: str) -> dict[str, str | None]:
    """Write the picture and the recording of a row. Returns the names of the files (None: the row has no such file)."""
    names: dict[str, str | None] = {}
    for kind, data, suffix in (("picture", one.picture, ".jpg"), ("recording", one.recording, _suffix(one.recording))):
        names[kind] = None if data is None else f"{name}{suffix}"
        if data is not None:
            (folder / f"{name}{suffix}").write_bytes(data)
    return names


def _suffix(recording: bytes | None) -> str:
    return ".flac" if recording is not None and recording.startswith(b"fLaC") else ".mp3"


def _relative(path: Path, run: Path) -> str:
    """A path from the run folder, so that run and data can move together; absolute on another drive."""
    try:
        return Path(os.path.relpath(path.resolve(), run.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def read(folder: Path) -> Mistakes | None:
    """Read what `save` wrote; None if there is no such folder. Raises RunError if it is damaged."""
    kept = read_json(folder / LIST)
    if kept is None:
        return None
    room, shown = ROOM, []
    try:
        for one in kept["shown"]:
            found = _mistake(folder, one, room)
            room -= sum(len(data) for data in (found.picture, found.recording, *found.maps.values()) if data)
            shown.append(found)
        title, order, marks, split = (str(kept[key]) for key in ("title", "order", "marks", "split"))
        counted = bool(kept["graded"]), int(kept["wrong"]), int(kept["rows"])
        return Mistakes(title, order, marks, split, *counted, tuple(shown))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(f"{folder / LIST}: damaged ({type(error).__name__}: {error}): delete the folder") from None


def _mistake(folder: Path, one: Mapping[str, Any], room: int) -> Mistake:
    true, predicted = (None if one[key] is None else str(one[key]) for key in ("true", "predicted"))
    place = one["origin"]
    return Mistake(
        true,
        predicted,
        sure=None if one["sure"] is None else float(one["sure"]),
        names=(str(one["names"][0]), str(one["names"][1])),
        facts={str(name): str(value) for name, value in one["facts"].items()},
        texts={
            str(name): [Piece(str(text), str(mark), float(weight)) for text, mark, weight in pieces]
            for name, pieces in one["texts"].items()
        },
        picture=_file(folder, one["picture"], room),
        wide=one.get("wide") is True,
        recording=_file(folder, one["recording"], room),
        maps={
            str(method): data
            for method, name in one.get("maps", {}).items()
            if (data := _file(folder, name, room // 8)) is not None
        },
        origin=Origin(str(place["text"]), None if place["file"] is None else Path(place["file"])),
    )


def _file(folder: Path, name: Any, room: int) -> bytes | None:
    """A file of the folder; None if it is not there, or too large for the page."""
    if not isinstance(name, str) or Path(name).name != name or Path(name).suffix not in KINDS:
        return None
    path = folder / name
    return path.read_bytes() if path.is_file() and path.stat().st_size <= room else None


# ---- HTML ----


def section(found: Mistakes | None, run: Path) -> "Markup":
    """The section of the report: title, order, the rows, and links to them in the data. Empty without mistakes."""
    return _rendered("section", found=found, link=lambda origin: _link(origin, run))


def html(shown: Sequence[Mistake], run: Path | None = None) -> "Markup":
    """The rows alone, for a page of any kind. `run` is the folder of the page, for links to the data."""
    return _rendered("cards", shown=shown, link=lambda origin: _link(origin, run))


def style() -> "Markup":
    """CSS for `section` and `html`. It uses the colours of the report's page."""
    return _rendered("style")


def _rendered(macro: str, **values: Any) -> "Markup":
    from markupsafe import Markup

    module = templates().get_template("mistakes.html.j2").make_module({"uri": _uri})
    return Markup(getattr(module, macro)(**values))  # the template escapes every value


def _uri(data: bytes, kind: str) -> str:
    mime = "image/jpeg" if kind == "picture" else KINDS[_suffix(data)]
    return f"data:{mime};base64," + base64.b64encode(data).decode()


def _link(origin: Origin, run: Path | None) -> str | None:
    """The address of a row's file from the page in `run`; None if the file is not there."""
    if run is None or origin.file is None or not os.path.exists(run / origin.file):
        return None
    path = Path(origin.file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
