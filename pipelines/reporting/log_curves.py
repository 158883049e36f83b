"""The curves of a run's log.jsonl, read as the file grows: some hundred points each, however long it is."""

import json
import math
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST = 300  # points of a curve, up to twice as many
PARSED = 20_000  # lines of steps that one call of `read` parses; of more it takes every second, third, ...
PIECE = 4 << 20  # bytes that are read at a time
SHOWN = 200  # evaluations that are kept as they are

Point = tuple[float, float, float]  # step, seconds of training, value


class Points:
    """The points of one curve. When they become too many, neighbours are replaced by their mean."""

    def __init__(self) -> None:
        self.means: list[Point] = []
        self.open: list[Point] = []
        self.every = 1  # entries of the log in one point

    def add(self, point: Point) -> None:
        self.open.append(point)
        if len(self.open) == self.every:
            self.means.append(_mean(self.open))
            self.open = []
        if len(self.means) >= 2 * MOST:
            self.means = [_mean(self.means[place : place + 2]) for place in range(0, len(self.means), 2)]
            self.every *= 2

    def all(self) -> list[Point]:
        return [*self.means, _mean(self.open)] if self.open else list(self.means)


def _mean(points: list[Point]) -> Point:
    count = len(points)
    return (sum(p[0] for p in points) / count, sum(p[1] for p in points) / count, sum(p[2] for p in points) / count)


class LogCurves:
    """The curves of one log file. `read` adds the lines that were written since its last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forget()

    def forget(self) -> None:
        self.at, self.file = 0, 0  # the next byte to read, and the number of the file (inode)
        self.steps: dict[str, Points] = {"loss": Points(), "learning_rate": Points()}
        self.validation: dict[str, Points] = {}
        # (metric, "max" or "min") -> its best value so far and the step; of equal values the later one, as in a run
        self.best: dict[tuple[str, str], tuple[float, int]] = {}
        self.evaluations: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        self.last: dict[str, Any] | None = None
        self.stages: list[tuple[str, float]] = []  # name of each stage and its first logged step
        self.seconds = 0.0
        self.damaged = 0  # lines that are not JSON

    def read(self) -> bool:
        """Read the new lines. Returns whether there were any. A file that was cut or replaced is read from its start.

        A last line without its end is left for the next call: it is being written, or a kill cut it off.
        """
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size < self.at or status.st_ino != self.file:
                    self.forget()
                    self.file = status.st_ino
                if status.st_size == self.at:
                    return False
                every = self._every(file, status.st_size)
                file.seek(self.at)
                count = 0
                for line in _lines(file):
                    self.at += len(line) + 1
                    count += 1
                    if count % every == 0 or b'"validation"' in line:
                        self._add(line)
                return count > 0
        except FileNotFoundError:
            return False

    def _every(self, file: Any, size: int) -> int:
        """Which part of the new lines of steps to parse, estimated from the length of the first of them."""
        file.seek(self.at)
        first = file.readline(PIECE)
        return max(1, (size - self.at) // max(len(first), 1) // PARSED)

    def _add(self, line: bytes) -> None:
        try:
            entry = json.loads(line, parse_constant=lambda _: None)  # older versions wrote NaN
            step, stage = float(entry["step"]), str(entry["stage"])
        except (ValueError, KeyError, TypeError):
            self.damaged += bool(line.strip())
            return
        if not self.stages or self.stages[-1][0] != stage:
            self.stages.append((stage, step))
        if _is_number(entry.get("seconds")):
            self.seconds = float(entry["seconds"])
        if isinstance(entry.get("validation"), dict):
            self.evaluations.append(entry)
            for name, value in entry["validation"].items():
                points = self.validation.setdefault(str(name), Points())
                if _is_number(value):
                    points.add((step, self.seconds, float(value)))
                    for direction, better in (("max", max), ("min", min)):
                        known = self.best.get((str(name), direction))
                        if known is None or better(value, known[0]) == value:
                            self.best[str(name), direction] = (float(value), int(step))
        else:
            for name, points in self.steps.items():
                if _is_number(entry.get(name)):
                    points.add((step, self.seconds, float(entry[name])))
        self.last = entry


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lines(file: Any) -> Iterator[bytes]:
    """The complete lines from here, without their ends."""
    rest = b""
    while piece := file.read(PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
