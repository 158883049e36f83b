"""The card: the complete text (golden), its front matter, what it does not show, and a snippet that runs.

After an intended change: GRAFT_UPDATE_GOLDEN=1 pytest tests/unit/publishing/test_card.py -k golden, and read the diff.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from pipelines.config.recipe import load_recipe
from pipelines.errors import ModelError, RunError
from pipelines.publishing.card import markdown, write_card
from pipelines.reporting.report import write_report
from tests.support.fake_run import LABELS, change, fake_run

GOLDEN = Path(__file__).parents[2] / "golden" / "card_image_classification.md"
BREEDS = tuple(f"breed_{i:02}" for i in range(28))


def html(card: Path) -> str:
    body = card.read_text().split("---\n", 2)[2]
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run(tmp_path / "run", n=60, pictures=False)


def test_golden(tmp_path: Path) -> None:
    run = fake_run(
        tmp_path / "run",
        ("cat", "dog", "yak"),
        120,
        hub={"license": "apache-2.0", "examples": 2, "tags": ["pets"]},
        examples=2,
    )
    write_report(run)
    card = write_card(run, "someone/pets-vit").read_text()
    if os.environ.get("GRAFT_UPDATE_GOLDEN"):
        GOLDEN.write_text(card)
    assert card == GOLDEN.read_text()


# ---- front matter ----


@pytest.mark.parametrize(("labels", "multi_label"), [(LABELS, False), (BREEDS, False), (BREEDS, True)])
def test_the_model_index_reads_back_as_the_results(tmp_path: Path, labels: tuple[str, ...], multi_label: bool) -> None:
    run = fake_run(tmp_path / "run", labels, 90, multi_label=multi_label, pictures=False)
    test = json.loads((run / "results.json").read_text())["test"]
    data = ModelCard.load(write_card(run, "someone/pets")).data
    found = {result.metric_type: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == test["metrics"]
    assert {name: result.metric_args for name, result in found.items()} == {
        n: {"n": 90, "ci95": test["ci95"][n]} for n in found
    }
    assert {(r.task_type, r.dataset_type, r.dataset_split) for r in found.values()} == {
        ("image-classification", "timm/oxford-iiit-pet", "test")
    }
    assert data.metrics == list(test["metrics"])
    assert data.model_name == "pets"


def test_front_matter_of_hub_sources(run: Path) -> None:
    data = ModelCard.load(write_card(run)).data
    assert data.base_model == "google/vit-base-patch16-224-in21k"
    assert data["base_model_relation"] == "finetune"
    assert data.datasets == ["timm/oxford-iiit-pet"]
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "image-classification",
    )
    assert data.tags == ["graft"]


def test_what_is_not_known_is_left_out_or_called_unknown(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=60, local=True, hub={"license": None, "tags": ["graft", "pets"]}, pictures=False)
    card = write_card(run)
    data = ModelCard.load(card).data
    assert (data.base_model, data.datasets, data.license, data.language) == (None, None, None, None)
    assert data.tags == ["graft", "pets"]
    assert {result.dataset_type for result in data.eval_results} == {"cats_dogs"}
    text = card.read_text()
    assert "This model: the author has not stated a licence." in text
    assert text.count("licence: unknown.") == 2
    assert "my\\_weights" not in text  # an underscore inside a word needs no escape
    assert "my_weights (not on the hub)" in text


def test_a_base_model_further_up_is_named_as_such(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=60, local=True, pictures=False)
    change(run, "model", base_model="google/vit-base-patch16-224-in21k")
    card = write_card(run)
    assert ModelCard.load(card).data.base_model == "google/vit-base-patch16-224-in21k"
    assert "my_weights (not on the hub; derived from [google/vit" in card.read_text()


@pytest.mark.parametrize("model", [{"id": None, "config": {"model_type": "vit"}}, {"weights": "random"}])
def test_random_weights_have_no_base_model(run: Path, model: dict[str, Any]) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["model"] |= model
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    if "config" in model:
        change(run, "model", id="vit from scratch", base_model=None)
    card = write_card(run)
    assert ModelCard.load(card).data.base_model is None
    assert "with random weights, trained on" in card.read_text()
    assert "fine-tun" not in card.read_text()
    assert load_recipe(run / "model" / "recipe.yaml").model.weights in ("pretrained", "random")


@pytest.mark.parametrize("place", ["timm/resnet34.a1_in1k", "clients/acme", "/data/clients/acme"])
def test_the_weights_of_an_encoder_are_named(run: Path, place: str) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    config = {"model_type": "smp", "architecture": "unet", "encoder": "resnet34", "encoder_weights": place}
    recipe["model"] |= {"id": None, "config": config}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    hub = place.startswith("timm/")
    encoder = place if hub else "resnet34 (local folder)"
    about = {"id": f"new unet on {encoder}", "name": f"new unet on {encoder}", "encoder": encoder, "license": "mit"}
    change(run, "model", **about, base_model=place if hub else None, random_weights=False, revision=None)
    write_report(run)
    card = write_card(run)
    text = card.read_text()
    assert ModelCard.load(card).data.base_model == (place if hub else None)
    shown = f"[{place}](https://huggingface.co/{place})" if hub else encoder
    assert f"It is a new unet on an encoder with the weights of {shown}, trained on" in text
    assert f"- Weights of the encoder: {shown}; licence: mit." in text
    assert "fine-tun" not in text.split("---", 2)[2]
    assert "random" not in text
    published = yaml.safe_load((run / "model" / "recipe.yaml").read_text())["model"]["config"]["encoder_weights"]
    assert published == (place if hub else "acme")
    assert "random" not in (run / "report.html").read_text().split("<body")[1][:3000]
    if not hub:
        assert not any("clients" in path.read_text() for path in (card, run / "model" / "recipe.yaml"))
        assert "not on the hub" in (run / "model" / "recipe.yaml").read_text()


def test_only_what_was_measured_is_there(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["test"]["metrics"]["ece"] = float("nan")
    results["test"]["ci95"] = {}
    results["baseline"] = results["validation"] = None
    (run / "results.json").write_text(json.dumps(results))
    card = write_card(run)
    found = ModelCard.load(card).data.eval_results
    assert [result.metric_type for result in found] == ["accuracy", "balanced_accuracy", "f1_macro"]
    assert all(result.metric_args == {"n": 60} for result in found)
    body = card.read_text().split("---\n", 2)[2]
    assert "95 % interval 0" not in body
    assert "before training" not in body.lower()
    assert "Validation |" not in body


# ---- text ----


def test_numbers_of_the_text_are_those_of_the_results(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    text = write_card(run).read_text()
    low, high = results["test"]["ci95"]["accuracy"]
    accuracy = results["test"]["metrics"]["accuracy"]
    assert 0.01 < (high - low) / 2 < 0.1  # so two decimals
    assert f"**Accuracy {accuracy:.2f}** on 60 test rows (95 % interval {low:.2f} to {high:.2f})" in text
    for row in results["test"]["tables"]["per class"]:
        numbers = f"{row['precision']:.2f} | {row['recall']:.2f} | {row['f1']:.2f}"
        assert f"| {row['label']} | {row['n']} | {numbers} |" in text
    worst = min(results["test"]["tables"]["per class"], key=lambda row: row["f1"])
    assert f"Weakest class: {worst['label']}, with an F1 of {worst['f1']:.2f} on {worst['n']} test rows" in text


def test_long_tables_are_folded_and_short_ones_are_not(tmp_path: Path) -> None:
    assert "<details><summary>28 rows" in write_card(fake_run(tmp_path / "a", BREEDS, 200, pictures=False)).read_text()
    text = write_card(fake_run(tmp_path / "b", n=50, pictures=False)).read_text()
    assert text.count("<details>") == 1  # the recipe


def test_limits_are_computed(tmp_path: Path) -> None:
    rare = fake_run(tmp_path / "a", BREEDS, 100, pictures=False)
    assert re.search(
        r"Some classes have few test rows \(breed_\d\d: \d, breed_\d\d: \d, breed_\d\d: \d\)",
        write_card(rare).read_text(),
    )
    same = fake_run(tmp_path / "b", n=60, skill=0.5, pictures=False)
    change(same, "baseline", metrics=json.loads((same / "results.json").read_text())["test"]["metrics"])
    assert "does not show that training helped" in write_card(same).read_text()
    plain = fake_run(tmp_path / "c", n=4000, pictures=False)
    assert "few test rows" not in write_card(plain).read_text()
    change(plain, "data", test={"rows": 4000, "skipped": 0, "fingerprint": "00", "source": "cut from train (10 %)"})
    change(plain, "train", stopped="early")
    card = write_card(plain)
    assert "The test rows were cut from the rows of the training split" in card.read_text()
    assert "Training stopped early" in card.read_text()
    assert ModelCard.load(card).data.eval_results[0].dataset_split == "cut from train (10 %)"


def test_labels_that_look_like_markup_stay_text(tmp_path: Path) -> None:
    evil = (
        "a|b",
        "<script>x</script>",
        "[x](http://e.org)",
        "*bold*",
        "_it_",
        "`code`",
        "line\n\nbreak",
        "{{ 7 * 7 }}",
        "---",
        "猫",
        "&amp;",
    )
    run = fake_run(tmp_path / "run", evil, 200)
    page = html(write_card(run))
    assert page.count("<tr>") == (1 + 5) + (1 + len(evil)) + (1 + 3)  # metrics, classes, splits: no row is split in two
    assert not re.search(r"<script|<a href=\"http://e|<em>it|<code>code", page)
    assert "{{ 7 * 7 }}" in page
    assert "&amp;amp;" in page


@given(st.text())
@settings(deadline=None)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    page = MarkdownIt("commonmark").enable("table").renderInline(markdown(text)).replace("&quot;", '"')
    shown = page.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert shown.split() == text.replace("\0", "\ufffd").split()


def test_the_repository_is_named_where_it_is_known(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=30, hub={"repo_id": "me/from-recipe"}, pictures=False)
    assert 'repo = "me/from-recipe"' in write_card(run).read_text()
    card = write_card(run, "me/asked")
    assert 'repo = "me/asked"' in card.read_text()
    assert card.read_text().count("# asked\n") == 1
    unknown = write_card(fake_run(tmp_path / "other", n=30, pictures=False)).read_text()
    assert 'repo = "OWNER/NAME"' in unknown
    assert "Put this model's repository in place of `OWNER/NAME`." in unknown


def test_a_template_that_asks_for_what_is_not_there_fails(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    del results["labels"]
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(UndefinedError):
        write_card(run)


def test_an_unfinished_run_has_no_card(tmp_path: Path, run: Path) -> None:
    (run / "results.json").unlink()
    with pytest.raises(RunError, match=r"no results.json here: a card is written for a finished run"):
        write_card(run)
    with pytest.raises(ModelError, match="finished run"):
        write_card(tmp_path)


def test_base_template_knows_no_task() -> None:
    folder = Path(__file__).parents[3] / "hub_cards"
    base = (folder / "base.md.j2").read_text()
    others = [path.name.removesuffix(".md.j2") for path in folder.glob("*.md.j2") if path.name != "base.md.j2"]
    assert "image_classification" in others
    assert not [name for name in others if name in base or name.replace("_", "-") in base]
    assert not re.search(
        r"\b(image|photo|class|label|token|audio)s?\b", re.sub(r"\{#.*?#\}|macro images|images\(|<img[^>]*>", "", base)
    )
