"""Generate one image or recording on request, for `graft predict` and the demos; its file holds the settings."""

import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pipelines.data.notes import MOST_LETTERS, parsed
from pipelines.errors import DataError, RunError
from pipelines.utils.formatting import short
from pipelines.utils.settings import Setting

MOST = 10_000  # results of one request
COUNT = Setting(int, 1, MOST)
SMALL = 256  # pixels: images with smaller sides are enlarged for `graft predict`, so that a viewer shows them
LONGEST = 48  # characters of a prompt in a file name; names have at most 255 bytes


def results(task: Any, model: Any, request: dict[str, Any]) -> Iterator[Any]:
    """The results of `infer`: intermediate ones, then the finished one. Raises RunError if memory runs out."""
    from pipelines.utils.hardware import out_of_memory

    try:
        yield from task.infer(model, **request)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise RunError(
            f"out of memory while making {task.generation.many}: make fewer or smaller ones, or free some memory of "
            "this machine"
        ) from None


def whole(task: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The request with the task's defaults for missing settings. Raises DataError for a seed that is not valid."""
    seed = check_seed(request.get("seed", 0))
    return {**task.generation.defaults(seed), **request, "seed": seed}


def split_pairs(task: Any, inputs: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the inputs of `graft predict` into settings of all results (`name=value`) and the rest: prompts, seeds,
    tables.

    A prompt that looks like a pair is given as text=..., as the only input. Raises DataError.
    """
    allowed = [*(name for name in inspect.signature(task.infer).parameters if name != "model"), "n"]
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
        setting = COUNT if name == "n" else task.generation.settings.get(name)
        pairs[name] = value if setting is None else number(name, value, setting)
    asked = task.data.input_columns[0]
    if rest and asked in pairs:
        raise DataError(
            f"{asked}={short(str(pairs[asked]))} and {short(rest[0])!r}: give either {asked}=..., or values without a "
            "name"
        )
    if not rest and asked not in pairs and asked != "seed":
        raise DataError(f"{asked} is missing: give {asked}=... beside {', '.join(f'{key}=...' for key in pairs)}")
    return pairs, rest


def number(name: str, value: str, setting: Setting) -> int | float:
    """The number of a setting `name=value`. Raises DataError for a text and for a number outside of its bounds."""
    try:
        found = setting.kind(value)
    except ValueError:
        found = math.nan
    if not setting.least <= found <= setting.most:  # also for NaN
        kind = "whole number" if setting.kind is int else "number"
        raise DataError(f"{name}={short(value)}: give a {kind} from {setting.least:,} to {setting.most:,}")
    return found


STORED = ("label", "speaker", "seed", "steps", "guidance", "speed", "temperature", "seconds")  # in a file


def settings(model: str, request: Mapping[str, Any], text: str = "prompt") -> dict[str, Any]:
    """The settings for the file: {model, prompt, label, speaker, seed, steps, ...}, as far as the task has them.

    `text` is what the text of the request is called (`GenerationSpec.text`).
    """
    found = {"model": model, text: request.get("text"), **{key: request.get(key) for key in STORED}}
    return {key: value for key, value in found.items() if value is not None}


def enlarged(image: Any) -> tuple[Any, int]:
    """An image whose longer side has at least SMALL pixels, and how many times it was enlarged.

    Each pixel becomes a square, so that the picture shows what the model made and nothing else.
    """
    from PIL import Image

    times = -(-SMALL // max(image.size))
    if times < 2:
        return image, 1
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST), times


def displayed(image: Any) -> tuple[Any, dict[str, Any]]:
    """An image as `graft predict` writes it; `pixels` then states the size that the model made."""
    shown, times = enlarged(image)
    if times < 2:
        return image, {}
    return shown, {"pixels": f"{shown.width // times} x {shown.height // times}, enlarged {times} times"}


def subject(model: str, about: Mapping[str, Any]) -> str:
    """Name of a result with these settings: its prompt or text, or else model, speaker and class."""
    others = [str(about[key]) for key in ("speaker", "label") if key in about]
    return str(about.get("prompt") or about.get("text") or " ".join([model, *others]))


def file_name(what: str, seed: int, suffix: str = ".png") -> str:
    """`a red disc` -> a-red-disc-seed-0.png."""
    words = re.sub(r"[^\w]+", "-", what.lower())[:LONGEST].strip("-_")
    return f"{words or ('image' if suffix == '.png' else 'sample')}-seed-{seed}{suffix}"


def write(folder: Path, name: str, result: Any, about: dict[str, Any], save: Any = None) -> Path:
    """Write a new file; an existing file is never overwritten: x.png, then x-2.png, x-3.png. Raises RunError.

    `save(result, path, about)` writes the file, by default `save_png`.
    """
    path, number = folder / name, 1
    while True:
        try:
            path.open("xb").close()  # reserves the name against other processes
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
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def _refused(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{folder.absolute()}: the file cannot be written: {error.strerror or error}; go to a folder that has room "
        "for it"
    )


def read_settings(notes: Mapping[Any, Any], called: str) -> dict[str, Any]:
    """The settings of an image, from `parameters` in its notes (`read_notes`). Raises DataError if there are none."""
    noted = notes.get("parameters")
    if not isinstance(noted, str):
        raise DataError(
            f"{called} does not say what made it: PNG files saved here do, screenshots and converted copies do not"
        )
    if len(noted) > MOST_LETTERS:
        raise DataError(f"{called} says {len(noted):,} letters about what made it: at most {MOST_LETTERS:,} are read")
    return parsed(noted)


def check_seed(value: Any) -> int:
    """A seed from a number or a text. Raises DataError."""
    try:
        seed = int(str(value).strip())
    except ValueError:
        raise DataError(f"{value!r} is no seed: give a whole number, such as 0") from None
    if not 0 <= seed < 2**63:
        raise DataError(f"seed {seed}: give a number from 0 to {2**63 - 1}")
    return seed


def save_png(image: Any, path: Path | IO[bytes], settings: dict[str, Any]) -> None:
    """Write an image with its settings as JSON in the PNG text field `parameters`."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("parameters", json.dumps(settings, ensure_ascii=False))
    image.save(path, format="PNG", pnginfo=info)
