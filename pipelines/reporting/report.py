"""The report of a run: one HTML file that opens without network, made only from the run folder.

    write_report(Path("runs/image-classification/pets_vit_base"))

The page of a run that is not finished is that of pipelines.reporting.live.
"""

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.yaml_io import parse
from pipelines.errors import ModelError, RunError
from pipelines.plots.baselines import BESIDE
from pipelines.plots.style import AGGREGATE, WIDTH, png, svg
from pipelines.reporting import mistakes, players
from pipelines.reporting.inline_svg import markup
from pipelines.reporting.live import LivePage, step_of
from pipelines.reporting.pages import templates
from pipelines.reporting.results import check_run_folder, read_results
from pipelines.utils import lock
from pipelines.utils.files import read_json, write_text
from pipelines.utils.formatting import readable_name
from pipelines.utils.sequences import evenly_spaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = ("learning_curves", "validation_metric")  # drawn here from the log; the task draws all other figures
CLIPS = 1_000_000  # largest size in bytes of all recordings on the page
SOUNDS = {".flac": "audio/flac", ".wav": "audio/wav", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"}
WIDE = 160 * 1.2 * WIDTH  # pixels of `png`; a wider figure takes the full width of the page


def write_report(run: Path) -> Path:
    """Draw the curves into figures/ and write report.html; for a run that is not finished, write its live page.

    Returns its path. Raises RunError; ModelError if it is no run folder.
    """
    check_run_folder(run)
    page = run / "report.html"
    source = _read(run / "recipe.yaml")
    if source is None:
        raise ModelError(f"{run}: no run folder (it has no recipe.yaml)")
    results = read_results(run)
    if results is None:
        write_text(page, LivePage(run).render(running=lock.in_use(run / ".lock")))
        return page
    save_figures(curves(run, results), run / "figures")
    if not results.get("baselines"):  # a run that was trained further, or scored again, has lost them
        for stale in (path for name in BESIDE for path in (run / "figures").glob(f"{name}.*")):
            stale.unlink(missing_ok=True)
    write_text(page, _render(run, source, results))
    return page


def save_figures(figures: "Mapping[str, Figure]", folder: Path) -> None:
    """Write each figure with its alt text: `<name>.svg` for the report, `<name>.png` for the card. Raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            (folder / f"{name}.svg").write_bytes(svg(figure))
            (folder / f"{name}.png").write_bytes(png(figure))
    except OSError as error:
        raise RunError(f"{folder}: figures cannot be written: {error.strerror or error}") from error


def curves(run: Path, results: Mapping[str, Any]) -> "dict[str, Figure]":
    """Curves of loss, learning rate and the metric; without those of a single point."""
    from pipelines.plots.training_curves import learning_figure, metric_figure

    log = read_log(run)
    figures = {}
    if sum(math.isfinite(line["loss"]) for line in log if line.get("loss") is not None) > 1:
        figures["learning_curves"] = learning_figure(log)
    name, test = results["metric"]["name"], results["test"]
    before = (results.get("baseline") or {"metrics": {}})["metrics"].get(name)
    points = sum(line["validation"].get(name) is not None for line in log if "validation" in line)
    if points > 1 or (points and before is not None and test["metrics"][name] is not None):
        ends = (before, test["metrics"][name], test["ci95"].get(name))
        figures["validation_metric"] = metric_figure(log, name, results["metric"]["direction"], *ends)
    return figures


def read_log(run: Path) -> list[dict[str, Any]]:
    """The entries of log.jsonl, without a last line that a kill cut off."""
    lines = (_read(run / "log.jsonl") or "").splitlines()
    try:
        return [_line(line) for line in lines]
    except json.JSONDecodeError:
        pass
    try:
        return [_line(line) for line in lines[:-1]]
    except json.JSONDecodeError as error:
        raise RunError(f"{run / 'log.jsonl'}: a line is not JSON: {error}") from error


def _line(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)  # older versions wrote NaN
    return found


# ---- the page ----


def _render(run: Path, recipe: str, results: dict[str, Any]) -> str:
    settings = parse(recipe, str(run / "recipe.yaml"))[0]
    figures = _figures(run / "figures")
    template = templates().get_template("report.html.j2")
    text: str = template.render(
        title=run.resolve().name,
        recipe=recipe,
        settings=settings,
        results=results,
        figures=[figure for figure in figures if figure["name"] not in BESIDE],
        beside_figures=[figure for figure in figures if figure["name"] in BESIDE],
        clips=clips_of(run / "examples"),
        made=players.of_samples(run),
        moments=_moments(run),
        mistakes=mistakes.section(mistakes.read(run / mistakes.FOLDER), run),
        mistakes_style=mistakes.style(),
        splits=[(name, of) for name, of in results["data"].items() if isinstance(of, dict)],
        tables=[
            (title, rows, _columns(rows)) for title, rows in results["test"].get("tables", {}).items() if len(rows) > 1
        ],
        names=_metric_names(results),
        is_share=_is_share,
        files=[(name, what) for name, what in _FILES.items() if (run / name).exists()],
    )
    return text


_FILES = {
    "model": "the model as a hub repo: weights, configuration, card",
    "predictions/test.jsonl": "one prediction per test row",
    "predictions/test_statistics.safetensors": "statistics of each test row, for graft compare",
    "predictions/validation.jsonl": "one prediction per validation row",
    "figures": "the figures of this page",
    "mistakes": "the wrong rows of this page",
    "samples": "what the model generated",
    "checkpoints": "what training resumes from",
    "log.jsonl": "one line per logged step",
    "results.json": "every number of this page",
    "recipe.yaml": "the recipe, complete",
}


def _figures(folder: Path) -> list[dict[str, Any]]:
    """The figures with alt text, size, and whether they show rows; curves first, wide figures last.

    `svg` is the markup of a figure. It is None for one of a run of an older version, which has only a PNG file.
    """
    from PIL import Image

    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            width, height = image.size
            alt, shows = image.info.get("Description", readable_name(path.stem)), image.info.get("Comment")
        drawing = path.with_suffix(".svg")
        inline = markup(drawing.read_bytes(), path.stem, alt) if drawing.is_file() else None
        uri = None if inline else "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        wide = width > WIDE
        found.append(
            {
                "name": path.stem,
                "svg": inline,
                "uri": uri,
                "alt": alt,
                "width": width,
                "height": height,
                "wide": wide,
                "photos": shows != AGGREGATE,
            }
        )
    return sorted(found, key=lambda figure: (figure["name"] not in CURVES, figure["wide"]))


def _moments(run: Path) -> list[tuple[str, players.Player]]:
    """The first generated recording of some evaluations: the step and its player."""
    shown = evenly_spaced(players.steps(run), players.MOMENTS)
    found = [(step_of(folder), one) for folder in shown for one in players.of_step(folder, 1)]
    return found if len(found) > 1 else []


def clips_of(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Recordings of test rows as data URIs, each with the other fields of its row; as many as fit into CLIPS bytes."""
    found, room = [], CLIPS
    for row in read_json(folder / "examples.json") or []:
        fields = dict(row)
        path = folder / str(fields.pop("audio", ""))
        if path.suffix in SOUNDS and path.is_file() and path.stat().st_size <= room:
            room -= path.stat().st_size
            uri = f"data:{SOUNDS[path.suffix]};base64," + base64.b64encode(path.read_bytes()).decode()
            found.append((uri, fields))
    return found


def _metric_names(results: dict[str, Any]) -> list[str]:
    """The metrics of the test split, the headline metric first."""
    first = results["metric"]["name"]
    return [first, *(name for name in results["test"]["metrics"] if name != first)]


def _columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How to show each column of a table: name, whether it holds numbers, and whether these are fractions of 1."""
    columns = []
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        numeric = all(isinstance(value, (int, float)) for value in values)
        share = numeric and any(isinstance(value, float) for value in values) and _is_share(values)
        columns.append({"name": name, "numeric": numeric, "share": share})
    return columns


def _is_share(values: list[float | None]) -> bool:
    return all(value is not None and 0 <= value <= 1 for value in values)


def _read(path: Path) -> str | None:
    """The text of a file; None if it does not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
