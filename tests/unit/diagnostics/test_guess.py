"""`graft train FOLDER`: twenty layouts of a user's data, and the task and recipe that are guessed for each."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.diagnostics.guess import choose
from pipelines.errors import GraftError, RecipeError
from tests.support import tiny, tiny_audio, tiny_pictures, tiny_text, tiny_whisper
from tests.support.command import graft

REAL = Path(__file__).parents[4] / "shared" / "data"


def pictures(folder: Path, *names: str, size: int = 12, mode: str = "RGB") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (size, size)).save(folder / name)
    return folder


def sounds(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        tiny_audio.write(folder / name, tiny_audio.tone("low", np.random.default_rng(number), 0.1, 8000), 8000)
    return folder


def file(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def rows(*lines: str, n: int = 12) -> str:
    """A csv: the header, and a line for each number, with {n} replaced; a second line for odd numbers."""
    header, *others = lines
    return "\n".join([header, *(others[i % len(others)].replace("{n}", str(i)) for i in range(n))]) + "\n"


REVIEWS = rows("text,label", "the film number {n} is very good,good", "the film number {n} is rather bad,bad")
COCO = {"images": [], "annotations": [{"bbox": [0, 0, 1, 1], "segmentation": []}], "categories": []}
MANIFEST = {"audio_filepath": "1.wav", "text": "yes", "duration": 0.1}
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
MADE: dict[str, tuple[Callable[[Path], Path], str | tuple[str, ...]]] = {
    "class folders": (lambda f: tiny.photos(f, n=3, splits=()), "photos_efficientnet_b0"),
    "splits of class folders": (lambda f: tiny.photos(f, n=2), "photos_efficientnet_b0"),
    "photos without classes": (lambda f: pictures(f, *(f"{i}.jpg" for i in range(5))), "photos_ddpm"),
    "photos in splits": (
        lambda f: pictures(f, *(f"{s}/{i}.png" for s in ("train", "test") for i in "123")),
        "photos_ddpm",
    ),
    "photos with captions": (lambda f: tiny_pictures.shapes(f, n=6, size=8, captions="txt"), "photos_sd15_lora"),
    "photos with a list of captions": (
        lambda f: (
            file(pictures(f, "a.jpg", "b.jpg"), "metadata.csv", "file_name,text\na.jpg,a cat\nb.jpg,a dog\n").parent
        ),
        "photos_sd15_lora",
    ),
    "photos with a list of labels": (
        lambda f: file(pictures(f, "a.jpg", "b.jpg"), "metadata.csv", "file_name,label\na.jpg,cat\nb.jpg,dog\n").parent,
        "photos_efficientnet_b0",
    ),
    "class folders of recordings": (
        lambda f: sounds(f, "dog/1.wav", "dog/2.wav", "cat/1.wav"),
        "recordings_ast_frozen",
    ),
    "LibriSpeech": (tiny_whisper.librispeech, "speech_whisper_tiny"),
    "Common Voice": (tiny_whisper.common_voice, "speech_whisper_tiny"),
    "recordings with text files": (
        lambda f: file(sounds(f, "1.wav"), "1.txt", "hello").parent,
        "speech_whisper_tiny",
    ),
    "recordings with .lab files": (
        lambda f: file(sounds(f, "ann/1.wav"), "ann/1.lab", "hello").parents[1],
        "speech_whisper_tiny",
    ),
    "LJSpeech": (
        lambda f: file(sounds(f, "wavs/a.wav"), "metadata.csv", "a|Dr. No|doctor no\n").parent,
        "speech_whisper_tiny",
    ),
    "manifests of speech": (
        lambda f: file(sounds(f, "1.wav"), "train_manifest.json", json.dumps(MANIFEST) + "\n").parent,
        "speech_whisper_tiny",
    ),
    "a manifest of sounds": (
        lambda f: file(sounds(f, "1.wav"), "all.jsonl", json.dumps({**MANIFEST, "label": "dog"}) + "\n"),
        ("more than one task",),
    ),
    "a manifest of words": (
        lambda f: file(sounds(f, "1.wav"), "all.json", '{"audio_filepath": "1.wav", "command": "dog"}\n'),
        "recordings_ast_frozen",
    ),
    "a folder of Kaldi": (
        lambda f: (
            file(sounds(f, "train/1.wav"), "train/wav.scp", "a 1.wav\n")
            and file(f, "train/text", "a WORDS\n").parents[1]
        ),
        "speech_whisper_tiny",
    ),
    "recordings of telephones": (
        lambda f: file(f, "dog/1.m4a", "-") and file(f, "cat/1.m4a", "-").parents[1],
        "recordings_ast_frozen",
    ),
    "recordings of browsers": (
        lambda f: file(f, "dog/1.webm", "-") and file(f, "cat/1.webm", "-").parents[1],
        "recordings_ast_frozen",
    ),
    "recordings with a list": (
        lambda f: file(sounds(f, "1.wav"), "metadata.jsonl", '{"file_name": "1.wav", "transcription": "hi"}\n').parent,
        "speech_whisper_tiny",
    ),
    "a table of texts and labels": (lambda f: file(f, "reviews.csv", REVIEWS), "texts_minilm_frozen"),
    "other usual names": (
        lambda f: file(f, "r.csv", REVIEWS.replace("text,label", "Review,Sentiment")),
        "texts_minilm_frozen data.columns.text=Review data.columns.label=Sentiment",
    ),
    "several labels": (
        lambda f: file(f, "r.jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n'),
        "texts_minilm_frozen options.multi_label=true",
    ),
    "numbers as labels": (
        lambda f: file(f, "r.csv", rows("text,label", "the film {n},0.{n}", "a book {n},1.5")),
        "texts_minilm_frozen options.regression=true",
    ),
    "SQuAD": (tiny_text.squad, "questions_minilm"),
    "a table of questions": (
        lambda f: file(f, "q.csv", rows("question,context,answer", "who {n}?,it was {n},{n}")),
        "questions_minilm",
    ),
    "other names of columns": (
        lambda f: file(f, "r.csv", REVIEWS.replace("text,label", "opinion,stars")),
        ("not clear", "data.columns.text=opinion data.columns.label=stars"),
    ),
    "messages": (
        lambda f: file(f, "c.jsonl", json.dumps({"messages": TALK, "prompt_id": "x"}) + "\n"),
        "chats_smollm2_135m",
    ),
    "ShareGPT": (
        lambda f: file(f, "c.json", json.dumps([{"id": 1, "conversations": [{"from": "human", "value": "a"}]}])),
        "chats_smollm2_135m",
    ),
    "Alpaca": (lambda f: file(f, "a.csv", rows("instruction,input,output", "say {n},,{n}")), "chats_smollm2_135m"),
    "prompt and completion": (
        lambda f: file(f, "p.csv", rows("id,prompt,completion", "{n},say {n},{n}")),
        "chats_smollm2_135m",
    ),
    "messages that are texts": (
        lambda f: file(f, "m.csv", rows("messages,label", "hello {n},a", "good bye {n},b")),
        ("not clear", "data.columns.text=messages"),
    ),
    "texts": (
        lambda f: file(f, "a.txt", "one text").parent,
        ("more than one task", "texts_distilroberta --data", "texts_gpt2 --data"),
    ),
    "a list of texts": (lambda f: file(f, "t.jsonl", '{"text": "one"}\n'), ("more than one task", "texts_gpt2")),
    "COCO": (
        lambda f: file(pictures(f, "train2017/1.jpg"), "annotations/instances.json", json.dumps(COCO)).parents[1],
        ("with boxes, in the layout `coco`", "more than one task", "my_boxes_", "my_masks_"),
    ),
    "YOLO": (
        lambda f: file(pictures(f, "images/1.jpg"), "labels/1.txt", "0 0.5 0.5 0.2 0.2\n").parents[1],
        ("with boxes, in the layout `yolo_txt`", "more than one task", "my_boxes_", "my_masks_"),
    ),
    "YOLO's files beside the photos": (
        lambda f: file(pictures(f, "1.jpg"), "1.txt", "0 0.5 0.5 0.2 0.2\n").parent,
        ("with boxes, in the layout `yolo_txt`", "more than one task", "my_boxes_", "my_masks_"),
    ),
    "COCO in an inner folder": (
        lambda f: file(pictures(f, "a/b/train2017/1.jpg"), "a/b/annotations/1.json", json.dumps(COCO)).parents[3],
        ("boxes and masks in COCO's JSON (1.json) in an inner folder (give that folder)",),
    ),
    "masks": (lambda f: pictures(f, "images/1.png", "masks/1.png"), "my_pixels_unet"),
    "masks by their endings": (lambda f: pictures(f, "1.png", "1_mask.png", "2.png", "2_mask.png"), "my_pixels_unet"),
    "videos": (lambda f: file(f, "dog/1.mp4", "-").parents[1], ("videos", "name a recipe for recordings", "no task")),
    "videos in class folders": (
        lambda f: file(f, "jump/1.mp4", "-") and file(f, "run/1.mp4", "-").parents[1],
        "my_videos_vjepa2_frozen",
    ),
    "a table of videos": (
        lambda f: file(f, "t.csv", rows("video_path,label", "{n}.mp4,jump", "{n}.mp4,run")),
        "my_videos_vjepa2_frozen data.columns.video=video_path",
    ),
    "archives": (lambda f: file(f, "photos.zip", "-").parent, ("archives: unpack",)),
    "a table of numbers": (lambda f: file(f, "n.csv", rows("a,b", "0.{n},1.5")), ("no task takes them as they are",)),
    "recordings alone": (lambda f: sounds(f, "1.wav", "2.wav"), ("without classes or transcripts",)),
    "nothing": (lambda f: (f.mkdir(), f)[1], ("empty folder",)),
}


@pytest.mark.parametrize("name", MADE)
def test_a_layout_is_recognised(name: str, tmp_path: Path) -> None:
    make, expected = MADE[name]
    data = make(tmp_path / "data")
    if not isinstance(expected, tuple):
        recipe, *settings = expected.split()
        chosen = choose("train", str(data))
        assert (chosen.recipe, chosen.data, chosen.overrides) == (recipe, str(data), settings)
        assert chosen.base == (data.stem if data.is_file() else data.name)
        assert recipe in chosen.lines[1]
        return
    with pytest.raises(GraftError) as error:
        choose("train", str(data))
    assert error.value.exit_code == 2
    assert [words for words in expected if words not in str(error.value)] == []


REAL_TASKS = {
    "audioset": "lists without recordings",
    "camvid": "for segmentation",
    "cats_dogs": "photos_efficientnet_b0",
    "cifar10": "photos_efficientnet_b0",
    "coco": "for detection or segmentation",
    "esc10": "recordings_ast_frozen",
    "free-spoken-digit-dataset": "recordings_ast_frozen",
    "imagenet-samples": "photos_efficientnet_b0",
    "isbi2012-membrane": "for segmentation",
    "librispeech": "speech_whisper_tiny",
    "mnist": "photos_efficientnet_b0",
    "squad": "questions_minilm",
    "wikipedia": "more than one task takes them",
    "youtube8m": "TFRecord files with features of videos: name a recipe, as in graft train youtube8m_logistic",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_TASKS)
def test_real_data_are_recognised(name: str) -> None:
    if not REAL.is_dir():
        pytest.skip("the real data are not here")
    if " " not in REAL_TASKS[name]:
        assert choose("train", str(REAL / name)).recipe == REAL_TASKS[name]
        return
    with pytest.raises(GraftError, match=REAL_TASKS[name]):
        choose("train", str(REAL / name))


def test_the_commands_that_it_lists_are_accepted(tmp_path: Path) -> None:
    table = file(tmp_path, "my reviews.csv", REVIEWS.replace("text,label", "opinion,stars"))
    done = graft("check", str(table), "train.epochs=1")
    assert done.code == 2
    line = next(line for line in done.err.splitlines() if line.startswith("  graft "))
    words = shlex.split(line.partition("    (")[0])
    assert words[:3] == ["graft", "check", "texts_minilm_frozen"]
    assert words[-1] == "train.epochs=1"
    chosen = choose("check", words[2], words[5:], words[4])
    assert chosen.overrides == ["data.columns.text=opinion", "data.columns.label=stars", "train.epochs=1"]


def test_the_columns_that_the_user_names_decide(tmp_path: Path) -> None:
    table = str(file(tmp_path, "r.csv", REVIEWS.replace("text,label", "opinion,stars")))
    mapped = ["data.columns.text=opinion", "data.columns.label=stars"]
    chosen = choose("train", table, mapped)
    assert (chosen.recipe, chosen.overrides) == ("texts_minilm_frozen", mapped)
    short = ["columns.text=opinion", "columns.label=stars", "epochs=3"]
    chosen = choose("train", table, short)
    assert (chosen.recipe, chosen.overrides) == ("texts_minilm_frozen", short)
    chosen = choose("train", table, ["columns={text: opinion, label: stars}"])
    assert chosen.recipe == "texts_minilm_frozen"


@pytest.mark.parametrize("key", ["options.whole_words", "whole_words"])
def test_an_option_of_one_task_says_which_task_is_meant(key: str, tmp_path: Path) -> None:
    texts = str(file(tmp_path, "a.txt", "one text"))
    assert choose("train", texts, [f"{key}=true", "epochs=1"]).recipe == "texts_distilroberta"


def test_an_option_by_its_last_name_is_not_added_again(tmp_path: Path) -> None:
    table = file(tmp_path, "r.jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n')
    chosen = choose("train", str(table), ["multi_label=true"])
    assert (chosen.recipe, chosen.overrides) == ("texts_minilm_frozen", ["multi_label=true"])


def test_a_size_of_images_keeps_to_the_tasks_that_have_one(tmp_path: Path) -> None:
    photos = str(tiny.photos(tmp_path / "photos", n=3, splits=()))
    assert choose("train", photos, ["image_size=64"]).recipe == "photos_efficientnet_b0"


def test_wrong_settings_are_named_and_do_not_hide_the_task(tmp_path: Path) -> None:
    table = str(file(tmp_path, "r.csv", REVIEWS))
    for wrong in ("epocs=3", "image_size=64"):  # the recipe names the error
        assert choose("train", table, [wrong]).recipe == "texts_minilm_frozen"
    with pytest.raises(RecipeError, match=r"options\.multi_label"):
        choose("train", table, ["multi_label=7"])


def test_the_model_decides_between_tasks_that_take_the_same_data(tmp_path: Path) -> None:
    texts = str(file(tmp_path / "texts", "a.txt", "one text").parent)
    assert choose("train", texts, model=str(tiny_text.gpt(tmp_path / "gpt"))).recipe == "texts_gpt2"
    masked = tmp_path / "masked" / "config.json"
    file(tmp_path, "masked/config.json", '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    assert choose("train", texts, model=str(masked.parent)).recipe == "texts_distilroberta"


def test_what_follows_the_verb_may_be_an_override(tmp_path: Path) -> None:
    data = str(tiny.photos(tmp_path / "photos", n=2, splits=()))
    chosen = choose("train", "train.epochs=3", ["train.seed=1"], data)
    assert (chosen.recipe, chosen.overrides) == ("photos_efficientnet_b0", ["train.epochs=3", "train.seed=1"])
    assert choose("train", "photos_vit_frozen", ["a=b"], data).overrides == ["a=b"]


def test_a_name_of_a_recipe_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.photos(tmp_path / "photos_ddpm", n=2, splits=())
    chosen = choose("train", "photos_ddpm")
    assert (chosen.recipe, chosen.data) == ("photos_ddpm", None)
    assert "for the folder: graft train ./photos_ddpm" in chosen.lines[0]
    assert choose("train", "./photos_ddpm").recipe == "photos_efficientnet_b0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((None, [], None), "needs your data (graft train FOLDER) or a recipe"),
        ((".", [], "."), "both data: leave one out"),
        ((None, [], "nobody/nothing"), "no such file or folder, and Graft looks only at data on this disk"),
        (("run", [], None), "is a run folder, not data: to train its recipe again, graft train run/recipe.yaml"),
        (("model", [], None), "is a model folder, not data: graft train DATA --model model"),
    ],
)
def test_what_cannot_be_guessed(
    words: tuple[str | None, list[str], str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file(tmp_path, "run/recipe.yaml", "task: x")
    file(tmp_path, "model/config.json", "{}")
    with pytest.raises(RecipeError) as error:
        choose("train", *words)
    assert message in str(error.value)


def test_large_tables_are_not_read(tmp_path: Path) -> None:
    table = file(tmp_path, "large.csv", REVIEWS + rows("", "the film number {n} is very good,good", n=60_000))
    with table.open("a") as opened:
        opened.write("a broken row, " * 20 + "\n")
    chosen = choose("train", str(table))
    assert chosen.recipe == "texts_minilm_frozen"
    assert "about 60," in chosen.lines[0] or "about 59," in chosen.lines[0]


def test_objects_of_a_list_are_counted_and_not_its_lines(tmp_path: Path) -> None:
    few = file(tmp_path, "few.json", json.dumps([{"messages": TALK}] * 7, indent=1))
    assert "a table of 7 rows" in choose("train", str(few)).lines[0]
    many = file(tmp_path, "many.json", json.dumps([{"messages": TALK}] * 20_000))
    assert "a table of about 20,000 rows" in choose("train", str(many)).lines[0]


def test_one_class_folder_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cat" / "1.jpg")
    chosen = choose("train", str(tmp_path / "photos"))
    assert "in one folder (cat): a classifier needs a folder for each of two classes or more" in chosen.lines[0]
    assert chosen.recipe == "photos_ddpm"


def test_the_table_to_train_on_decides(tmp_path: Path) -> None:
    """Kaggle's folders hold a sample_submission.csv, which is the first by name."""
    (tmp_path / "train.csv").write_text(
        rows("id,text,label", "{n},the film number {n} is good,good", "{n},it is bad,bad")
    )
    (tmp_path / "test.csv").write_text(rows("id,text", "{n},a film"))
    (tmp_path / "sample_submission.csv").write_text(rows("id,label", "{n},good"))
    found = choose("train", str(tmp_path))
    assert found.recipe == "texts_minilm_frozen"
    assert not found.overrides
