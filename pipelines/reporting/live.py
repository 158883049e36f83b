"""report.html while a run is going on, or after it stopped: curves so far, scores so far, samples so far, time left.

The page is made from the run folder. `live.json` holds what the log does not tell: how many steps there will be, and
whether the run stopped or failed. `graft watch` shows the same page. Writing the page draws nothing with matplotlib,
so it takes milliseconds and touches no random state.
"""

import base64
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.config.yaml_io import parse
from pipelines.errors import ModelError, RunError
from pipelines.plots.web_curves import Curve, chart
from pipelines.reporting import players
from pipelines.reporting.log_curves import LogCurves
from pipelines.reporting.pages import templates
from pipelines.utils.files import read_json, write_json, write_text
from pipelines.utils.formatting import readable_name
from pipelines.utils.sequences import evenly_spaced

FILE = "live.json"
PAGE = "report.html"
SHARE = 200  # writing the page takes at most this part of the time: half a percent
LEAST = 2.0  # seconds between two writes
GRIDS = 6  # grids of samples on the page
HEARD = 2  # recordings with a player below each grid
GRID_SIDE = 560  # pixels of a grid's longer side
METRICS = 4  # charts of validation scores
SCORES = 12  # evaluations in the table
GOING_ON = ("baseline", "training", "scoring")  # states in which the page changes by itself
UNKNOWN: dict[str, Any] = {  # live.json of a run that has none: of an older version, or stopped before its first step
    "state": "unknown",
    "stage": None,
    "step": 0,
    "steps": None,
    "seconds_per_step": None,
    "baseline": None,
    "metric": None,
    "direction": "max",
    "model": None,
    "data": None,
    "why": "",
    "updated": None,
    "longest": 0.0,
}


class LiveReport:
    """Keeps report.html of a run up to date. Only the main process (`writes`) writes.

    A page that cannot be written does not stop the training: `say` gets one line, and no further page is tried.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], say: Callable[[str], None], writes: bool) -> None:
        self.folder, self.say, self.writes = folder, say, writes
        self.page = LivePage(folder)
        self.status: dict[str, Any] = {**about, "state": "baseline", "step": 0, "steps": None, "baseline": None}
        self.began, self.first = time.time(), 0
        self.written, self.cost, self.longest = 0.0, 0.0, 0.0

    def begin(self, state: str, **changes: Any) -> None:
        """Write the page at the start of a part of the run: `state` is one of GOING_ON."""
        self.status |= {"state": state, "seconds_per_step": None, **changes}
        self.began, self.first = time.time(), self.status["step"]
        self.write()

    def update(self, step: int) -> None:
        """Write the page after a new entry in the log, unless it was just written."""
        self.status["step"] = step
        now = time.time()
        if step > self.first:
            self.status["seconds_per_step"] = (now - self.began) / (step - self.first)
        if now - self.written >= max(LEAST, SHARE * self.cost):
            self.write()

    def end(self, state: str, step: int | None = None, why: str = "") -> None:
        """Write the page a last time: `state` is "stopped" or "failed"."""
        self.status |= {"state": state, "why": why} | ({"step": step} if step is not None else {})
        self.write()

    def close(self) -> None:
        """The run is finished, and results.json now holds what it did."""
        if self.writes:
            (self.folder / FILE).unlink(missing_ok=True)

    def write(self) -> None:
        """Write the page and live.json now."""
        if not self.writes:
            return
        began, now = time.perf_counter(), time.time()
        if self.written:
            self.longest = max(self.longest, now - self.written)
        self.status |= {"updated": round(now, 1), "longest": round(self.longest, 1)}
        self.written = now
        try:
            write_json(self.folder / FILE, self.status)
            write_text(self.folder / PAGE, self.page.render())
        except Exception as error:  # the page is a convenience; days of training are not
            self.writes = False
            self.say(f"report.html is not updated any more ({type(error).__name__}: {error}); the training goes on")
        self.cost = max(self.cost * 0.9, time.perf_counter() - began)


class LivePage:
    """The page of a run that is not finished. `render` reads only what is new in the log since the last call."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, LogCurves(folder / "log.jsonl")
        self.recipe: tuple[float, str, dict[str, Any]] | None = None
        self.grids: dict[str, str] = {}  # name of a file and its time -> data URI
        self.players: dict[str, list[players.Player]] = {}  # the same of a folder of recordings

    def render(self, served: bool = False, running: bool | None = None) -> str:
        """The page as HTML.

        `served`: `graft watch` serves it, and new content is fetched; else the page reloads its file. `running` is
        whether a process works on the run, if that is known. Raises ModelError if the folder is no run, RunError if a
        file is damaged.
        """
        self.log.read()
        text, settings = self._recipe()
        status = self.status(running)
        template = templates().get_template("live.html.j2")
        grids = self._grids()
        found: str = template.render(
            served=served,
            status=status,
            recipe=text,
            settings=settings,
            charts=self._charts(status),
            scores=list(self.log.evaluations)[: -SCORES - 1 : -1],
            names=list(self.log.validation)[:METRICS],
            total_scores=len(self.log.evaluations),
            best=self.log.best.get((status["metric"], status["direction"])),
            grids=grids,
            heard=self._heard([step for step, _ in grids]),
            going_on=status["state"] in (*GOING_ON, "starting"),
            damaged=self.log.damaged,
            log=self.log,
        )
        return found

    def status(self, running: bool | None = None) -> dict[str, Any]:
        """What live.json says, with the step of the log if that is newer."""
        found: dict[str, Any] = {**UNKNOWN, "name": self.folder.resolve().name}
        known = read_json(self.folder / FILE)
        found |= known if isinstance(known, dict) else {}
        if self.log.last is not None:
            found["step"] = max(found["step"], int(self.log.last["step"]))
        if found["state"] in GOING_ON and running is False:
            found["state"] = "lost"
        elif found["state"] not in GOING_ON and running:  # it was started again, and loads its model
            found["state"] = "starting"
        steps, pace = found["steps"], found["seconds_per_step"]
        # a step of the head alone is much faster than the steps after it, so that stage says nothing about the end
        known_pace = pace if found["state"] == "training" and found["stage"] != "head" else None
        found["left"] = (steps - found["step"]) * known_pace if steps and known_pace else None
        return found

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        path = self.folder / "recipe.yaml"
        try:
            changed = path.stat().st_mtime
            if self.recipe is None or self.recipe[0] != changed:
                text = path.read_text(encoding="utf-8")
                self.recipe = (changed, text, parse(text, str(path))[0])
        except FileNotFoundError:
            raise ModelError(f"{self.folder}: no run folder (it has no recipe.yaml)") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error
        return self.recipe[1], self.recipe[2]

    def _charts(self, status: dict[str, Any]) -> list[str]:
        marks = [step for _, step in self.log.stages[1:]]
        drawn = []
        for name in list(self.log.validation)[:METRICS]:
            points = [(step, value) for step, _, value in self.log.validation[name].all()]
            level = ("test, before training", status["baseline"]) if name == status["metric"] else None
            level = level if level and level[1] is not None else None
            drawn.append(chart(f"{readable_name(name)} on validation", [Curve(name, points)], marks=marks, level=level))
        for place, (name, title) in enumerate((("loss", "Training loss"), ("learning_rate", "Learning rate"))):
            points = [(step, value) for step, _, value in self.log.steps[name].all()]
            positive = all(value >= 0 for _, value in points)
            curve = Curve(name, points, colour=1 + place)
            drawn.insert(1 + place, chart(title, [curve], marks=marks, from_zero=positive))
        return [one for one in drawn if one]

    def _grids(self) -> list[tuple[str, str]]:
        """The grids of samples: the step of each, and the picture as a data URI."""
        paths = sorted((self.folder / "samples" / "grids").glob("step_*.png"))
        kept = {folder.name for folder in players.steps(self.folder)}  # steps that can be heard, if there are any
        paths = [path for path in paths if path.stem in kept] or paths
        shown = []
        for path in evenly_spaced(paths, GRIDS):
            key = f"{path.name} {path.stat().st_mtime_ns}"
            if key not in self.grids:
                try:
                    self.grids[key] = _small(path)
                except OSError:  # the run is writing this file now, and the next page shows it
                    continue
            shown.append((step_of(path), self.grids[key]))
        return shown

    def _heard(self, shown: list[str]) -> dict[str, list[players.Player]]:
        """The players of the steps whose grids are shown. Only what is new is encoded."""
        found, known = {}, {}
        for folder in players.steps(self.folder):
            if step_of(folder) not in shown:
                continue
            try:
                key = f"{folder.name} {folder.stat().st_mtime_ns}"
            except FileNotFoundError:  # the run has just thinned them out
                continue
            known[key] = self.players[key] if key in self.players else players.of_step(folder, HEARD)
            found[step_of(folder)] = known[key]
        self.players = known
        return found


def step_of(path: Path) -> str:
    """The step in the name of a file or folder: step_000100.png -> 100."""
    return path.stem.removeprefix("step_").lstrip("0") or "0"


def _small(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        image.thumbnail((GRID_SIDE, GRID_SIDE))
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
