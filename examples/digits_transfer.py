"""`make demo`: how much transfer learning helps, on real handwritten digits, in minutes on any machine.

A small ViT learns the digits 0-4, then 5-9 from a few labelled images per class: from random weights, transferred, and
transferred with a frozen trunk. Validation selects each learning rate from the same three; test is used only at the
end.
"""

import sys
import time
from pathlib import Path
from typing import Any

from pipelines.config.recipe import load_recipe
from pipelines.errors import GraftError

ROOT = Path("runs/demo")
RATES = (3e-4, 1e-3, 3e-3)
ROWS = {
    "from scratch": ["model.weights=random"],
    "transferred": [],
    "transferred, trunk frozen": ["model.freeze=backbone"],
}


def main() -> None:
    from rich.console import Console

    from pipelines.training.run import train

    started = time.monotonic()
    console = Console()
    console.print("[bold]1. A small ViT learns the digits 0-4[/bold]")
    base = ROOT / "digits_vit_pretrain"
    first = _finished(train(load_recipe("digits_vit_pretrain"), base, name="digits_vit_pretrain", quiet=True))
    _say_score(console, first)
    console.print("\n[bold]2. The digits 5-9 from ten labelled images each, three ways, three rates[/bold]")
    table: dict[str, dict[str, Any]] = {}
    for row, overrides in ROWS.items():
        tried = []
        for rate in RATES:
            folder = ROOT / f"{row.replace(', ', '_').replace(' ', '_')}_{rate:g}"
            recipe = load_recipe("digits_vit_transfer", [f"train.learning_rate={rate}", *overrides], model=str(base))
            tried.append((_finished(train(recipe, folder, name="digits_vit_transfer", quiet=True)), folder, rate))
        best = max(tried, key=lambda one: one[0]["validation"]["metrics"]["accuracy"])
        seconds = sum(one[0]["train"]["seconds"] for one in tried)
        table[row] = {"results": best[0], "folder": best[1], "rate": best[2], "seconds": seconds}
        console.print(f"  {row}: learning rate {best[2]:g} is best on validation")
    show(console, table)
    folder = table["transferred"]["folder"]
    lines = [
        f"in {time.monotonic() - started:.0f} s. The report and the card of the transferred model:",
        f"  {folder / 'report.html'}",
        f"  {folder / 'model' / 'README.md'}",
        "",
        "Next:",
        f"  .venv/bin/graft demo {folder}    # the model in your browser",
        "  .venv/bin/graft recipes                             # what else there is",
        "  .venv/bin/graft train YOUR_PHOTOS                   # photos, a folder for each class",
    ]
    console.print()
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _finished(results: dict[str, Any] | None) -> dict[str, Any]:
    if results is None:
        raise KeyboardInterrupt
    return results


def _say_score(console: Any, results: dict[str, Any]) -> None:
    test = results["test"]
    low, high = test["ci95"]["accuracy"]
    console.print(
        f"  accuracy on {test['n']} test digits: {test['metrics']['accuracy']:.3f} (95 % interval {low:.3f} to "
        f"{high:.3f})"
    )


def show(console: Any, table: dict[str, dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    n = next(iter(table.values()))["results"]["test"]["n"]
    shown = Table(
        title=f"Digits 5-9 from 10 labelled images each; accuracy on the same {n} test digits",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name, side in (
        ("", "left"),
        ("accuracy", "right"),
        ("95 % interval", "right"),
        ("before", "right"),
        ("rate", "right"),
        ("time", "right"),
    ):
        shown.add_column(name, justify=side)  # type: ignore[arg-type]
    for row, one in table.items():
        test, before = one["results"]["test"], one["results"]["baseline"]
        low, high = test["ci95"]["accuracy"]
        cells = (
            f"{test['metrics']['accuracy']:.3f}",
            f"{low:.3f} - {high:.3f}",
            f"{before['metrics']['accuracy']:.3f}",
        )
        shown.add_row(row, *cells, f"{one['rate']:g}", f"{one['seconds']:.1f} s")
    console.print()
    console.print(shown)
    console.print("before: accuracy before the first step. time: training with all three rates.")


if __name__ == "__main__":
    try:
        main()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; `make demo` goes on from there", file=sys.stderr)
        sys.exit(130)
