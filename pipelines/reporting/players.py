"""Players for the recordings that a run generated: short MP3s inside the page, with what each recording says of itself.

of_samples(run)          those made after training
of_step(folder, 2)       those of one evaluation, from samples/over_training/step_000100/
"""

import base64
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.data.audio import reading, tags
from pipelines.errors import DataError

MOST = 8  # samples with a player in a report
MOMENTS = 4  # steps of training with a player in a report
OVER_TRAINING = Path("samples", "over_training")
LARGEST = 300_000  # bytes of one recording on a page; ten seconds take 80,000
SHOWN = ("text", "speaker", "label", "seed", "temperature", "steps", "speed")  # settings that a page shows


class Player(NamedTuple):
    """One recording on a page."""

    uri: str
    """The first ten seconds as a data URI."""
    about: dict[str, Any]
    """The settings that its file holds, as far as SHOWN names them."""


def player(path: Path) -> Player | None:
    """The player of a wav file; None for one that cannot be read or is too short to be heard."""
    try:
        about = tags.read_settings(path, path.name)
    except DataError:
        about = {}
    clip = reading.clip(str(path))
    if clip is None or len(clip.data) > LARGEST:
        return None
    kind = "audio/flac" if clip.data.startswith(b"fLaC") else "audio/mpeg"
    uri = f"data:{kind};base64," + base64.b64encode(clip.data).decode()
    return Player(uri, {key: about[key] for key in SHOWN if about.get(key) is not None})


def of_samples(run: Path, numbers: list[int] | None = None) -> list[Player]:
    """The samples with these numbers, or the first ones; at most MOST. Empty for runs that generate no sound."""
    files = sorted((run / "samples").glob("[0-9]*.wav"))
    if numbers is not None:
        names = {f"{number:05}.wav" for number in numbers}
        files = [file for file in files if file.name in names]
    found = [player(file) for file in files[:MOST]]
    return [one for one in found if one is not None]


def of_step(folder: Path, most: int) -> list[Player]:
    """The first recordings of one evaluation."""
    found = [player(file) for file in sorted(folder.glob("[0-9]*.wav"))[:most]]
    return [one for one in found if one is not None]


def steps(run: Path) -> list[Path]:
    """The folders of the evaluations that kept recordings, in order."""
    return sorted(path for path in (run / OVER_TRAINING).glob("step_*") if path.is_dir())
