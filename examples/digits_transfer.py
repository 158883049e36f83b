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
    first = _finished(train(load_recipe("digits_vit_pretrain"), base, name="digits_vit_pretrain"))
    _say_score(console, first)
    console.print("\n[bold]2. The digits 5-9 from ten labelled images each, three ways, three learning rates[/bold]")
    table: dict[str, dict[str, Any]] = {}
    for row, overrides in ROWS.items():
        tried = []
        for rate in RATES:
            folder = ROOT / f"{row.replace(', ', '_').replace(' ', '_')}_{rate:g}"
            recipe = load_recipe("digits_vit_transfer", [f"train.learning_rate={rate}", *overrides], model=str(base))
            tried.append((_finished(train(recipe, folder, name="digits_vit_transfer")), folder, rate))
        best = max(tried, key=lambda one: one[0]["validation"]["metrics"]["accuracy"])
        seconds = sum(one[0]["train"]["seconds"] for one in tried)
        table[row] = {"results": best[0], "folder": best[1], "rate": best[2], "seconds": seconds}
        console.print(f"  {row}: learning rate {best[2]:g} is best on validation")
    show(console, table)
    folder = table["transferred"]["folder"]
    console.print(
        f"\nin {time.monotonic() - started:.0f} s. The report of the transferred model: {folder / 'report.html'}"
    )
    console.print(
        f"Its card: {folder / 'model' / 'README.md'}\n\nNext:\n  .venv/bin/graft demo {folder}      the model in your "
        "browser"
    )
    console.print("  .venv/bin/graft recipes            what else there is")
    console.print(
        "  .venv/bin/graft train photos_efficientnet_b0 --data YOUR_PHOTOS      a folder of photos, a folder for "
        "each class"
    )


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
    from rich.table import Table

    n = next(iter(table.values()))["results"]["test"]["n"]
    shown = Table(
        title=f"Digits 5-9 from 10 labelled images each; accuracy on the same {n} test digits", title_justify="left"
    )
    for name, side in (
        ("", "left"),
        ("accuracy", "right"),
        ("95 % interval", "right"),
        ("before", "right"),
        ("rate", "right"),
        ("seconds", "right"),
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
        shown.add_row(row, *cells, f"{one['rate']:g}", f"{one['seconds']:.1f}")
    console.print()
    console.print(shown)
    console.print(
        "seconds: in the training loops of all three rates. before: the same test digits before the first step."
    )


if __name__ == "__main__":
    try:
        main()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; `make demo` goes on from there", file=sys.stderr)
        sys.exit(130)
