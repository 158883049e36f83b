"""Wav files that say what made them: settings as JSON in the tag `comment`.

write(path, samples, 8000, {"model": "digits", "text": "seven", "seed": 0})
read_settings(path, "x.wav")       {"model": "digits", "text": "seven", "seed": 0, "synthetic": True}
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipelines.data.notes import MOST_LETTERS, parsed
from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np

MOST_NOTED = 2000  # bytes of settings in a wav file: libsndfile reads no tag of 2,048
LENGTHS = (1000, 500, 250, 100, 50, 25)  # letters to which texts are cut, if the settings do not fit


def write(path: Path | IO[bytes], samples: "np.ndarray", rate: int, settings: Mapping[str, Any]) -> None:
    """Write samples (float32, full scale is -1 to 1, or int16) as a 16-bit wav file with its settings.

    Samples beyond full scale are cut off; those that are no numbers are silent. Raises OSError.
    """
    import numpy as np
    import soundfile

    known = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    try:
        with soundfile.SoundFile(path, "w", rate, 1, "PCM_16", format="WAV") as file:
            file.comment = _noted(settings)
            file.write(known)
    except soundfile.LibsndfileError as error:
        raise OSError(str(error.error_string)) from None


def _noted(settings: Mapping[str, Any]) -> str:
    """The settings as JSON, with long texts cut off so that they fit."""
    # a byte of a command line that is no UTF-8 is half a character here, which no file can hold
    whole = {
        key: one.encode(errors="replace").decode() if isinstance(one, str) else one
        for key, one in {**settings, "synthetic": True}.items()
    }
    noted = json.dumps(whole, ensure_ascii=False)
    for most in LENGTHS:
        if len(noted.encode()) <= MOST_NOTED:
            break
        cut = {key: f"{one[:most]}…" if isinstance(one, str) and len(one) > most else one for key, one in whole.items()}
        noted = json.dumps(cut, ensure_ascii=False)
    return noted


def read_settings(source: Path | bytes, called: str) -> dict[str, Any]:
    """The settings that `write` wrote into a file. The file may come from anybody.

    Settings are texts, numbers and null; of other programs' comments the text is {"parameters": text}. Raises DataError
    if the file is no recording, or does not say what made it.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            noted = file.comment
    except (OSError, RuntimeError, TypeError, UnicodeDecodeError) as error:  # also libsndfile's own
        why = str(error).rpartition(": ")[2]
        raise DataError(f"{called}: not a readable recording: {why}") from None
    if not noted:
        raise DataError(f"{called} does not say what made it: WAV files saved here do, converted and cut copies do not")
    if len(noted) > MOST_LETTERS:
        raise DataError(f"{called} says {len(noted):,} letters about what made it: at most {MOST_LETTERS:,} are read")
    return parsed(noted)
