"""The example programs read the results that a run writes."""

import importlib.util
import io
import json
from pathlib import Path

from rich.console import Console

from tests.support.fake_run import fake_run

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
