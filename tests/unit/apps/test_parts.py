"""What the demos show: header, card, examples, and the map of what the model looked at. test_launch.py serves them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import DataError
from pipelines.utils.formatting import interval
from tests.support.pages import gradio_page

__all__ = ["gradio_page"]

pytestmark = pytest.mark.usefixtures("gradio_page")


def stand_in(folder: Path, infer: Callable = lambda image, top_k=5: [], **changes: Any) -> Any:
    """A Loaded that gives the answers of the test."""
    labels = ["cat", "dog"]
    task = SimpleNamespace(name="image-classification", labels=labels, options=SimpleNamespace(multi_label=False))
    return SimpleNamespace(
        **(
            {"task": task, "infer": infer, "folder": folder, "run": None, "results": None, "source": "me/cats-dogs"}
            | changes
        )
    )


def results(**changes: Any) -> dict[str, Any]:
    return {
        "recipe": "pets_vit_base",
        "metric": {"name": "accuracy", "direction": "max"},
        "test": {"split": "test", "n": 1234, "metrics": {"accuracy": 0.97}, "ci95": {"accuracy": [0.93, 0.99]}},
        "model": {"id": "google/vit", "base_model": "google/vit"},
        "data": {"name": "timm/oxford-iiit-pet"},
        **changes,
    }


# ---- what the model looked at ----


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_hiding_a_word_costs_its_weight(batch: int) -> None:
    from pipelines.apps.parts import occlusion

    weights = {"not": -2.0, "a": 0.0, "good": 5.0, "film": 1.0, "[MASK]": 0.0}
    asked, received = [], []

    def score(texts: Any) -> list[float]:
        asked.extend(texts)
        return [sum(weights[word] for word in text) for text in texts]

    words = ("not", "a", "good", "film")
    drops = occlusion(
        score,
        words,
        range(4),
        lambda text, i: (*text[:i], "[MASK]", *text[i + 1 :]),
        batch=batch,
        tick=lambda done, of: received.append((done, of)),
    )
    assert drops == [-2.0, 0.0, 5.0, 1.0]
    assert len(asked) == 5
    assert received == sorted(received)
    assert received[-1] == (4, 4)


@pytest.mark.parametrize("size", [(640, 480), (33, 500), (8, 8), (3, 2)])
def test_windows_cover_the_photo(size: tuple[int, int]) -> None:
    from pipelines.apps.image_classification import cell_means, windows

    seen = np.zeros(size[::-1], int)
    for left, top, right, bottom in windows(size):
        assert 0 <= left <= right <= size[0]
        assert 0 <= top <= bottom <= size[1]
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert np.allclose(cell_means([0.5] * len(windows(size))), 0.5)


def looks_at(box: tuple[int, int, int, int], sharp: float = 1.0) -> Callable:
    """A classifier that predicts a cat if the box (in hundredths of the photo) has contrast."""

    def infer(image: Image.Image, top_k: int = 5) -> list[dict[str, Any]]:
        left, top, right, bottom = (round(v * side / 100) for v, side in zip(box, image.size * 2, strict=True))
        contrast = np.asarray(image.convert("L"), float)[top:bottom, left:right].std() / 64
        cat = 1 / (1 + math.exp(-sharp * 4 * (contrast - 0.5)))
        return [{"label": "cat", "score": cat}, {"label": "dog", "score": 1 - cat}][:top_k]

    return infer


@pytest.fixture
def checkered() -> Image.Image:
    squares = np.indices((240, 320)).sum(0) // 4 % 2 * 255
    return Image.fromarray(squares.astype("uint8")).convert("RGB")


@pytest.mark.parametrize("box", [(0, 0, 25, 25), (70, 60, 95, 90), (40, 80, 60, 100)])
def test_the_map_is_warm_where_the_model_looked(
    box: tuple[int, int, int, int], checkered: Image.Image, tmp_path: Path
) -> None:
    from pipelines.apps.image_classification import look

    photo, heat, caption = look(stand_in(tmp_path, looks_at(box)), checkered)
    assert np.array_equal(np.asarray(photo), np.asarray(checkered))
    assert heat is not None
    assert (heat.mode, heat.size) == ("RGBA", checkered.size)
    warmth = np.asarray(heat, float)[..., 3]
    y, x = np.unravel_index(warmth.argmax(), warmth.shape)
    assert box[0] - 13 <= 100 * x / 320 <= box[2] + 13  # to within one cell
    assert box[1] - 13 <= 100 * y / 240 <= box[3] + 13
    assert warmth[(y + 120) % 240, (x + 160) % 320] == pytest.approx(0, abs=3)
    assert caption.startswith("Hiding the warmest region takes the answer from ")


def test_the_map_says_so_when_no_region_matters(checkered: Image.Image, tmp_path: Path) -> None:
    from pipelines.apps.image_classification import layers, look

    def always(image: Image.Image, top_k: int = 5) -> list[dict[str, Any]]:
        return [{"label": "cat", "score": 0.8}, {"label": "dog", "score": 0.2}][:top_k]

    photo, heat, caption = look(stand_in(tmp_path, always), checkered)
    assert heat is None
    assert layers(photo, heat) == ""
    assert caption == "No single region decides: whichever is hidden, the answer stays at 80 %."


def test_the_map_still_shows_regions_of_a_model_that_is_certain(checkered: Image.Image, tmp_path: Path) -> None:
    """Its probability rounds to 1.0 whatever is hidden, so the odds of the other class decide."""
    from pipelines.apps.image_classification import look

    def certain(image: Image.Image, top_k: int = 5) -> list[dict[str, Any]]:
        cat = looks_at((0, 0, 25, 25))(image)[0]["score"]
        return [{"label": "cat", "score": 1.0}, {"label": "dog", "score": 1e-9 * (1 - cat)}][:top_k]

    _, heat, caption = look(stand_in(tmp_path, certain), checkered)
    assert "stays at 100 %" in caption
    assert heat is not None


@pytest.mark.parametrize("size", [(300, 20), (20, 300), (8, 8)])
def test_photo_and_map_have_one_size(size: tuple[int, int], tmp_path: Path) -> None:
    from pipelines.apps.image_classification import layers, look

    image = Image.effect_noise(size, 90).convert("RGB")
    photo, heat, _ = look(stand_in(tmp_path, looks_at((0, 0, 50, 50))), image)
    assert heat is not None
    assert photo.size == heat.size
    assert photo.width / photo.height == size[0] / size[1]
    page = layers(photo, heat)
    assert page.count("<img alt=") == 2
    assert 'type="range"' in page


# ---- header, card, examples ----


def header_text(loaded: Any) -> str:
    import gradio as gr

    from pipelines.apps import parts

    with gr.Blocks(analytics_enabled=False):
        return str(parts.header(loaded, "<cats> & dogs").value)


def test_the_header_shows_the_score_with_its_interval(tmp_path: Path) -> None:
    text = header_text(stand_in(tmp_path, results=results()))
    for words in (
        "Accuracy <b class=graft-good>",
        "0.97",
        interval([0.93, 0.99]),
        "n = 1,234",
        "&lt;cats&gt; &amp; dogs",
    ):
        assert words in text


def test_the_recipe_stands_beneath_a_title_that_is_another_name(tmp_path: Path) -> None:
    text = header_text(stand_in(tmp_path / "elsewhere", results=results()))
    assert "<h1>me/<wbr>cats-<wbr>dogs</h1>" in text
    assert "with the recipe pets_vit_base." in text


def test_a_score_whose_best_is_low_is_not_green(tmp_path: Path) -> None:
    test = {"split": "test", "n": 8, "metrics": {"wer": 0.25}}
    text = header_text(stand_in(tmp_path, results=results(metric={"name": "wer", "direction": "min"}, test=test)))
    assert "Word error rate <b>0.25" in text
    assert "(lower is better)" in text
    assert "graft-good" not in text


def test_the_header_has_no_numbers_where_none_were_measured(tmp_path: Path) -> None:
    assert "<li>" not in header_text(stand_in(tmp_path))


def test_names_are_words_and_never_paths_or_markup(tmp_path: Path) -> None:
    from pipelines.apps import parts

    folder = tmp_path / "model"
    folder.mkdir()
    assert parts.title(stand_in(folder)) == "me/cats-dogs"
    assert parts.title(stand_in(folder, source=str(folder))) == "model"
    assert parts.title(stand_in(folder, source=str(folder), results=results())) == "pets_vit_base"
    assert parts.title(stand_in(folder, source="", run=tmp_path)) == tmp_path.name
    assert "<script>" not in header_text(stand_in(folder, source="me/<script>"))


def test_the_card_shows_its_own_pictures_and_no_others(tmp_path: Path) -> None:
    from pipelines.apps.parts import card_text

    folder = tmp_path / "model"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (folder / "README.md").write_text(
        "---\nlicense: mit\n---\n# Pets\n![one](a.png) ![two](../secret.png) ![three](https://x.org/b.png)\n"
        '<img src="a.png" width="30" alt="four"> <img alt="five" src=\'//x.org/c.png\'> <img src="/etc/d.png">\n'
        "---\nend"
    )
    text = card_text(folder / "README.md")
    assert text.startswith("# Pets")
    assert text.endswith("---\nend")
    assert text.count("data:image/png;base64,") == 2
    assert 'width="30" alt="four"' in text
    assert "[three](https://x.org/b.png)" in text
    for gone in ("license", "../secret.png", "](//", "/etc/d.png", "<img alt"):
        assert gone not in text


@pytest.mark.parametrize("where", ["model", "run"])
def test_examples_come_from_the_model_or_its_run(tmp_path: Path, where: str) -> None:
    from pipelines.apps.parts import example_files

    model = tmp_path / "model"
    folder = (model if where == "model" else tmp_path) / "examples"
    folder.mkdir(parents=True)
    model.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "0.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    names = ["0.png", "gone.png", "../secret.png", str(tmp_path / "secret.png"), None]
    (folder / "examples.json").write_text(json.dumps([{"image": name} for name in names] + [{"text": "no image"}]))
    assert example_files(stand_in(model, run=tmp_path), "image") == [str(folder / "0.png")]


@pytest.mark.parametrize("text", ["{", '{"image": "0.jpg"}', '["0.jpg"]'])
def test_a_broken_list_of_examples_is_named(tmp_path: Path, text: str) -> None:
    from pipelines.apps.parts import example_rows

    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "examples.json").write_text(text)
    with pytest.raises(DataError, match=r"examples\.json"):
        example_rows(stand_in(tmp_path))
