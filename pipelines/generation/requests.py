"""One image on request, for `graft predict` and the demos: made, named, and kept with the settings that made it."""

import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pipelines.errors import DataError, RunError
from pipelines.generation.spec import Setting
from pipelines.utils.formatting import short

MOST_LETTERS = 100_000  # that an image may say about what made it
LONGEST = 48  # letters of a prompt in a file name: names have at most 255 bytes


def images(task: Any, model: Any, request: dict[str, Any]) -> Iterator[Any]:
    """What `infer` yields: the image as it comes to be, the finished one last. Raises RunError out of memory."""
    from pipelines.utils.hardware import out_of_memory

    try:
        yield from task.infer(model, **request)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise RunError(
            "out of memory while making an image: make fewer or smaller ones, or free some memory of this machine"
        ) from None


def whole(task: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The request with every setting that it leaves to the task. Raises DataError for a seed that is none."""
    seed = check_seed(request.get("seed", 0))
    return {**task.generation.defaults(seed), **request, "seed": seed}


def split_pairs(task: Any, inputs: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Inputs of `graft predict` -> what `name=value` says of every image, and the rest: prompts, seeds, tables.

    A prompt that begins like a pair is written text=...; it then stands alone. Raises DataError.
    """
    allowed = [name for name in inspect.signature(task.infer).parameters if name != "model"]
    pairs: dict[str, Any] = {}
    rest = []
    for text in inputs:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            rest.append(text)
            continue
        if name not in allowed:
            own = f"; a prompt that begins so is written text={short(text)!r}" if "text" in allowed else ""
            raise DataError(f"{short(text)!r}: this task takes {', '.join(f'{key}=...' for key in allowed)}{own}")
        if name in pairs:
            raise DataError(f"{name} is given twice: give it once")
        setting = task.generation.settings.get(name)
        pairs[name] = value if setting is None else _number(name, value, setting)
    asked = task.data.input_columns[0]
    if rest and asked in pairs:
        raise DataError(
            f"{asked}={short(str(pairs[asked]))} and {short(rest[0])!r}: give either {asked}=..., or values without a "
            "name"
        )
    if not rest and asked not in pairs and asked != "seed":
        raise DataError(f"{asked} is missing: give {asked}=... beside {', '.join(f'{key}=...' for key in pairs)}")
    return pairs, rest


def _number(name: str, value: str, setting: Setting) -> int | float:
    """A whole number, whose bounds `infer` knows, or a number within its bounds. Raises DataError."""
    try:
        found = setting.kind(value)
    except ValueError:
        found = math.nan
    within = setting.kind is int or setting.least <= found <= setting.most
    if math.isnan(found) or not within:
        wanted = "whole number" if setting.kind is int else f"number from {setting.least:g} to {setting.most:g}"
        raise DataError(f"{name}={short(value)}: give a {wanted}")
    return found


def settings(model: str, request: dict[str, Any]) -> dict[str, Any]:
    """What is written into the file: {model, prompt, label, seed, steps, guidance}, as far as the task has them."""
    found = {
        "model": model,
        "prompt": request.get("text"),
        **{key: request.get(key) for key in ("label", "seed", "steps", "guidance")},
    }
    return {key: value for key, value in found.items() if value is not None}


def subject(model: str, about: dict[str, Any]) -> str:
    """What an image with these settings is called: its prompt, else its model and class."""
    return str(about.get("prompt") or " ".join([model, *([about["label"]] if "label" in about else [])]))


def file_name(what: str, seed: int, suffix: str = ".png") -> str:
    """`a red disc` -> a-red-disc-seed-0.png."""
    words = re.sub(r"[^\w]+", "-", what.lower())[:LONGEST].strip("-_")
    return f"{words or 'image'}-seed-{seed}{suffix}"


def write(folder: Path, name: str, result: Any, about: dict[str, Any], save: Any = None) -> Path:
    """A new file, never over one that is there: x.png, else x-2.png, x-3.png. `save` writes it, or `save_png`. Raises RunError."""
    path, number = folder / name, 1
    while True:
        try:
            path.open("xb").close()  # it is ours from here on, whoever else writes
        except FileExistsError:
            number += 1
            path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
            continue
        except OSError as error:
            raise _refused(folder, error) from None
        try:
            (save or save_png)(result, path, about)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _refused(folder, error) from None
        return path


def _refused(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{folder.absolute()}: the image cannot be written: {error.strerror or error}; go to a folder that has room "
        "for it"
    )


def read_settings(notes: Mapping[Any, Any], called: str) -> dict[str, Any]:
    """What made an image, from the `parameters` among its notes (`data.images.read_notes`). Raises DataError where they say nothing."""
    said = notes.get("parameters")
    if not isinstance(said, str):
        raise DataError(
            f"{called} does not say what made it: PNG files saved here do, screenshots and converted copies do not"
        )
    if len(said) > MOST_LETTERS:
        raise DataError(f"{called} says {len(said):,} letters about what made it: at most {MOST_LETTERS:,} are read")
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        found = None
    # what other programs write there is shown as the text that it is: nested values, and numbers that a page cannot show, too
    return (
        found
        if isinstance(found, dict) and all(_plain(value) for value in found.values())
        else {"parameters": str(said)}
    )


def _plain(value: Any) -> bool:
    return isinstance(value, str) or value is None or (isinstance(value, (int, float)) and abs(value) < 2**63)


def check_seed(value: Any) -> int:
    """A seed given as a number or as text. Raises DataError."""
    try:
        seed = int(str(value).strip())
    except ValueError:
        raise DataError(f"{value!r} is no seed: give a whole number, such as 0") from None
    if not 0 <= seed < 2**63:
        raise DataError(f"seed {seed}: give a number from 0 to {2**63 - 1}")
    return seed


def save_png(image: Any, path: Path | IO[bytes], settings: dict[str, Any]) -> None:
    """Write an image with the settings that made it in its text field `parameters`, as JSON."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("parameters", json.dumps(settings, ensure_ascii=False))
    image.save(path, format="PNG", pnginfo=info)
