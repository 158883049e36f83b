"""Wrong rows: chosen by rank, kept in the run folder, shown as HTML without anything of them acting as markup."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from pipelines.config.recipe import task_class
from pipelines.data.origin import Origin
from pipelines.errors import RunError
from pipelines.reporting import mistakes
from pipelines.reporting.mistakes import GAP, Mistake, Mistakes, Piece, shortened, spans
from pipelines.reporting.report import write_report
from tests.support.fake_run import add_mistakes, fake_run, predictions
from tests.unit.reporting.test_report import Page

EVIL = '<script>alert(1)</script> "quoted" \' & </article> {{ 7 * 7 }}'


def table(n: int = 30) -> Dataset:
    return Dataset.from_dict({"id": [f"rows.csv:{i}" for i in range(n)], "text": [f"text {i}" for i in range(n)]})


def records(wrong: dict[int, float], n: int = 30) -> list[dict[str, Any]]:
    return [
        {"id": f"rows.csv:{i}", "true": "a", "predicted": "b" if i in wrong else "a", "confidence": wrong.get(i, 0.9)}
        for i in range(n)
    ]


def test_the_surest_wrong_rows_come_first() -> None:
    task = task_class("text-classification")()
    found = mistakes.choose(task, records({3: 0.6, 4: 0.99, 7: 0.8}), table(), "test")
    assert found is not None
    assert (found.wrong, found.rows, found.split) == (3, 30, "test")
    assert [(one.origin.text, one.sure) for one in found.shown] == [
        ("rows.csv, line 4", 0.99),
        ("rows.csv, line 7", 0.8),
        ("rows.csv, line 3", 0.6),
    ]
    many = mistakes.choose(task, records(dict.fromkeys(range(20), 0.5)), table(), "test")
    assert many is not None
    assert (many.wrong, len(many.shown)) == (20, 12)
    assert mistakes.choose(task, records({}), table(), "test") is None


def test_any_rows_can_be_shown_in_any_order() -> None:
    """`graft compare` names the rows that flipped: they may be right in one of the runs."""
    task = task_class("text-classification")()
    shown = mistakes.of_rows(task, records({3: 0.6}), table(), ["rows.csv:9", "rows.csv:3", "no such row"])
    assert [(one.true, one.predicted) for one in shown] == [("a", "a"), ("a", "b")]
    page = str(mistakes.html(shown))
    assert page.index("text 9") < page.index("text 3")
    assert mistakes.of_rows(task, records({}), table(), []) == []


def test_several_labels_show_what_is_missing_and_what_is_too_much() -> None:
    record = {"id": "x", "true": ["a", "b"], "predicted": ["b", "c"], "scores": {"a": 0.1, "b": 0.9, "c": 0.7}}
    assert mistakes.surest_label(record, True) == pytest.approx(0.9)  # sure that there is no a
    one = mistakes.labelled(record, True)
    assert (one.names, one.true, one.predicted) == (("Missing", "Extra"), "a (90% sure)", "c (70% sure)")
    assert one.facts == {"Right": "b"}
    assert mistakes.surest_label({**record, "predicted": ["a", "b"]}, True) is None


def test_marks_part_a_text_and_long_texts_are_cut_between_them() -> None:
    assert spans("the cat sat", [(4, 7, "true", 1.0)]) == [Piece("the "), Piece("cat", "true"), Piece(" sat")]
    assert [piece.mark for piece in spans("abcdef", [(0, 4, "true", 1.0), (2, 6, "predicted", 1.0)])] == [
        "true",
        "both",
        "predicted",
    ]
    assert spans("abc", []) == [Piece("abc")]
    assert spans("abcd", [(0, 3, "true", 1.0), (1, 2, "true", 1.0)]) == [Piece("abc", "true"), Piece("d")]
    words = "word " * 1000
    cut = shortened(spans(words + "HERE " + words, [(5000, 5004, "true", 1.0)]))
    assert [piece.mark for piece in cut] == [GAP, "", "true", "", GAP]
    assert sum(len(piece.text) for piece in cut) < 500
    assert cut[0].text == " … "
    alone = shortened([Piece(words)])
    assert [piece.mark for piece in alone] == ["", GAP]
    many = shortened([Piece("x" * 100, "true") for _ in range(1000)])
    assert sum(len(piece.text) for piece in many) < 4000


def test_nothing_of_a_row_acts_as_markup(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=20, pictures=False)
    one = Mistake(
        EVIL,
        EVIL,
        0.5,
        names=(EVIL, EVIL),
        facts={EVIL: EVIL},
        texts={EVIL: [Piece(EVIL), Piece(EVIL, '"><script>', 0.5), Piece(EVIL, "for", 7.0)]},
        picture=b"no picture",
        recording=b"no recording",
        origin=Origin(EVIL, tmp_path / '"><script>.jpg'),
    )
    (tmp_path / '"><script>.jpg').write_bytes(b"")
    mistakes.save(Mistakes(EVIL, EVIL, EVIL, EVIL, True, 1, 20, (one,)), run / "mistakes")
    before = Page(write_report(fake_run(tmp_path / "other", n=20, pictures=False)))
    page = Page(write_report(run))
    assert sum(tag == "script" for tag, _ in page.tags) == sum(tag == "script" for tag, _ in before.tags) == 1
    assert page.text.count(EVIL) >= 8
    assert "{{ 7 * 7 }}" in page.text
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == ["../%22%3E%3Cscript%3E.jpg"]


def test_a_report_is_written_again_from_the_folder_alone(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "a" / "run", n=20, pictures=False)
    add_mistakes(run, ("first", "second"))
    page = Page(write_report(run))
    assert "2 of 60 test rows have a mistake" in page.text
    assert len(page.images()) == 2
    assert [attrs["href"] for tag, attrs in page.tags if tag == "a"] == ["recipe.yaml"] * 2
    moved = Path(shutil.copytree(run, tmp_path / "b"))
    (moved / "mistakes" / "0.jpg").unlink()
    page = Page(write_report(moved))
    assert len(page.images()) == 1
    shutil.rmtree(moved / "mistakes")
    assert "Surest mistakes" not in Page(write_report(moved)).text


def test_a_damaged_list_is_a_run_error_and_names_no_file_elsewhere(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=20, pictures=False)
    add_mistakes(run)
    (tmp_path / "run" / "secret.jpg").write_bytes(b"a picture of another folder")
    path = run / "mistakes" / "mistakes.json"
    kept = json.loads(path.read_text())
    kept["shown"][0]["picture"] = "../secret.jpg"
    path.write_text(json.dumps(kept))
    found = mistakes.read(run / "mistakes")
    assert found is not None
    assert found.shown[0].picture is None
    for change in ({"shown": [{}]}, {"shown": 3}, {"wrong": "many"}, {"shown": [{**kept["shown"][0], "texts": 1}]}):
        path.write_text(json.dumps({**kept, **change}))
        with pytest.raises(RunError, match="damaged"):
            mistakes.read(run / "mistakes")


def test_files_of_any_size_leave_the_page_small(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=20, pictures=False)
    add_mistakes(run, ("one", "two", "three"))
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        (run / "mistakes" / name).write_bytes(b"x" * 1_400_000)
    found = mistakes.read(run / "mistakes")
    assert found is not None
    assert [one.picture is None for one in found.shown] == [False, False, True]


def test_a_page_of_many_lists_compiles_its_template_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mistakes.html([Mistake(true="cat", picture=b"JPEG")])
    assert "data:image/jpeg;base64," in before

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a second environment")

    monkeypatch.setattr("jinja2.Environment.__init__", refused)
    assert mistakes.html([Mistake(true="cat", picture=b"JPEG")]) == before


def test_broken_media_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    for name, column in (("image-classification", "image"), ("audio-classification", "audio")):
        one = task_class(name)().mistakes.show(  # type: ignore[union-attr]
            predictions(("cat", "dog"), 1)[0], {column: {"path": str(tmp_path / "a.jpg"), "bytes": None}}, None
        )
        assert (one.picture, one.recording) == (None, None)
        assert "<article>" in str(mistakes.html([one]))


def test_heat_maps_are_kept_and_shown_and_never_published(tmp_path: Path) -> None:
    from dataclasses import replace

    from pipelines.publishing.card import write_card

    run = fake_run(tmp_path / "run")
    add_mistakes(run)
    found = mistakes.read(run / "mistakes")
    assert found is not None
    photo = found.shown[0].picture
    assert photo is not None
    maps = {"occlusion": photo, "integrated gradients": photo[:-1] + b"\0"}
    mistakes.save(replace(found, shown=(replace(found.shown[0], maps=maps), *found.shown[1:])), run / "mistakes")
    again = mistakes.read(run / "mistakes")
    assert again is not None
    assert again.shown[0].maps == maps
    one = {"ci95": [0.0, 0.2], "rows": 8, "draws": 3, "stages": {"head": 0.6}}
    explanation = {
        "occlusion": {"rank_correlation": 0.12, "passed": True, **one},
        "integrated gradients": {"rank_correlation": 0.52, "passed": False, **one},
    }
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "explanation": explanation}))
    page = write_report(run).read_text()
    assert page.count("Heat map by") == 2
    assert "Do the heat maps depend on what the model learned?" in page
    assert page.count("gives maps that are partly alike") == 1
    card = write_card(run).read_text()
    known = "0.12 for occlusion (95 % interval 0.00 to 0.20: it depends on what the model learned, for the most part), "
    assert known + "0.52 for integrated gradients (95 % interval 0.00 to 0.20: it keeps part of its order" in card
    assert not list((run / "model").rglob("*map*"))
