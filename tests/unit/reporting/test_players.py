"""Generated recordings on the pages of a run: in the report, in the page of a run that goes on, and on its card."""

import base64
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from pipelines.data.audio import tags
from pipelines.generation import sampling
from pipelines.plots.image_grids import grid
from pipelines.publishing.card import template_environment, write_card
from pipelines.publishing.privacy import own_files, public_results
from pipelines.reporting import players
from pipelines.reporting.live import LivePage
from pipelines.reporting.report import write_report
from tests.support import tiny_audio
from tests.support.fake_run import fake_run, photos
from tests.unit.reporting.test_report import Page

RATE = 8000
TEXT = 'low <b>"high"</b> secret words'


def wav(path: Path, **about: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags.write(path, tiny_audio.spoken("low high mid", rate=RATE), RATE, {"model": "talks", **about})


MADE = {
    "n": 10,
    "copies": 1,
    "compared": 9,
    "reference": "test",
    "metrics": ["wer", "memorised"],
    "rate": RATE,
    "seconds": 12.5,
    "real_time_factor": 0.25,
    "vocoder": "Griffin-Lim",
    "recogniser": "openai/whisper-tiny",
    "normaliser": "basic",
    "speaker_model": None,
    "searched": 500,
    "published": [0, 1, 2, 4],
    "resynthesised": False,
    "of_rows": True,
    "spelled": True,
    "voices": 12,
    "measured": {"memorised": 9},
    "rows": ["by text"],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = fake_run(tmp_path / "talks", n=20, pictures=False)
    for number in range(10):
        wav(folder / "samples" / f"{number:05}.wav", seed=number, text=TEXT, speaker="ann")
    for step in (0, 50, 100):
        for number in range(4):
            wav(folder / "samples" / "over_training" / f"step_{step:06}" / f"{number:02}.wav", seed=number, text=TEXT)
        (folder / "samples" / "grids").mkdir(exist_ok=True)
        grid(photos(2)).save(folder / "samples" / "grids" / f"step_{step:06}.png")
    results = json.loads((folder / "results.json").read_text())
    results["samples"] = MADE
    results["test"]["tables"]["by text"] = [{"text": f"{TEXT} {n}", "recordings": 1, "wer": 0.1} for n in range(5)]
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def heard(page: Page) -> list[dict[str, str | None]]:
    return [attrs for tag, attrs in page.tags if tag == "audio"]


def test_the_report_plays_samples_and_the_first_request_over_training(run: Path) -> None:
    page = Page(write_report(run))
    found = heard(page)
    assert len(found) == players.MOST + 3
    assert all(one["src"] and one["src"].startswith("data:audio/") for one in found)
    data = base64.b64decode((found[0]["src"] or "").partition(",")[2])
    assert data.startswith((b"fLaC", b"ID3", b"\xff"))
    assert f"Text: {TEXT}; Speaker: ann; Seed: 0" in " ".join(page.text.split())
    assert "step 0, before training" in " ".join(page.text.split())
    assert "<b>" not in page.text.replace(TEXT, "")
    assert 'src="http' not in (run / "report.html").read_text()


def test_a_run_without_sound_has_no_players(tmp_path: Path) -> None:
    page = Page(write_report(fake_run(tmp_path / "run", n=20, pictures=False)))
    assert not heard(page)
    assert "Generated recordings" not in page.text


def test_the_live_page_plays_what_each_evaluation_kept(run: Path) -> None:
    (run / "results.json").unlink()
    page = LivePage(run)
    (run / "report.html").write_text(page.render())
    found = heard(Page(run / "report.html"))
    assert [one["aria-label"] for one in found[:3]] == [
        "Sample 1 at step 100",
        "Sample 2 at step 100",
        "Sample 1 at step 50",
    ]
    assert len(found) == 6
    assert "media-src data:" in (run / "report.html").read_text()
    encoded = dict(page.players)
    page.render()
    assert all(page.players[key] is value for key, value in encoded.items()), "nothing is encoded twice"


def test_of_a_long_run_few_evaluations_are_kept_complete_and_heard(run: Path) -> None:
    spec = SimpleNamespace(suffix=".wav", write=lambda one, path, about: wav(path, **about))
    folder, page = run / "samples" / "over_training", LivePage(run)
    page.render()
    for step in range(150, 5001, 50):
        sampling.keep_moment(folder, step, [0, 1], [{"seed": 0}, {"seed": 1}], spec)  # type: ignore[arg-type]
    steps = [int(path.name[5:]) for path in sorted(folder.iterdir())]
    assert len(steps) == sampling.MOMENTS
    assert (steps[0], steps[-1]) == (0, 5000)
    assert max(b - a for a, b in pairwise(steps)) <= 1700, "they are spread over the run"
    assert {len(list((folder / f"step_{step:06}").iterdir())) for step in steps[1:]} == {2}
    page.render()
    assert {key.split()[0] for key in page.players} <= {path.name for path in folder.iterdir()}, "old ones are dropped"


def test_damaged_and_strange_files_have_no_player(tmp_path: Path) -> None:
    (tmp_path / "words.wav").write_text("no recording")
    soundfile.write(tmp_path / "plain.wav", np.zeros(4000), RATE)
    soundfile.write(tmp_path / "short.wav", np.zeros(10), RATE)
    assert players.player(tmp_path / "words.wav") is None
    assert players.player(tmp_path / "short.wav") is None
    assert players.player(tmp_path / "gone.wav") is None
    plain = players.player(tmp_path / "plain.wav")
    assert plain is not None
    assert plain.about == {}


# ---- what may be published ----


def test_what_says_texts_of_rows_is_published_like_rows(run: Path) -> None:
    write_card(run)
    assert not (run / "model" / "samples").exists()
    card, published = ((run / "model" / name).read_text() for name in ("README.md", "results.json"))
    assert "<audio" not in card
    assert "secret words" not in card + published


def test_published_samples_are_no_copies_and_name_no_row(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "samples": {**results["samples"], "rows": []}}))
    write_card(run)
    folder = run / "model" / "samples"
    assert sorted(path.name for path in folder.iterdir()) == ["00000.wav", "00001.wav", "00002.wav", "00004.wav"]
    about = tags.read_settings(folder / "00004.wav", "it")
    assert about == {"model": "talks", "seed": 4, "synthetic": True}
    own, public = (soundfile.read(place / "00004.wav", dtype="int16")[0] for place in (run / "samples", folder))
    assert (own == public).all()


def test_as_many_texts_as_rows_may_be_published(run: Path) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["hub"]["examples"] = 2
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_card(run)
    said = [tags.read_settings(path, "it").get("text") for path in sorted((run / "model" / "samples").iterdir())]
    assert said == [TEXT, TEXT]
    results = json.loads((run / "results.json").read_text())
    assert len(public_results({"hub": {"examples": 2}}, results)["test"]["tables"]["by text"]) == 2
    assert "by text" not in public_results({"hub": {"examples": 0}}, results)["test"]["tables"]


@pytest.mark.parametrize("allowed", [0, 2])
def test_a_vocoder_publishes_no_more_test_recordings_than_the_recipe_allows(run: Path, allowed: int) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "hub": {**recipe["hub"], "examples": allowed}}))
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "samples": {**MADE, "resynthesised": True}}))
    write_card(run)
    assert len(list((run / "model").glob("samples/*.wav"))) == allowed
    assert len([name for name in own_files(run) if name.startswith("samples/")]) <= allowed


def test_only_samples_that_the_card_names_are_published(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "samples": {**results["samples"], "rows": []}}))
    card = write_card(run)
    assert not [name for name in own_files(run) if name.startswith("samples/")]
    card.write_text(card.read_text() + '\n<audio controls src="samples/00001.wav"></audio>\n')
    wav(run / "model" / "samples" / "mine.wav")
    assert [name for name in own_files(run) if name.startswith("samples/")] == ["samples/00001.wav"]


def test_the_part_of_the_card(run: Path) -> None:
    text = template_environment().from_string(
        '{% from "sounds.md.j2" import made_sounds, whose_voice with context %}{{ made_sounds() }}{{ whose_voice() }}'
    )
    results = json.loads((run / "results.json").read_text())
    test = {"metrics": {"wer": 0.1, "memorised": 0.1}}
    shown = [{"file": "00001.wav", "about": "seed 1 | *"}]
    found = text.render(results=results, test=test, players=shown, examples=[])
    assert '<audio controls src="samples/00001.wav"></audio>' in found
    assert r"seed 1 \| \*" in found
    assert "All of this audio is synthetic" in found
    assert "the vocoder is Griffin-Lim" in found
    assert "took 0.250 seconds of computing" in found
    said = "wrote down what it heard; both texts were written out as they are spoken, and normalised (basic)"
    assert f"openai/whisper-tiny {said}" in found
    assert "9 real recordings of the test split, of the same rows" in found
    assert "Fewer recordings have some of these figures: Memorised" in found
    assert "of 500 that were searched" in found
    assert "1 recording that is a copy of training recordings is not among the samples" in found
    assert "Use the voice of a person only as" in found
    bare = {
        **MADE,
        "of_rows": False,
        "measured": {},
        "metrics": [],
        "real_time_factor": None,
        "vocoder": None,
        "copies": 0,
    }
    found = text.render(results={**results, "samples": bare}, test={"metrics": {}}, players=[], examples=[])
    assert "vocoder" not in found
    assert "of the same rows" not in found
    assert "the samples were not made of rows" in found
    assert "<audio" not in found
