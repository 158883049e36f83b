"""Bad input of WaveNet: configurations and weights of strangers, settings of spectrograms, recordings, requests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from pipelines.config.recipe import validate
from pipelines.data.audio.mel import MelSettings
from pipelines.errors import DataError, GraftError, ModelError, RecipeError
from pipelines.inference.loading import Loaded, load
from pipelines.models import wavenet
from pipelines.training.run import train
from tests.support import tiny_audio
from tests.tasks import test_audio_generation_wavenet as contract  # the module: pytest would collect its classes here

MEL = MelSettings(sampling_rate=4000, **contract.MEL).plain()
TASK = "audio-generation-wavenet"

WRONG_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelled": ({"hiden_size": 8}, r"hiden_size is no setting of a WaveNet.*hidden_size"),
    "a word for a number": ({"hidden_size": "big"}, "hidden_size is 'big'"),
    "a truth for a number": ({"stacks": True}, "stacks is True"),
    "a fraction": ({"skip_size": 8.5}, "skip_size is 8.5"),
    "nothing": ({"hidden_size": 0}, "hidden_size is 0, and must be a number 1 to 1,024"),
    "a billion channels": ({"skip_size": 10**9}, "skip_size is 1000000000"),
    "huge dilations": ({"num_layers": 60}, "num_layers is 60, and must be a number 1 to 14"),
    "looks back too far": ({"num_layers": 14, "stacks": 16}, r"look back 262,129 samples, and 65,536 are allowed"),
    "too many weights": (
        {"hidden_size": 1024, "skip_size": 4096, "num_layers": 11, "stacks": 16},
        r"has [\d,]+ weights, and 100,000,000 are allowed",
    ),
    "unknown output": ({"output": "softmax"}, "output is 'softmax', and must be one of mulaw, logistics"),
    "a list for an output": ({"output": ["mulaw"]}, r"output is \['mulaw'\]"),
    "unknown condition": ({"condition": "text"}, "condition is 'text'"),
    "no number of classes": ({"condition": "label"}, "conditions is 0"),
    "no spectrogram": ({"condition": "mel"}, "mel: no settings of spectrograms"),
    "a spectrogram that is not read": ({"mel": MEL}, "mel is for condition: mel"),
    "another rate": ({"condition": "mel", "mel": {**MEL, "sampling_rate": 8000}}, "they must be equal"),
    "a hop of nothing": ({"condition": "mel", "mel": {**MEL, "hop_length": 0}}, "hop_length"),
    "a floor that is no number": ({"condition": "mel", "mel": {**MEL, "floor": float("nan")}}, "floor=nan"),
    "slow": ({"sampling_rate": 10}, "sampling_rate is 10"),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_wrong_configurations(case: str) -> None:
    fields, says = WRONG_CONFIGS[case]
    with pytest.raises(ModelError, match=says):
        wavenet.create({**contract.CONFIG, **fields}, "model.config")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    wavenet.save(contract.network("mulaw", "label"), ["low", "mid", "high"], tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', and a wavenet is needed"),
        ({"hidden_size": 16}, r"its weights do not fit its config.json: \S+ has another shape"),
        ({"stacks": 1}, r"layers\.2\.skip\.bias is missing"),
        ({"id2label": {"0": "low"}}, "id2label names 1, and the network has 3"),
        ({"id2label": {"0": "low", "1": "mid", "7": "high"}}, "id2label must name the classes 0, 1, 2"),
        ({"id2label": ["low", "mid", "high"]}, "id2label must name the classes"),
        ({"conditions": 10**12}, "conditions is 1000000000000"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "auto_map is no setting"),
    ],
)
def test_wrong_folders(folder: Path, fields: dict[str, Any], says: str) -> None:
    change(folder, **fields)
    with pytest.raises(ModelError, match=says):
        load(folder, task=TASK, device="cpu")


def test_weights_that_are_damaged_or_no_numbers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "layers.1.taps.weight"
    save_file({**tensors, name: tensors[name] * torch.nan}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=rf"no numbers \(NaN or infinite\) in {name}"):
        load(folder, task=TASK, device="cpu")
    save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load(folder, task=TASK, device="cpu")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="damaged"):
        load(folder, task=TASK, device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load(folder, task=TASK, device="cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load(folder, task=TASK, device="cpu")


# ---- requests ----


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    place = tmp_path_factory.mktemp("classes") / "model"
    wavenet.save(contract.network("mulaw", "label"), ["low", "mid", "high"], place)
    return load(place, task=TASK, device="cpu")


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    place = tmp_path_factory.mktemp("vocoder") / "model"
    wavenet.save(contract.network("mulaw", "mel"), [], place)
    return load(place, task=TASK, device="cpu")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"seed": "x"}, "'x' is no seed"),
        ({"seed": -1}, "seed -1"),
        ({"seconds": 1e9}, "seconds=1000000000.0: give a number from 0.05 to 60"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"seconds": "long"}, "seconds=long"),
        ({"temperature": -1}, "temperature=-1: give a number from 0 to 2"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"label": "hihg"}, r"label=hihg: this model knows low, mid, high.*high"),
        ({"speaker": "ann"}, "speaker=ann: this model knows no speaker"),
    ],
)
def test_wrong_requests(classes: Loaded, request_: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        classes.infer(**request_)


def test_wrong_requests_of_a_vocoder(vocoder: Loaded, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="audio is missing"):
        vocoder.infer(0)
    with pytest.raises(DataError, match="leave seconds out"):
        vocoder.infer((4000, contract.sound(400)), seconds=1.0)
    with pytest.raises(DataError, match="61 seconds, at most 60"):
        vocoder.infer((4000, contract.sound(4000 * 61)))
    with pytest.raises(DataError, match="too short"):
        vocoder.infer((4000, contract.sound(20)))
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="not readable audio"):
        vocoder.infer(tmp_path / "x.wav")
    model: Any = vocoder.model
    with pytest.raises(ModelError, match=r"a spectrogram of \(5, 9\): this vocoder takes \[frames, 8\]"):
        wavenet.vocode(model, [np.zeros((5, 9), np.float32)], [0])
    with pytest.raises(ModelError, match="a vocoder needs condition: mel"):
        wavenet.mel_of(contract.network())


def test_rows_that_a_vocoder_cannot_read_are_not_asked_for(vocoder: Loaded, tmp_path: Path) -> None:
    """One damaged recording, or a long one, of a test split must not end a run."""
    files = [tiny_audio.write(tmp_path / f"{number}.wav", contract.sound(400, number), 4000) for number in range(6)]
    files[0].write_bytes(b"RIFF")
    files[3].unlink()
    rng = np.random.default_rng(0)
    long = tiny_audio.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(8000 * 61).astype(np.float32), 8000)
    rows = Dataset.from_list([{"audio": str(one)} for one in [*files[:4], long, files[5]]])
    generation = vocoder.task.generation
    asked = generation.requests(rows, 3)
    assert [one["row"] for one in asked] == [1, 2, 4], "the next one takes the place of a row that cannot be read"
    assert (asked[2]["audio"]["start"], asked[2]["audio"]["end"]) == (0, 60)
    assert [one["row"] for one in generation.requests(rows, 6)] == [1, 2, 4, 5]
    assert generation.requests(rows, 0) == []
    assert len(generation.generate(vocoder.model, asked[:2])) == 2
    with pytest.raises(DataError, match=r"none of 1 rows can be made anew; the first: row 0: .*0\.wav"):
        generation.requests(rows.select([0]), 2)
    with pytest.raises(DataError, match=r"row 3: .*3\.wav"):
        generation.generate(vocoder.model, [{"seed": 0, "row": 3, "audio": str(files[3])}])


def test_a_class_that_only_the_test_rows_have_is_not_asked_for(classes: Loaded) -> None:
    requests = classes.task.generation.requests
    for given, asked in ((["low", "hum", "high"], {"low", "high"}), (["hum"], {"low", "mid", "high"})):
        assert {one["label"] for one in requests(Dataset.from_dict({"label": given}), 8)} == asked


# ---- recipes and data ----


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    raw = contract.TestContract().recipe(folder)
    return {**raw, **{key: {**raw[key], **value} for key, value in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"options": {"condition": "none"}}, "set condition: mel, or leave mel out"),
        ({"options": {"crop_seconds": 0}}, "crop_seconds"),
        ({"options": {"seconds": 3600}}, "seconds"),
        ({"options": {"temperature": 9}}, "temperature"),
        ({"options": {"mel": {"hop": 16}}}, "hop=16 is no setting of spectrograms"),
        ({"options": {"mel": {**contract.MEL, "n_fft": 10**9}}}, "an even n_fft from 4 to 65,536"),
        ({"options": {"mel": {"sampling_rate": 8000}}}, "they must be equal"),
        ({"model": {"config": {**contract.CONFIG, "condition": "mel"}}}, r"options\.condition and options\.mel decide"),
        ({"model": {"config": {"model_type": "gru"}}}, "must be wavenet"),
    ],
)
def test_wrong_recipes(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(GraftError, match=says):
        train(validate(settings(tmp_path, **changes)), tmp_path / "run")


def test_one_class_and_a_model_of_another_condition(tmp_path: Path) -> None:
    data = tiny_audio.table(tmp_path / "one", [("low", {"label": "low"})] * 12)
    raw = settings(tmp_path, data={"id": str(data)})
    with pytest.raises((DataError, RecipeError), match="there is nothing to tell apart"):
        train(validate({**raw, "options": {"condition": "label"}}), tmp_path / "run")
    wavenet.save(contract.network("mulaw", "none"), [], tmp_path / "model")
    with pytest.raises(ModelError, match=r"a WaveNet of condition none, and options.condition is mel"):
        train(validate({**raw, "model": {"id": str(tmp_path / "model")}}), tmp_path / "again")
