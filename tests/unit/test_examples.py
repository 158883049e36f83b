"""The example programs read the results that a run writes."""

import importlib.util
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.errors import DataError, GraftError
from tests.support.fake_run import fake_run
from tests.support.runs import without_pictures

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_transfer.py"


def test_the_table_of_digits_transfer(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("digits_transfer", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    results = json.loads((fake_run(tmp_path / "run", n=60, pictures=False) / "results.json").read_text())
    row = {"results": results, "folder": tmp_path / "run", "rate": 1e-3, "seconds": 2.0}
    console = Console(file=io.StringIO(), width=120)
    example.show(console, dict.fromkeys(example.ROWS, row))
    shown = console.file.getvalue()
    assert all(name in shown for name in example.ROWS)
    assert f"{results['test']['metrics']['accuracy']:.3f}"[:4] in shown


# ---- the timeline of networks ----


def timeline() -> Any:
    spec = importlib.util.spec_from_file_location("timeline", EXAMPLE.with_name("timeline.py"))
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules["timeline"] = example  # its dataclass looks there for its annotations
    spec.loader.exec_module(example)
    return example


def entry(name: str, year: int | None, accuracies: Sequence[float], interval: list[float] | None) -> dict[str, Any]:
    points = [
        {"share": share, "rows": rows, "accuracy": accuracy, "ci95": None, "seconds": 1.0}
        for share, rows, accuracy in zip((0.1, 0.3, 1.0), (81, 242, 806), accuracies, strict=True)
    ]
    reached = [point["rows"] for point in points if point["accuracy"] >= 0.9]
    about = {"parameters": 12_345, "test_rows": 901, "rows_needed": reached[0] if reached else None}
    last = {"accuracy": accuracies[-1], "ci95": interval, "seconds": 1.5}
    about |= {"pixels": 8 if year else None}
    return {"name": name, "year": year, **about, **last, "points": points, "data": "digits", "hardware": "CPU, 2 cores"}


def test_the_table_and_the_picture_of_the_timeline(tmp_path: Path) -> None:
    example = timeline()
    found = [entry("perceptron", 1958, (0.7, 0.8, 0.85), [0.83, 0.88]), entry("ViT", None, (0.6, 0.91, 0.95), None)]
    example.write(found, tmp_path)
    written = (tmp_path / "timeline.md").read_text()
    assert "| 1958 | perceptron | 8 | 12,345 | 0.700 | 0.800 | 0.850 | 0.830 to 0.880 | more | 1.5 |" in written
    assert "| pretrained | ViT | its own | 12,345 | 0.600 | 0.910 | 0.950 | - | 242 | 1.5 |" in written
    assert json.loads((tmp_path / "results.json").read_text())["networks"] == found
    assert "perceptron" in (tmp_path / "timeline.svg").read_text()
    assert (tmp_path / "timeline.png").stat().st_size < 300_000


def test_drawn_digits_are_the_same_every_time(tmp_path: Path) -> None:
    example = timeline()
    for name in ("one", "two"):
        example.draw_digits(tmp_path / name, 8, count=2)
    first, second = (sorted((tmp_path / name / "train").rglob("*.png")) for name in ("one", "two"))
    assert len(first) == 20
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len({path.read_bytes() for path in first}) == 20


@pytest.mark.integration
def test_the_timeline_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two networks and the pretrained one, on the digits; a second call trains nothing, and says the same."""
    example = timeline()
    monkeypatch.setattr(example, "NETWORKS", (example.NETWORKS[0], example.NETWORKS[-1]))
    monkeypatch.setattr(example, "SHARES", (0.1, 0.3, 1.0))
    monkeypatch.setattr(example, "PRINTED", 10)
    calls: list[Path] = []
    finished = example._finished

    def stopped(recipe: Any, folder: Path) -> Any:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(folder)
        return finished(recipe, folder)

    monkeypatch.setattr(example, "_finished", stopped)
    with without_pictures(), pytest.raises(KeyboardInterrupt):
        example.main(["--run", str(tmp_path), "--steps", "4"])
    assert not (tmp_path / "timeline.md").exists()
    monkeypatch.setattr(example, "_finished", finished)
    with without_pictures():
        example.main(["--run", str(tmp_path), "--steps", "4"])
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
        written = (tmp_path / "results.json").read_bytes()
        example.main(["--run", str(tmp_path), "--steps", "4"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == before
    assert (tmp_path / "results.json").read_bytes() == written
    names = [one["name"] for one in json.loads(written)["networks"]]
    assert names == ["perceptron", "ViT, small", "ViT, pretrained on drawn digits"]
    assert [len(one["points"]) for one in json.loads(written)["networks"]] == [3, 3, 3]


def test_a_timeline_of_nothing_is_an_error(tmp_path: Path) -> None:
    example = timeline()
    with pytest.raises(DataError, match="--size must be 4 or more"):
        example.main(["--run", str(tmp_path), "--size", "2"])
    with pytest.raises(GraftError, match="no such"):
        example.main(["--run", str(tmp_path), "--data", str(tmp_path / "absent")])
