"""What a published card must not hold (rows, paths), and its snippet, which runs without Graft."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from pipelines.config.recipe import load_recipe
from pipelines.errors import RunError
from pipelines.publishing.card import write_card
from pipelines.publishing.privacy import own_files, public_recipe
from pipelines.reporting.report import write_report
from tests.support import tiny
from tests.support.fake_run import add_mistakes, change, fake_run, photos


def snippet(card: Path) -> str:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)[0]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_published_holds_no_rows_and_no_paths(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=60, local=True)
    add_mistakes(run)
    write_report(run)
    write_card(run)
    charts = {
        f"figures/{name}.png"
        for name in ("calibration", "class_balance", "confusion_matrix", "learning_curves", "validation_metric")
    }
    assert (run / "mistakes" / "0.jpg").exists()
    assert files(run / "model") == {"README.md", "recipe.yaml", "results.json", "config.json", *charts}
    ids = [json.loads(line)["id"] for line in (run / "predictions" / "test.jsonl").read_text().splitlines()]
    for name in ("README.md", "recipe.yaml", "results.json"):
        text = (run / "model" / name).read_text()
        assert "secret" not in text
        assert str(tmp_path) not in text
        assert not [id_ for id_ in ids if id_ in text]
    shown = set(re.findall(r'src="([^"]+)"', (run / "model" / "README.md").read_text()))
    assert shown == charts
    (run / "figures" / "calibration.png").unlink()
    write_card(run)
    assert "figures/calibration.png" not in files(run / "model")


def test_wrong_rows_are_published_only_as_hub_examples_allows(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=60, pictures=False, hub={"license": "mit", "examples": 1}, examples=1)
    add_mistakes(run, ("a <b>word</b> | *of* the first row", "the second row"))
    text = write_card(run).read_text()
    assert files(run / "model" / "mistakes") == {"0.jpg"}
    assert r"a \<b\>word\</b\> \| \*of\* the first row" in text
    assert "the second row" not in text
    assert "secret" not in text, "the name of a file is no part of the card"
    assert "mistakes/0.jpg" in own_files(run)
    raw = yaml.safe_load((run / "recipe.yaml").read_text())
    raw["hub"]["examples"] = 0
    (run / "recipe.yaml").write_text(yaml.safe_dump(raw))
    text = write_card(run).read_text()
    assert "Surest mistakes" not in text
    assert "first row" not in text
    assert not (run / "model" / "mistakes").exists()


def test_the_public_recipe_is_the_recipe_under_public_names(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=30, local=True, pictures=False)
    write_card(run)
    private, public = load_recipe(run / "recipe.yaml"), load_recipe(run / "model" / "recipe.yaml")
    assert public.model.id == "my_weights"
    assert public.data.id == "cats_dogs"
    assert public.model_copy(update={"model": private.model, "data": private.data}) == private
    assert (run / "model" / "recipe.yaml").read_text().startswith("# cats_dogs and my_weights: not on the hub")
    assert (run / "model" / "results.json").read_bytes() == (run / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("/home/someone/noise/", "noise"),
        ("~/noise", "noise"),
        ("../x/noise.wav", "noise.wav"),
        ("./noise", "noise"),
        (r"C:\Users\someone\noise", "noise"),
        ("https://host.example/a/noise.zip?token=hf_secret", "noise.zip"),
        ("owner/name", "owner/name"),
        ("crop-flip", "crop-flip"),
        ("a/b and c", "a/b and c"),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_paths_anywhere_in_a_recipe_are_reduced(value: Any, public: Any) -> None:
    recipe = {"model": {"id": "x"}, "data": {"id": "y"}, "options": {"deep": [{"here": value}]}}
    before = json.dumps(recipe)
    found = public_recipe(recipe, {"model": {"id": "m"}, "data": {"name": "d"}})
    assert found == {"model": {"id": "m"}, "data": {"id": "d"}, "options": {"deep": [{"here": public}]}}
    assert json.dumps(recipe) == before


def test_a_path_in_the_results_stops_the_card(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=30, pictures=False)
    change(run, "environment", hardware=f"disk at {run.resolve()}/x")
    with pytest.raises(RunError, match=r"would publish the local path"):
        write_card(run)
    assert not (run / "model" / "README.md").exists()


def test_labels_that_look_like_paths_are_no_paths(tmp_path: Path) -> None:
    assert (
        "/m/01yrx" in write_card(fake_run(tmp_path / "run", ("/m/01yrx", "/m/0bt9lr"), 30, pictures=False)).read_text()
    )


# ---- the snippet ----


def test_the_snippet_is_python_and_needs_the_library_alone(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=30, examples=3, hub={"examples": 3}, pictures=False)
    code = snippet(write_card(run, "me/pets"))
    compile(code, "snippet", "exec")
    assert set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)) == {"transformers"}
    assert '"examples/0.jpg"' in code


def answer_of(code: str, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, float]]:
    capsys.readouterr()
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines() if re.match(r"0\.\d+|1\.0", line)]
    return [(label, float(score)) for score, label in lines]


def expected(model: Any, processor: Any, image: Any) -> list[tuple[str, float]]:
    import torch

    with torch.inference_mode():
        scores = model(**processor(image.convert("RGB"), return_tensors="pt")).logits[0].softmax(-1)
    return [(model.config.id2label[i], round(float(scores[i]), 3)) for i in scores.argsort(descending=True).tolist()]


def test_the_snippet_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The snippet as printed, but with the model folder instead of the repository."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    run = fake_run(tmp_path / "run", n=30, examples=2, hub={"examples": 2}, pictures=False)
    tiny.vit(run / "model")
    code = snippet(write_card(run, "me/pets"))
    found = answer_of(code.replace("me/pets", str(run / "model")), capsys)
    model = AutoModelForImageClassification.from_pretrained(run / "model").eval()
    processor = AutoImageProcessor.from_pretrained(run / "model")
    assert found == expected(model, processor, Image.open(run / "model" / "examples" / "0.jpg"))


def test_the_snippet_of_an_adapter_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

    base = tiny.vit(tmp_path / "base")
    run = fake_run(tmp_path / "run", n=30, hub={"adapter": True}, pictures=False)
    config = AutoConfig.from_pretrained(
        base, num_labels=2, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}
    )
    torch.manual_seed(0)
    plain = AutoModelForImageClassification.from_pretrained(base, config=config, ignore_mismatched_sizes=True)
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules=["query", "q_proj"], modules_to_save=["classifier"])
    model = get_peft_model(plain, lora)
    model.save_pretrained(run / "model")
    config.save_pretrained(run / "model")
    processor = AutoImageProcessor.from_pretrained(base)
    processor.save_pretrained(run / "model")
    card = write_card(run, "me/pets")
    data = ModelCard.load(card).data
    assert (data.library_name, data["base_model_relation"]) == ("peft", "adapter")
    photo = photos(1)[0]
    photo.save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = snippet(card).replace("me/pets", str(run / "model")).replace("google/vit-base-patch16-224-in21k", str(base))
    merged = model.merge_and_unload().eval()
    from PIL import Image

    found = answer_of(code, capsys)
    assert found == expected(merged, processor, Image.open("photo.jpg"))
