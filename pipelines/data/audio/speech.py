"""Recordings of speech for speech synthesis: silence at their ends, their level, and whether text and length fit.

    samples = levelled(trimmed(samples, rate))
    why = implausible(len(text), len(samples) / rate)

A model of speech synthesis learns silences and levels as it learns words, so both should be alike in all recordings.
"""

import numpy as np

FRAME = 0.010  # seconds of a frame whose energy is measured
QUIET = 40.0  # decibels below the loudest frame; what is quieter at both ends is silence
KEPT = 0.050  # seconds of silence that stay at each end, so that soft sounds at the ends of words stay
SHORTEST = 0.050  # seconds that are left of any recording
LEVEL = -23.0  # decibels relative to full scale, as EBU R 128 has it for programmes
PEAK = 0.95  # the largest sample after levelling
BLOCK = 256  # samples of a frame where the rate does not matter
MOST, LEAST = 40.0, 1.0  # characters per second of the fastest and the slowest speech
SPARE_CHARACTERS, SPARE_SECONDS = 5.0, 10.0  # that any recording may have too many


def energies(samples: np.ndarray, size: int) -> np.ndarray:
    """float32 [samples] -> float64 [frames], the root mean square of frames of `size` samples.

    The last frame may be shorter.
    """
    starts = np.arange(0, len(samples), size)
    if not len(starts):
        return np.zeros(0)
    sums = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    found: np.ndarray = np.sqrt(sums / np.diff(np.append(starts, len(samples))))
    return found


def trimmed(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32 [samples] -> float32 [fewer samples], without the silence at both ends.

    Silence is what is 40 dB below the loudest 10 ms; 50 ms of it stay. At least 0.05 s is left, or all of a shorter
    recording. A recording of zeros is returned as it is.
    """
    size = max(round(FRAME * rate), 1)
    loud = energies(samples, size)
    if not len(loud) or not loud.max() > 0:
        return samples
    heard = np.flatnonzero(loud > loud.max() * 10 ** (-QUIET / 20))
    kept = round(KEPT * rate)
    start, end = max(int(heard[0]) * size - kept, 0), min((int(heard[-1]) + 1) * size + kept, len(samples))
    lacking = min(round(SHORTEST * rate), len(samples)) - (end - start)
    if lacking > 0:  # only at very low rates, where a frame is one sample
        start = max(start - lacking, 0)
        end = min(end + lacking, len(samples))
    return samples[start:end]


def levelled(samples: np.ndarray) -> np.ndarray:
    """float32 [samples] -> float32 [samples] at one level: all times the same factor.

    The root mean square of the parts that are not silent becomes -23 dB of full scale; less if a sample would be
    larger than 0.95, so nothing is clipped. A recording of zeros is returned as it is.
    """
    loud = energies(samples, BLOCK)
    if not len(loud) or not loud.max() > 0:
        return samples
    active = loud[loud > loud.max() * 10 ** (-QUIET / 20)]
    level = float(np.sqrt(np.mean(active**2)))
    factor = min(10 ** (LEVEL / 20) / level, PEAK / float(np.abs(samples).max()))
    found: np.ndarray = (samples * factor).astype(np.float32)
    return found


def implausible(text_chars: int, seconds: float) -> str | None:
    """Why a text of so many characters cannot be what is said in so many seconds; None if it can.

    LibriSpeech has 6 to 20 characters per second, and spoken digits, cut close, 3 to 28 (86 and 1250 recordings).
    """
    if text_chars > MOST * seconds + SPARE_CHARACTERS:
        return f"{text_chars:,} characters in {seconds:.2f} s: nobody speaks more than {MOST:.0f} per second"
    if seconds > text_chars / LEAST + SPARE_SECONDS:
        return f"{seconds:.1f} s for {text_chars:,} characters: the text is a part of what is said, or there is silence"
    return None
