"""The report and the figures: their content, their layout at any size, and that the page needs no other file."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from pipelines.errors import ModelError, RunError
from pipelines.reporting.live import LivePage
from pipelines.reporting.report import write_report
from pipelines.utils import formatting
from tests.support.fake_run import fake_run, write_lines

BREEDS = tuple(f"breed_{i:02}" for i in range(28))
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Reads a page and checks that its tags are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "img"]

    def figures(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "svg"]


# ---- the page ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fake_run(tmp_path_factory.mktemp("runs") / "pets", BREEDS, 300, head=True)
    write_report(folder)
    return folder


def test_the_page_shows_every_number_of_the_test_split(run: Path) -> None:
    page, results = Page(run / "report.html"), json.loads((run / "results.json").read_text())
    shown = " ".join(page.text.split())
    for name, value in results["test"]["metrics"].items():
        assert formatting.readable_name(name) in shown
        assert formatting.score(value, results["test"]["ci95"][name]) in shown
        assert formatting.interval(results["test"]["ci95"][name]) in shown
    before = results["baseline"]["metrics"]["accuracy"]
    assert f"Before training: {formatting.score(before, results['test']['ci95']['accuracy'])}" in shown
    assert all(label in shown for label in BREEDS)
    assert "cut from train" in shown
    assert "learning_rate: 5.0e-05" in shown  # the recipe
    assert results["model"]["id"] in shown


def test_the_page_asks_for_nothing(run: Path) -> None:
    page = Page(run / "report.html")
    addresses = [
        value
        for _, attrs in page.tags
        for key, value in attrs.items()
        if key in ("src", "href", "srcset", "action", "data")
    ]
    assert len(addresses) > 5
    assert all(address and address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in (run / "report.html").read_text()
    text = re.sub(r"data:image/png;base64,\S+", "", (run / "report.html").read_text())
    assert not re.search(r"url\((?!#)|@import|https?://", text)


def test_an_integer_keeps_its_digits(run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    settings["train"] |= {"seed": 20241129, "learning_rate": 0.00003}
    (run / "recipe.yaml").write_text(yaml.safe_dump(settings))
    finished, going_on = Page(write_report(run)).text, LivePage(run).render()
    assert "Seed20241129" in finished
    assert "Learning rate3e-05" in finished
    assert "<dt>Seed</dt><dd>20241129</dd>" in going_on
    assert "<dt>Learning rate</dt><dd>3e-05</dd>" in going_on


def test_every_picture_says_what_it_shows(run: Path) -> None:
    drawn = Page(run / "report.html").figures()
    assert len(drawn) == len(list((run / "figures").glob("*.png"))) == len(list((run / "figures").glob("*.svg"))) == 5
    assert all(len(str(figure["aria-label"])) > 30 and figure["role"] == "img" for figure in drawn)
    assert "Training loss" in str(drawn[0]["aria-label"])


def test_a_run_of_an_older_version_shows_its_png_files(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", n=20)
    names = sorted(path.stem for path in (folder / "figures").glob("*.svg"))
    for name in names:
        (folder / "figures" / f"{name}.svg").unlink()
    page = Page(write_report(folder))
    pictures = page.images()
    assert len(pictures) == len(names) > 2
    assert all(len(str(picture["alt"])) > 20 for picture in pictures)


def test_text_of_the_data_is_text(tmp_path: Path) -> None:
    evil = ('<script>alert("1")</script>', "a|b", "$x^2$ {{ 7 * 7 }}", "$x", "猫", "x" * 200, " \n\n")
    folder = fake_run(tmp_path / "run", evil, 80)
    page = Page(write_report(folder))
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert evil[0] in page.text
    assert "{{ 7 * 7 }}" in page.text


@pytest.mark.parametrize(
    "missing",
    [("results.json",), ("log.jsonl",), ("figures", "predictions"), ("results.json", "log.jsonl", "figures", "model")],
)
def test_a_run_that_lacks_parts_shows_what_is_there(tmp_path: Path, missing: tuple[str, ...]) -> None:
    folder = fake_run(tmp_path / "run", n=40)
    for name in missing:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    page = Page(write_report(folder))
    assert ("has not finished" in page.text) is ("results.json" in missing)
    drawn = [str(attrs.get("alt") or attrs.get("aria-label")) for _, attrs in page.tags]
    assert any("Training loss" in alt for alt in drawn) is ("log.jsonl" not in missing)
    assert "The full recipe" in page.text


def test_an_unfinished_run_tells_where_it_is(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", n=40, steps=300, pictures=False)
    (folder / "results.json").unlink()
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 310, "epo')  # killed during the write
    page = Page(write_report(folder))
    assert "the log ends at step 300" in page.text
    drawn = [str(attrs["aria-label"]).split(":")[0] for tag, attrs in page.tags if tag == "svg"]
    assert drawn[:3] == ["Accuracy on validation", "Training loss", "Learning rate"]


@pytest.mark.parametrize("stopped", [None, "early"])
def test_no_test_metric_is_made_up(tmp_path: Path, stopped: str | None) -> None:
    folder = fake_run(tmp_path / "run", n=40, pictures=False)
    results = json.loads((folder / "results.json").read_text())
    results["baseline"] = results["validation"] = None
    results["test"]["ci95"] = {}
    results["train"]["stopped"], results["train"]["peak_memory_mb"] = stopped, None
    (folder / "results.json").write_text(json.dumps(results))
    page = Page(write_report(folder))
    assert ("early stopping" in page.text) is (stopped == "early")
    assert "Before" not in page.text
    assert "These rows were not scored before training" in page.text
    assert "Peak memory" not in page.text


def test_what_is_no_run_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no run folder \(it has no recipe.yaml\)"):
        write_report(tmp_path)
    folder = fake_run(tmp_path / "run", n=20, pictures=False)
    write_lines(folder / "log.jsonl", [{"step": 1, "stage": "train", "epoch": 0.1, "validation": {"accuracy": 0.5}}])
    text = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_text("not json\n" + text)
    with pytest.raises(RunError, match="a line is not JSON"):
        write_report(folder)


def test_a_report_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", n=20, pictures=False)
    (folder / "figures").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="figures cannot be written"):
        write_report(folder)


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_the_page_in_a_browser(run: Path, width: int, scheme: str) -> None:
    """A click sorts a table, no table is wider than the window, and the page makes no request and raises no error."""
    from playwright import sync_api

    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((run / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        rows = (
            "[...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[{}].textContent.trim())"
        )
        page.get_by_role("button", name="F1").click()
        values = [float(value) for value in page.evaluate(rows.format(4))]
        assert len(values) == 28
        assert values == sorted(values, reverse=True)
        page.get_by_role("button", name="F1").click()
        assert page.evaluate(rows.format(4)) == [f"{value:.2f}" for value in sorted(values)]
        page.get_by_role("button", name="Label").click()
        assert page.evaluate(rows.format(0)) == sorted(BREEDS)
        assert page.evaluate("document.querySelectorAll('th[aria-sort]').length") == 1
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert errors == []
        browser.close()
