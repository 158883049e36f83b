"""The demos of all tasks in one process, each at its own address: `python -m tests.support.ten_demos FOLDER`.

Models are tiny and untrained, each with an example; where FOLDER has a finished run TASK/run, its demo is shown. The
first line on stdout is a JSON object: task -> address.
"""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support import (
    tiny,
    tiny_audio,
    tiny_boxes,
    tiny_diffusion,
    tiny_segmenters,
    tiny_speech,
    tiny_text,
    tiny_video_models,
    tiny_videos,
    tiny_whisper,
)

TEXT = "the song was made by ada in rome"


def models() -> dict[str, Callable[[Path], Path]]:
    """Task -> the function that writes its model into a folder."""
    from tests.tasks.test_speech_recognition_ctc import tuned_model
    from tests.unit.apps.test_gallery import unconditional

    return {
        "audio-generation-wavenet": tiny_speech.wavenet,
        "audio-classification": lambda folder: tiny_audio.wav2vec2(folder, "Wav2Vec2ForSequenceClassification"),
        "fill-mask": lambda folder: tiny_text.bert(folder, "BertForMaskedLM"),
        "image-classification": tiny.vit,
        "image-segmentation": lambda folder: tiny_segmenters.tiny_folder("unet", folder),
        "instance-segmentation": lambda folder: tiny_boxes.model(folder, "maskrcnn"),
        "object-detection": lambda folder: tiny_boxes.model(folder, "ssdlite320_mobilenet_v3_large"),
        "question-answering": tiny_text.bert,
        "speech-recognition-ctc": tuned_model,
        "speech-recognition-seq2seq": tiny_whisper.whisper,
        "text-classification": lambda folder: tiny_text.bert(folder, "BertForSequenceClassification"),
        "text-generation": tiny_text.gpt,
        "text-to-image": tiny_diffusion.stable,
        "text-to-speech": tiny_speech.speecht5,
        "unconditional-image-generation": unconditional,
        "video-classification": tiny_video_models.videomae,
    }


def add_example(folder: Path) -> None:
    """One row that has a column for every task."""
    (folder / "examples").mkdir()
    Image.new("RGB", (40, 40), "teal").save(folder / "examples" / "0.jpg")
    tiny_audio.write(folder / "examples" / "0.wav", tiny_audio.spoken("low mid"))
    tiny_videos.write(folder / "examples" / "0.mp4", 20)
    files = {"image": "0.jpg", "audio": "0.wav", "video": "0.mp4"}
    row = {**files, "label": "cat", "text": TEXT, "question": "who?", "context": TEXT}
    (folder / "examples" / "examples.json").write_text(json.dumps([row]))


def main(root: Path) -> None:
    from pipelines.apps import launch
    from pipelines.inference.loading import load

    found: dict[str, str] = {}
    for task, make in models().items():
        run = (root / task / "run").resolve()  # may be a link to a run elsewhere
        if not run.is_dir():
            add_example(make(root / task))
        loaded: Any = load(run if run.is_dir() else root / task, task=task, device="cpu")
        page = launch.app(loaded)
        launch.serve(page, "127.0.0.1")
        found[task] = page.local_url
    print(json.dumps(found), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
