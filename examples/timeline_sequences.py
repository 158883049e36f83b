"""`make timeline-sequences`: LSTM (1997), GRU (2014) and Transformer (2017) as language models of equal size.

    make timeline-sequences [DATA=texts/]

Each reads the same tokens of the same training rows in the same batches, and has the same number of weights, within 2
percent. The learning rate of each is the better one of two on the validation rows; test is scored once. Without DATA,
the text is the language reference that comes with Python. A Wikipedia dump, a folder of documents, or a table with the
column `text` are others.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from pipelines.config.recipe import validate
from pipelines.errors import GraftError

WORDS = 4000  # tokens of the vocabulary
TRANSFORMER = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512}
YEARS = {"lstm": 1997, "gru": 2014, "transformer": 2017}
NAMES = {"lstm": "LSTM", "gru": "GRU", "transformer": "Transformer"}
RATES = {"lstm": (3e-3, 6e-3), "gru": (3e-3, 6e-3), "transformer": (1e-3, 2e-3)}


def sizes(words: int = WORDS) -> dict[str, dict[str, Any]]:
    """The configuration of each network: the recurrent ones as wide as gives them the Transformer's size."""
    from pipelines.models import classics

    def weights(kind: str, given: dict[str, Any]) -> int:
        import torch

        (network,) = (one for one in classics.networks(kind) if one.__name__.endswith("ForCausalLM"))
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in network(vocab_size=words, **given).parameters())

    wanted = weights("transformer", TRANSFORMER)
    found = {"transformer": TRANSFORMER}
    for kind in ("lstm", "gru"):
        tried = [{"hidden_size": size, "embedding_size": 128, "num_hidden_layers": 2} for size in range(64, 320, 2)]
        found[kind] = min(tried, key=lambda one: abs(weights(kind, one) - wanted))
    return found


def reference(folder: Path) -> Path:
    """The language reference that comes with Python, a row for each of its topics."""
    from pydoc_data.topics import topics

    rows = [json.dumps({"text": re.sub(r"\n+\s*", "\n", text).strip()}) for _, text in sorted(topics.items())]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python_reference.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def recipe(kind: str, config: dict[str, Any], data: Path, steps: int, rate: float) -> dict[str, Any]:
    form = {"format": "wikipedia"} if ".xml" in data.name else {}
    return {
        "task": "text-generation",
        "model": {"config": {"model_type": kind, "tokenizer": "bpe", "vocab_size": WORDS, "dropout": 0.1, **config}},
        "data": {"id": str(data), "max_eval_rows": 100, **form},
        "options": {"max_length": 128, "max_new_tokens": 24},
        "train": {
            "max_steps": steps,
            "batch_size": 16,
            "learning_rate": rate,
            "schedule": "cosine",
            "warmup": 0.1,
            "weight_decay": 0.01,
            "precision": "fp32",
        },
    }


def trained(kind: str, config: dict[str, Any], data: Path, steps: int, tries: int, root: Path) -> dict[str, Any]:
    """The run whose learning rate is the best on validation."""
    from pipelines.training.run import train

    tried = []
    for rate in RATES[kind][:tries]:
        folder = root / f"{kind}_{rate:g}"
        results = train(validate(recipe(kind, config, data, steps, rate)), folder, name=folder.name, quiet=True)
        if results is None:
            raise KeyboardInterrupt
        tried.append({"results": results, "folder": folder, "rate": rate})
    return min(tried, key=lambda one: one["results"]["validation"]["metrics"]["bits_per_byte"])


def table(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each network, with its difference to the LSTM on the same test rows."""
    from pipelines.evaluation.compare import compare

    rows = []
    for kind, one in found.items():
        results = one["results"]
        test = results["test"]
        row = {
            "name": NAMES[kind],
            "year": YEARS[kind],
            "value": test["metrics"]["bits_per_byte"],
            "ci95": test["ci95"].get("bits_per_byte"),
            "weights": results["model"]["parameters"],
            "seconds": results["train"]["seconds"],
            "rate": one["rate"],
            "difference": None,
        }
        if kind != "lstm":
            paired = compare([found["lstm"]["folder"], one["folder"]])["comparisons"][0]["metrics"]["bits_per_byte"]
            row["difference"] = (paired["difference"], paired["ci95"])
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], n: int) -> None:
    print(f"\nBits per byte of {n:,} test rows, with 95 % intervals; lower is better\n")
    print(f"{'':13}{'year':>5}{'bits per byte':>25}{'minus LSTM':>28}{'weights':>12}{'rate':>8}{'seconds':>9}")
    for row in rows:
        value = f"{row['value']:.3f}{_interval(row['ci95'])}"
        minus = "" if row["difference"] is None else f"{row['difference'][0]:+.3f}{_interval(row['difference'][1])}"
        print(
            f"{row['name']:13}{row['year']:>5}{value:>25}{minus:>28}{row['weights']:>12,}{row['rate']:>8g}"
            f"{row['seconds']:>9.0f}"
        )


def _interval(ci95: Any) -> str:
    return f" ({ci95[0]:.3f} to {ci95[1]:.3f})" if ci95 else ""


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Bits per byte against the year, with intervals."""
    from pipelines.plots.style import BLUE, WIDTH, canvas, finish, headline, png, styled

    @styled
    def figure() -> Any:
        drawn = canvas(WIDTH, 3.2)
        axes = drawn.subplots()
        for row in rows:
            low, high = row["ci95"] or (row["value"], row["value"])
            axes.errorbar(
                row["year"], row["value"], [[row["value"] - low], [high - row["value"]]], fmt="o", color=BLUE, capsize=4
            )
            axes.annotate(row["name"], (row["year"], row["value"]), (7, 4), textcoords="offset points")
        axes.set_xlim(1994, 2023)
        axes.set_ylabel("bits per byte")
        headline(drawn, "Language models of equal size and budget")
        said = "; ".join(f"{row['name']} {row['year']}: {row['value']:.3f}" for row in rows)
        return finish(drawn, f"Bits per byte of test text against the year of the network. {said}.")

    path.write_bytes(png(figure()))


def main() -> None:
    parser = argparse.ArgumentParser(description="LSTM, GRU and Transformer of equal size: bits per byte")
    parser.add_argument("--data", type=Path, help="texts; left out: Python's language reference")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run, 2,048 tokens each")
    parser.add_argument("--tries", type=int, choices=(1, 2), default=2, help="learning rates of each network to try")
    parser.add_argument("--out", type=Path, default=Path("runs/timeline_sequences"))
    asked = parser.parse_args()
    data = asked.data or reference(asked.out)
    found = {}
    for kind, config in sorted(sizes().items(), key=lambda one: YEARS[one[0]]):
        found[kind] = trained(kind, config, data, asked.steps, asked.tries, asked.out)
        print(f"{NAMES[kind]}: learning rate {found[kind]['rate']:g}", flush=True)
    rows = table(found)
    show(rows, found["lstm"]["results"]["test"]["n"])
    draw(rows, asked.out / "timeline_sequences.png")
    (asked.out / "timeline_sequences.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\nThe picture: {asked.out / 'timeline_sequences.png'}")


if __name__ == "__main__":
    try:
        main()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
