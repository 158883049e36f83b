"""The layouts of published audio sets in small, with recordings of a tenth of a second, and checks of their splits."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from tests.support.tiny_audio import write

TEXT = DataSpec(("audio", "text"), ("speaker",), group_column="speaker")
LABEL = DataSpec(("audio", "label"), group_column="speaker")
LABELS = DataSpec(("audio", "label"), label_kind="classes")


def load(source: Path, needs: DataSpec, **section: Any) -> Splits:
    return load_splits(DataSection(id=str(source), **section), needs)


def sizes(splits: Splits) -> list[int]:
    return [len(splits[name]) for name in SPLITS]


def named(splits: Splits, column: str) -> dict[str, set[str]]:
    return {name: set(splits[name][column]) for name in SPLITS}


def files(folder: Path, names: Iterable[str]) -> Path:
    """Different recordings of a tenth of a second: equal ones would be kept in one split."""
    for name in names:
        own = zlib.crc32(str(folder / name).encode())
        write(
            folder / name,
            np.sin(own % 6007 / 1000 + np.arange(800) / (3.5 + own // 6007 % 4001 / 4001)).astype(np.float32),
            8000,
        )
    return folder


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def librispeech(folder: Path, parts: dict[str, int], each: int = 4) -> Path:
    """Parts with so many speakers. Each speaker has two chapters of `each` recordings."""
    speaker = 100
    for part, count in parts.items():
        for _ in range(count):
            speaker += 1
            for chapter in (f"{speaker}1", f"{speaker}2"):
                where, names = (
                    folder / part / str(speaker) / chapter,
                    [f"{speaker}-{chapter}-{i:04d}" for i in range(each)],
                )
                files(where, [f"{name}.flac" for name in names])
                text(
                    where / f"{speaker}-{chapter}.trans.txt",
                    "".join(f"{name} THE WORDS OF {i}\n" for i, name in enumerate(names)),
                )
    text(folder / "SPEAKERS.TXT", "; about them\n")
    return folder


def libritts(folder: Path, parts: dict[str, int], each: int = 4) -> Path:
    """Parts with so many speakers, each with two chapters of `each` sentences, in both forms of their texts."""
    speaker = 100
    for part, count in parts.items():
        for _ in range(count):
            speaker += 1
            for chapter in (f"{speaker}1", f"{speaker}2"):
                where = folder / part / str(speaker) / chapter
                names = [f"{speaker}_{chapter}_{i:06d}_000000" for i in range(each)]
                files(where, [f"{name}.wav" for name in names])
                for number, name in enumerate(names):
                    text(where / f"{name}.original.txt", f"Dr. {number}")
                    text(where / f"{name}.normalized.txt", f"Doctor number {number} of {name}.\n")
                text(where / f"{speaker}_{chapter}.trans.tsv", "all of them\tonce more\n")
    return folder


def vctk(folder: Path, speakers: Iterable[str] = ("p225", "p226", "s5"), each: int = 4, old: bool = False) -> Path:
    """Speakers with `each` sentences, of two microphones; `old`: as before version 0.92."""
    for speaker in speakers:
        names = [f"{speaker}_{number:03d}" for number in range(1, each + 1)]
        ends = [".wav"] if old else ["_mic1.flac", "_mic2.flac"]
        files(
            folder / ("wav48" if old else "wav48_silence_trimmed") / speaker,
            [f"{name}{end}" for name in names for end in ends],
        )
        for name in names:
            text(folder / "txt" / speaker / f"{name}.txt", f"Please call {name}.\n")
    prefix = "" if old else "p"
    lines = [f"{prefix}225  23  F    English    Southern  England", f"{prefix}226  22  M    Scottish", "p999"]
    text(folder / "speaker-info.txt", "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n" + "\n".join(lines) + "\n")
    return folder


def common_voice(folder: Path, lists: dict[str, int], speakers: int = 6) -> Path:
    """Lists of so many clips. No speaker is in two lists."""
    for name, count in lists.items():
        clips = [f"common_voice_xx_{name}{i}.wav" for i in range(count)]
        files(folder / "clips", clips)
        lines = [f'{name}{i % speakers:0128}\t{clip}\tShe said "{i}".\t2\t0\n' for i, clip in enumerate(clips)]
        text(folder / f"{name}.tsv", "client_id\tpath\tsentence\tup_votes\tdown_votes\n" + "".join(lines))
    text(folder / "reported.tsv", "sentence\treason\n")
    return folder


def esc50(folder: Path, folds: int = 3, ten: int = 2, present: int = 3) -> Path:
    """Three classes, of which the first `ten` are in ESC-10.

    The first `present` clips exist. A source has two clips.
    """
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, folds + 1):
        for target, category in enumerate(("dog", "chainsaw", "cat")):
            for clip in range(6):
                source, take = f"{fold}{target}{clip // 2}", "AB"[clip % 2]
                name = f"{fold}-{source}-{take}-{target}.wav"
                lines.append(f"{name},{fold},{target},{category},{target < ten},{source},{take}")
                if target < present:
                    files(folder / "audio", [name])
    text(folder / "meta" / "esc50.csv", "\n".join(lines) + "\n")
    return folder


CLASSES = ("Speech", "Male speech, man speaking", "Dog")


def audioset(folder: Path, names: Iterable[str] = ("{}.wav",), lists: Iterable[str] = ("eval",), gone: int = 2) -> Path:
    """Twelve clips in every list, and `gone` more rows whose clips are missing."""
    text(
        folder / "class_labels_indices.csv",
        "index,mid,display_name\n" + "".join(f'{i},/m/{i},"{c}"\n' for i, c in enumerate(CLASSES)),
    )
    names = list(names)
    for place, own in enumerate(lists):
        lines = [
            "# Segments csv created Sun Mar  5 10:54:25 2017",
            "# num_ytids=14",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        for i in range(12 + gone):
            lines.append(
                f'-_{place}{own[0]}{i:07d}, {i}0.000, {i + 1}0.000, "/m/{i % 3}{",/m/2" if i % 3 < 2 else ""}"'
            )
            if i < 12:
                files(
                    folder / "clips" / own,
                    [names[i % len(names)].format(f"-_{place}{own[0]}{i:07d}", i * 10, i * 10 + 10)],
                )
        text(folder / f"{own}_segments.csv", "\n".join(lines) + "\n")
    return folder


def digits(folder: Path, speakers: Iterable[str] = ("ann", "bo b"), each: int = 8) -> Path:
    files(
        folder / "recordings",
        [f"{digit}_{who}_{i}.wav" for who in speakers for digit in range(10) for i in range(each)],
    )
    return Path(text(folder / "README.md", "digits").parent)
