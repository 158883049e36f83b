"""The code of video models' cards gives what Graft's frames give, in a process that cannot import Graft."""

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from pipelines.publishing.card import template_environment
from tests.support.hub import HubServer, hub  # noqa: F401 (a fixture)
from tests.support.tiny_video_models import answers_of, tiny

pytestmark = pytest.mark.integration
REPO = "someone/videos"


def write_video(path: Path, frames: int, rate: int = 10) -> list[np.ndarray]:
    """An mp4 whose frames differ; returns them as PyAV decodes them."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, rate)
        for number in range(frames):
            pixels = np.full((48, 64, 3), 20 * number % 256, np.uint8)
            pixels[8:24, number % 40 : number % 40 + 16] = rng.integers(0, 256, 3)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def expected_scores(model: Any, family: Any, frames: list[np.ndarray], rate: int, clips: int) -> dict[str, float]:
    """By the rule of pipelines.data.video.clips, with the numbers of frames in place of times."""
    seconds, span = len(frames) / rate, family.frames / family.rate
    room = max(0.0, seconds - span)
    starts = [room / 2] if clips == 1 else [room * place / (clips - 1) for place in range(clips)]
    found = []
    for start in starts:
        times = [start + place / family.rate for place in range(family.frames)]
        if seconds * family.rate <= family.frames - 1:
            times = [(place + 0.5) * seconds / family.frames for place in range(family.frames)]
        numbers = [min(len(frames) - 1, int(time * rate + 0.005)) for time in times]
        found.append(family.pixels(np.stack([frames[number] for number in numbers])))
    scores = answers_of(model, family, {"pixel_values": torch.stack(found)}).softmax(-1).mean(0)
    return dict(zip(family.labels, scores.tolist(), strict=True))


@pytest.mark.parametrize(
    ("kind", "count", "clips"),
    [("videomae", 31, 3), ("videomae", 5, 2), ("vjepa2", 12, 1), ("r2plus1d", 31, 3), ("mc3", 12, 2)],
)
def test_the_snippet_of_a_card(kind: str, count: int, clips: int, hub: HubServer, tmp_path: Path) -> None:
    model, family = tiny(kind, rate=7.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path / "model"
    family.save(model, folder)
    (folder / "examples").mkdir()
    frames = write_video(folder / "examples" / "one.mp4", count)
    hub.add_model(REPO, folder)
    options = SimpleNamespace(clips=clips, multi_label=False)
    examples = [{"video": "one.mp4"}]
    library = family.library
    macro: Any = template_environment().get_template(f"{library}_video.md.j2").module
    if library == "torchvision":
        code = macro.snippet(REPO, family.config, options, examples)
    else:
        code = macro.snippet(REPO, options, examples, None)
    command = [sys.executable, "-c", f"import sys; sys.modules['pipelines'] = None\n{code}"]
    done = subprocess.run(command, env=hub.env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = {label: float(score) for score, label in re.findall(r"^([\d.]+)\s+(\S.*)$", done.stdout, re.M)}
    assert printed == pytest.approx(expected_scores(model, family, frames, 10, clips), abs=6e-4)
