"""Heat maps of a finished run: the wrong rows of its report get them, and the randomisation test says whether they
depend on what the model learned.

    explain(Path("runs/image-classification/photos"))        `graft report RUN --heat-maps`

A run does not draw them when it finishes. They take hundreds of passes for each row, which would be most of the time of
a short run, and hours for a large model on a CPU.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.schema import spread
from pipelines.errors import ModelError, RunError
from pipelines.evaluation.evaluate import own_rows
from pipelines.inference.loading import load
from pipelines.models import attribution, randomisation
from pipelines.models.occlusion import Region
from pipelines.plots.heat_maps import jpeg
from pipelines.reporting import mistakes, results
from pipelines.reporting.mistakes import Mistake
from pipelines.utils import library_logging, lock
from pipelines.utils.files import read_records, write_json
from pipelines.utils.progress import Progress

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.task import Record, Task

SHOWN = 8  # wrong rows of the report that get heat maps: those at the top
IN_USE = "another command is at work here; wait for it"


def explain(run: str | Path) -> dict[str, Any]:
    """Draw heat maps of the wrong rows, test them, and write results.json (`explanation`), mistakes/, report and card.

    Returns the section `explanation`: {method: what pipelines.models.randomisation.check returns}. Nothing is written
    before everything is done. Raises ModelError if the run is not finished or classifies nothing, DataError if its data
    changed, RunError if another command works in its folder.
    """
    from pipelines.publishing.card import write_card
    from pipelines.reporting.report import write_report

    folder = Path(run)
    results.check_run_folder(folder)
    if not (folder / "recipe.yaml").is_file():
        raise ModelError(f"{folder}: no run folder (it has no recipe.yaml)")
    progress = Progress(True)
    library_logging.quiet_libraries(progress)
    with lock.locked(folder / ".lock") as mine:
        if not mine:
            raise RunError(f"{folder}: {IN_USE}")
        before = results.read_results(folder)  # inside the lock: another command may have changed it
        if before is None:
            raise ModelError(
                f"{folder}: no finished run, so there is no model to explain: `graft train` goes on with it"
            )
        loaded = load(folder)
        if not hasattr(loaded.task, "parts"):
            raise ModelError(f"{folder}: a run of {loaded.task.name}: heat maps are of classifiers")
        rows = own_rows(loaded)
        records = read_records(folder / "predictions" / "test.jsonl")
        answered = {record["id"] for record in records}
        readable = [place for place, id_ in enumerate(rows["id"][:]) if id_ in answered]
        rows = rows.select(readable) if len(readable) != len(rows) else rows
        wrong = _with_maps(loaded, records, rows, progress)
        found = _tested(loaded, rows, progress)
        mistakes.save(wrong, folder / mistakes.FOLDER)
        write_json(folder / "results.json", {**before, "explanation": found})
        write_report(folder)
        write_card(folder)
    return found


def _with_maps(loaded: "Loaded", records: "list[Record]", rows: Any, progress: Progress) -> mistakes.Mistakes | None:
    assert loaded.recipe is not None
    source = loaded.recipe.data.id
    spec = loaded.task.mistakes
    left = min(SHOWN, sum(spec.rank(record) is not None for record in records)) if spec else 0
    with progress.item("heat maps", left) as bar:

        def explained(one: Mistake, record: "Record", row: Mapping[str, Any]) -> Mistake:
            nonlocal left
            if left:
                left -= 1
                one = with_maps(loaded.task, loaded.model, one, record, row)
                bar.advance()
            return one

        return mistakes.choose(loaded.task, records, rows, "test", source=source, model=loaded.model, explain=explained)


def with_maps(task: Any, model: Any, one: Mistake, record: "Record", row: Mapping[str, Any]) -> Mistake:
    """The row with a heat map by each method, of the answer that was given."""
    number, given = answer_of(task, record)
    if number is None:
        return one
    parts = task.parts(model, row)
    for method in attribution.METHODS:
        try:
            found = attribution.map_of(parts, method, task.data.label_kind, number=number)
        except ModelError:
            continue
        values = found.values if given else -found.values
        if parts.places and isinstance(parts.places[0], Region):  # words of a text
            if method != "occlusion":  # the words are marked by occlusion already
                one = replace(one, texts={**one.texts, **task.map_texts(row, parts, values, method)})
        elif (picture := task.map_picture(row, parts, values)) is not None:
            one = replace(one, maps={**one.maps, method: jpeg(picture)})
    return one


def answer_of(task: "Task", record: "Record") -> tuple[int | None, bool]:
    """The class whose score a record's (surest wrong) answer rests on, and whether the answer was that it is there."""
    labels = list(task.data.labels)
    if task.data.label_kind == "number":
        return 0, True
    if task.data.label_kind == "classes":
        wrong = mistakes.wrong_labels(record)[:1]
        label, given = (wrong[0][0], wrong[0][2]) if wrong else (None, True)
    else:
        label, given = record["predicted"], True
    return (labels.index(label) if label in labels else None), given


def _tested(loaded: "Loaded", rows: Any, progress: Progress) -> dict[str, Any]:
    chosen = [rows[place] for place in spread(rows, randomisation.ROWS)]
    with progress.item("random weights", randomisation.passes(len(chosen))) as bar:
        return randomisation.check(loaded.task, loaded.model, chosen, tick=bar.advance)
