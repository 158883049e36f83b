"""The layouts of published video sets in small. Most files hold a few bytes, because lists do not open them."""

import io
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from pipelines.data.schema import DataSpec
from tests.support.tiny_audio_sets import text

LABEL = DataSpec(("video", "label"), ("group",), group_column="group")
LABELS = DataSpec(("video", "label"), ("group",), group_column="group", label_kind="classes")
CLASSES = ("Archery", "Diving", "Typing")


def moving(seed: int = 0) -> bytes:
    """A GIF of two frames, which PyAV reads under any suffix."""
    frames = [Image.new("RGB", (16, 16), (seed % 251, seed // 251 % 251, shade)) for shade in (0, 200)]
    data = io.BytesIO()
    frames[0].save(data, "gif", save_all=True, append_images=frames[1:], duration=100)
    return data.getvalue()


def files(folder: Path, names: Iterable[str], real: bool = False) -> Path:
    """Different files: equal ones would be kept in one split. With `real` they are videos."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(moving(zlib.crc32(name.encode())) if real else name.encode())
    return folder


def ucf_names(labels: Iterable[str] = CLASSES, groups: Iterable[int] = range(1, 9), clips: int = 2) -> list[str]:
    """Class/v_Class_gGG_cCC.avi."""
    return [f"{c}/v_{c}_g{g:02d}_c{n:02d}.avi" for c in labels for g in groups for n in range(1, clips + 1)]


def ucf101(folder: Path, inner: str = "UCF-101", lists: str = "ucfTrainTestlist") -> Path:
    """Three classes of eight groups; split 1 tests groups 1 and 2, split 2 tests groups 3 and 4."""
    names = ucf_names()
    files(folder / inner, names)
    text(folder / lists / "classInd.txt", "".join(f"{n} {c}\n" for n, c in enumerate(CLASSES, 1)))
    for split, tested in ((1, ("g01", "g02")), (2, ("g03", "g04"))):
        test = [name for name in names if name.split("_")[2] in tested]
        number = {c: n for n, c in enumerate(CLASSES, 1)}
        train = [f"{name} {number[name.partition('/')[0]]}" for name in names if name not in test]
        text(folder / lists / f"testlist0{split}.txt", "\r\n".join(test) + "\r\n")
        text(folder / lists / f"trainlist0{split}.txt", "\n".join(train) + "\n")
    return folder


def hmdb51(folder: Path, inner: str = "hmdb51_org", lists: str = "testTrainMulti_7030_splits") -> Path:
    """Two classes of six videos with three clips each. Split 1 tests videos 0 and 1, and does not use video 2."""
    for label in ("brush_hair", "hit"):
        lines: dict[int, list[str]] = {1: [], 2: []}
        for video in range(6):
            for clip in range(3):
                name = f"Film_{video}#_{label}_f_cm_np1_ba_{'goo' if video % 2 else 'med'}_{clip}.avi"
                files(folder / inner, [f"{label}/{name}"])
                lines[1].append(f"{name} {(2, 2, 0, 1, 1, 1)[video]} ")
                lines[2].append(f"{name} {(1, 1, 1, 1, 2, 2)[video]}")
        for split, own in lines.items():
            text(folder / lists / f"{label}_test_split{split}.txt", "\n".join(own) + "\n")
    return folder


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics(folder: Path, lists: str = "") -> Path:
    """Two classes; train holds 12 videos in class folders, val 4 without; one row of each has no video."""
    rows: Mapping[str, list[str]] = {"train": [], "val": []}
    for split, count in (("train", 12), ("val", 4)):
        for n in range(count):
            label = ("riding a bike", "tai chi (slow)")[n % 2]
            rows[split].append(f'"{label}",{split}-{n},{n},{n + 10},{"validate" if split == "val" else split},0')
            inner = label.replace(" ", "_").replace("(", "").replace(")", "") + "/" if split == "train" else ""
            files(folder, [f"{split}/{inner}{split}-{n}_{n:06d}_{n + 10:06d}.mp4"])
        rows[split].append(f'"{label}",gone{split},3,13,{split if split == "train" else "validate"},0')
        text(folder / lists / f"{split}.csv", KINETICS + "\n".join(rows[split]) + "\n")
    return folder


TEMPLATES = ("Holding [something]", "Putting [something] on [something]")


def something(folder: Path, videos: str = "20bn-something-something-v2", prefix: str = "") -> Path:
    """Two classes; 10 videos of train, 4 of validation, 2 of test without labels."""
    names = [template.replace("[", "").replace("]", "") for template in TEMPLATES]
    text(folder / f"{prefix}labels.json", json.dumps({names[1]: "1", names[0]: "0"}))
    number = 0
    for split, count in (("train", 10), ("validation", 4), ("test", 2)):
        entries: list[dict[str, object]] = []
        for _ in range(count):
            number += 1
            entry = {"id": str(number)}
            template = TEMPLATES[number % 2]
            rest = {"label": template.replace("[something]", "a cup"), "template": template, "placeholders": ["a cup"]}
            entries.append(entry if split == "test" else {**entry, **rest})
            files(folder, [f"{videos}/{number}.webm"])
        text(folder / f"{prefix}{split}.json", json.dumps(entries, indent=1))
    return folder
