"""`make timeline`: networks from 1958 to 2020 on one set of images, in minutes on any machine.

Each network learns from 10, 30 and 100 % of the train rows, with equal numbers of steps, and is scored on the same test
rows: handwritten digits that come with scikit-learn, or any folder of images (`make timeline DATA=photos/`). All start
from random weights, except the last one: a ViT that has learned digits which this program draws with the fonts of
matplotlib (twice as many steps, which the table does not count), or, with --model, any other model. The autoencoder
gets labels in the second half of its steps only. LeNet, AlexNet and ResNet read the digits enlarged to 32 pixels.
Rates and steps were set once, and are not tuned on these rows. There is one seed, and the interval is of the test rows.

It writes timeline.md, timeline.png, timeline.svg and results.json into runs/timeline. If it is stopped, the same
command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import Recipe, validate
from pipelines.errors import DataError, GraftError
from pipelines.plots import style
from pipelines.utils.files import to_json, write_text
from pipelines.utils.formatting import large

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.1, 0.3, 1.0)  # of the train rows
REACHED = 0.9  # the accuracy that "rows needed" asks for
PRINTED = 200  # drawn digits of each class
BATCH = 32
FONTS = (
    "DejaVu Sans",
    "DejaVu Sans:bold",
    "DejaVu Sans:oblique",
    "DejaVu Sans Mono",
    "DejaVu Serif",
    "STIXGeneral",
    "cmr10",
)


@dataclass(frozen=True)
class Network:
    name: str
    year: int | None  # None for a model of the user's choice: its year is not known
    config: dict[str, Any]  # for `model.config`; the size of its images is added
    rate: float
    least: int = 8  # the smallest size of images that it reads, in pixels
    options: tuple[tuple[str, Any], ...] = ()


VIT = {
    "model_type": "vit",
    "num_channels": 3,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
RESNET = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64],
    "depths": [1, 1, 1],
}
PERCEPTRON = Network("perceptron", 1958, {"model_type": "perceptron"}, 1e-2)
NETWORKS = (
    PERCEPTRON,
    Network("multilayer perceptron", 1986, {"model_type": "mlp"}, 2e-3),
    Network("LeNet-5", 1998, {"model_type": "lenet"}, 2e-3, 32),
    Network(
        "autoencoder, then labels",
        2006,
        {"model_type": "autoencoder", "hidden_size": 200, "num_hidden_layers": 2},
        3e-3,
        options=(("pretrain", 0.5),),
    ),
    Network("AlexNet, an eighth as wide", 2012, {"model_type": "alexnet", "width": 0.125}, 1e-3, 32),
    Network("ResNet, small", 2015, RESNET, 2e-3, 32),
    Network("ViT, small", 2020, VIT, 1e-3),
)


def main(arguments: Sequence[str] | None = None) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    given = _parser().parse_args(arguments)
    found = run(given.data, Path(given.run), size=given.size, steps=given.steps, model=given.model)
    write(found, Path(given.run))
    console = Console()
    console.print(Markdown(table(found)))
    for name in ("timeline.md", "timeline.png", "timeline.svg", "results.json"):
        console.print(f"  {Path(given.run) / name}", soft_wrap=True, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--data", help="a folder of images with a folder for each class; left out: scikit-learn's digits"
    )
    parser.add_argument("--model", help="a pretrained model (hub id or folder) for the last line, instead of the ViT")
    parser.add_argument("--run", default="runs/timeline", help="where runs and results go (%(default)s)")
    parser.add_argument("--size", type=int, help="pixels a side; left out: 8 for the digits, 32 for a folder")
    parser.add_argument("--steps", type=int, default=300, help="steps of every network (%(default)s)")
    return parser


# ---- the runs ----


def run(data: str | None, folder: Path, *, size: int | None, steps: int, model: str | None) -> list[dict[str, Any]]:
    """Train every network with every share of the rows. Returns one entry per network, in the order of the years.

    Runs that are finished are read, and the one that was stopped goes on. Raises GraftErrors.
    """
    size = size or (8 if data is None else 32)
    if size < 4 or steps < 1:
        raise DataError("timeline: --size must be 4 or more, and --steps 1 or more")
    found = []
    for network in NETWORKS:
        found.append(_trained(network, _recipe(network, data, size, steps), folder))
    last = _pretrained(data, folder, size, steps, model)
    if last is not None:
        found.append(_trained(*last, folder))
    return found


def _recipe(network: Network, data: str | None, size: int, steps: int) -> dict[str, Any]:
    pixels = max(size, network.least)
    config = {**network.config, "image_size": pixels}
    if network.config["model_type"] == "vit":
        config["patch_size"] = max(2, pixels // 8)
    if network.config["model_type"] == "resnet":
        del config["image_size"]
    if network.config["model_type"] in ("perceptron", "mlp", "lenet", "autoencoder"):
        config["grayscale"] = data is None
    rows = {"id": "sklearn/digits", "format": "digits"} if data is None else {"id": data}
    return {
        "task": "image-classification",
        "model": {"config": config},
        "data": rows,
        "options": {"image_size": pixels, **dict(network.options)},
        "train": {
            "max_steps": steps,
            "batch_size": BATCH,
            "learning_rate": network.rate,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "eval_every": max(1, steps // 6),
            "save_every": max(1, steps // 6),
            "baseline": False,
        },
    }


def _trained(network: Network, raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The scores of one network, with all rows first: this run says how many rows there are."""
    points: list[dict[str, Any]] = []
    whole: dict[str, Any] = {}
    for share in reversed(SHARES):
        rows = round(share * whole["data"]["train"]["rows"]) if whole else None
        recipe = {**raw, "data": {**raw["data"], **({"max_train_rows": rows} if rows else {})}}
        name = f"{_of(network.year)}_{_plain(network.name)}_{round(100 * share)}"
        results = _finished(validate(recipe), folder / name)
        whole = whole or results
        points.append({"share": share, **_score(results)})
    points.reverse()
    reached = [point["rows"] for point in points if point["accuracy"] >= REACHED]
    return {
        "name": network.name,
        "year": network.year,
        "pixels": raw["options"].get("image_size"),
        **{key: points[-1][key] for key in ("accuracy", "ci95", "seconds")},
        "parameters": whole["model"]["parameters"],
        "test_rows": whole["test"]["n"],
        "rows_needed": reached[0] if reached else None,
        "points": points,
        "data": whole["data"]["name"],
        "hardware": whole["environment"]["hardware"],
    }


def _score(results: dict[str, Any]) -> dict[str, Any]:
    test = results["test"]
    return {
        "rows": results["data"]["train"]["rows"],
        "accuracy": test["metrics"]["accuracy"],
        "ci95": test["ci95"].get("accuracy"),
        "seconds": results["train"]["seconds"],
    }


def _finished(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The results of a run, which trains unless it is finished."""
    from pipelines.training.run import train

    results = train(recipe, folder, quiet=True)
    if results is None:
        raise KeyboardInterrupt
    return results


def _of(year: int | None) -> str:
    return str(year or "pretrained")


def _plain(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name.casefold())


# ---- the pretrained network ----


def _pretrained(
    data: str | None, folder: Path, size: int, steps: int, model: str | None
) -> tuple[Network, dict[str, Any]] | None:
    """The last network and its recipe; None for a folder without --model, because drawn digits say little of photos."""
    vit = NETWORKS[-1]
    if model is not None:
        network = Network(Path(model).name, None, vit.config, 3e-4)
        raw = _recipe(network, data, size, steps)
        return network, {**raw, "model": {"id": model}, "options": {}}
    if data is not None:
        print("no pretrained network: give one with --model (a hub id or a folder)")
        return None
    network = Network("ViT, pretrained on drawn digits", vit.year, vit.config, vit.rate / 2)
    printed = folder / f"printed_digits_{size}"
    draw_digits(printed, size, PRINTED)
    first = _recipe(vit, str(printed), size, 2 * steps)
    base = folder / f"pretrained_on_printed_digits_{size}"
    _finished(validate(first), base)
    raw = _recipe(network, data, size, steps)
    return network, {**raw, "model": {"id": str(base)}}


def draw_digits(folder: Path, size: int, count: int) -> None:
    """Write `count` pictures of each digit, white on black, in the fonts of matplotlib, moved, turned and scaled."""
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    if (folder / "complete").is_file():
        return
    fonts = [font_manager.findfont(name) for name in FONTS]
    rng = Random(0)
    for digit in range(10):
        (folder / "train" / str(digit)).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            font = ImageFont.truetype(rng.choice(fonts), rng.randint(70, 100))
            picture = Image.new("L", (128, 128))
            place = (64 + rng.randint(-8, 8), 64 + rng.randint(-8, 8))
            ImageDraw.Draw(picture).text(place, str(digit), fill=255, font=font, anchor="mm")
            picture = picture.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR).crop((16, 12, 112, 116))
            picture.resize((size, size), Image.Resampling.BOX).save(folder / "train" / str(digit) / f"{number}.png")
    write_text(folder / "complete", "")


# ---- table and picture ----


def table(found: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table, with a line about data and machine above it."""
    first = found[0]
    rows = ", ".join(f"{point['rows']:,}" for point in first["points"])
    shares = " | ".join(f"{100 * share:.0f} % of the rows" for share in SHARES)
    lines = [
        f"{first['data']}: accuracy on the same {first['test_rows']:,} test rows, with its 95 % interval, after "
        f"training on {rows} rows. {first['hardware']}.",
        "",
        f"| year | network | pixels | parameters | {shares} | 95 % interval, all rows | rows for {REACHED} | seconds |",
        "|---|---|---|---|" + "---|" * (len(SHARES) + 3),
    ]
    for one in found:
        values = " | ".join(f"{point['accuracy']:.3f}" for point in one["points"])
        interval = "{:.3f} to {:.3f}".format(*one["ci95"]) if one["ci95"] else "-"
        needed = f"{one['rows_needed']:,}" if one["rows_needed"] else "more"
        lines.append(
            f"| {_of(one['year'])} | {one['name']} | {one['pixels'] or 'its own'} | {one['parameters']:,} | {values} | "
            f"{interval} | {needed} | {one['seconds']:.1f} |"
        )
    about = (
        f"rows for {REACHED}: the smallest of the three numbers of rows with which the network reached this accuracy. "
        "seconds: of training with all rows. pixels: a side of the images that the network reads."
    )
    return "\n".join([*lines, "", about, ""])


@style.styled
def picture(found: Sequence[dict[str, Any]]) -> "Figure":
    """Accuracy of every network, in the order of the years: with all rows and its interval, and with fewer rows."""
    figure = style.canvas(2 * style.WIDTH, 0.9 + 0.42 * len(found))
    axes = figure.subplots()
    places = range(len(found))
    marks = ((0, style.PALE, "s"), (1, style.TEAL, "D"), (2, style.BLUE, "o"))
    for number, colour, mark in marks:
        values = [one["points"][number]["accuracy"] for one in found]
        label = f"{100 * SHARES[number]:.0f} % of the rows ({found[0]['points'][number]['rows']:,})"
        axes.plot(values, places, mark, color=colour, markersize=7, label=label, zorder=3 + number)
    for place, one in zip(places, found, strict=True):
        if one["ci95"]:
            axes.plot(one["ci95"], (place, place), color=style.BLUE, linewidth=3, alpha=0.4, solid_capstyle="butt")
    names = [f"{_of(one['year'])}  {one['name']}  ({large(one['parameters'])} parameters)" for one in found]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(f"accuracy on {found[0]['test_rows']:,} test rows; the bar is the 95 % interval")
    figure.legend(loc="outside lower center", ncols=len(SHARES))
    years = [one["year"] for one in found if one["year"]]
    style.headline(figure, f"Networks from {min(years)} to {max(years)} on {found[0]['data']}")
    values = ", ".join(f"{one['name']} {one['accuracy']:.3f}" for one in found)
    return style.finish(figure, f"Accuracy of networks by year, with all rows: {values}.")


def write(found: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write table, picture and numbers into the folder."""
    drawn = picture(found)
    (folder / "timeline.png").write_bytes(style.png(drawn))
    (folder / "timeline.svg").write_bytes(style.svg(drawn))
    write_text(folder / "timeline.md", table(found))
    write_text(folder / "results.json", to_json({"networks": list(found)}))


if __name__ == "__main__":
    try:
        main()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
