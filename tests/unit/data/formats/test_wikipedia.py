"""Wikipedia dumps: every page is read, its text is prose, and a dump that is cut off anywhere is reported by name."""

import bz2
import os
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipelines.config.recipe import DataSection
from pipelines.data.formats import wikipedia
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec, Source, Splits
from pipelines.errors import DataError, RunError
from tests.unit.data.formats.test_text import counted, rows_of, write

SLICE = Path(__file__).parents[5] / "shared/data/wikipedia"
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path: Path, **section: Any) -> Splits:
    return load_splits(DataSection(id=str(path), **section), DataSpec(("text",), ("title",)))


def read_dump(path: Path, **section: Any) -> Source:
    return wikipedia.read(DataSection(id=str(path), **section), ("text",), ("title",))


NAMESPACES = '<siteinfo><namespaces><namespace key="0"/><namespace key="6">Datei</namespace></namespaces></siteinfo>'


def page(id_: int, title: str, markup: str, ns: int = 0, redirect: bool = False) -> str:
    to = '<redirect title="Elsewhere" />' if redirect else ""
    revision = f'<revision><id>{id_ + 10**6}</id><text xml:space="preserve">{escape(markup)}</text></revision>'
    return f"<page><title>{escape(title)}</title><ns>{ns}</ns><id>{id_}</id>{to}{revision}</page>\n"


def dump(pages: list[str], version: str = "0.11") -> str:
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-{version}/">{NAMESPACES}\n{"".join(pages)}</mediawiki>\n'


PAGES = [
    page(i, f"Thing {i}", f"'''Thing {i}''' is a [[thing|kind of thing]] & more.{{{{cite}}}} " + "é" * i)
    for i in range(1, 31)
]


@PROPERTY
@given(
    pages=st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 14]), st.booleans(), st.text("abcé \n", max_size=20)),
        min_size=1,
        max_size=20,
    ),
    compressed=st.booleans(),
)
def test_every_page_is_a_row_a_skip_or_said(pages: list, compressed: bool, tmp_path: Path) -> None:
    content = dump([page(i, f"T<{i}>", words, ns, redirect) for i, (ns, redirect, words) in enumerate(pages)]).encode()
    path = tmp_path / f"a.xml{'.bz2' if compressed else ''}"
    path.write_bytes(bz2.compress(content) if compressed else content)
    os.utime(path, ns=(0, Random(content).getrandbits(60)))  # written again within one tick of the clock
    wanted = {
        str(i): words for i, (ns, redirect, words) in enumerate(pages) if ns == 0 and not redirect and words.strip()
    }
    if not wanted:
        with pytest.raises(DataError, match=r"a\.xml.*: no articles"):
            read_dump(path)
        return
    source = read_dump(path)
    assert counted(source) == len(pages)
    assert [(row["id"], row["title"]) for row in source.splits["train"]] == [(i, f"T<{i}>") for i in wanted]
    assert [row["text"].split() for row in source.splits["train"]] == [words.split() for words in wanted.values()]
    assert source.ignored.get("redirects", 0) == sum(ns == 0 and redirect for ns, redirect, _ in pages)


def test_a_folder_of_parts_holds_each_page_once(tmp_path: Path) -> None:
    parts = {"b.xml-p11p30.bz2": bz2.compress(dump(PAGES[10:], "0.10").encode()), "a.xml": dump(PAGES[:12])}
    source = read_dump(
        write(tmp_path, {**parts, "README.md": "about it", "index.txt.bz2": bz2.compress(b"0:1:Thing 1")})
    )
    assert source.splits["train"]["id"] == [str(i) for i in range(1, 31)]
    assert source.ignored == {".md files": 1, ".bz2 files": 1, "articles that an earlier file holds": 2}
    assert len(load(tmp_path).train) == 24


def test_articles_are_kept_until_the_dump_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, {"a.xml": dump([*PAGES, page(99, "Empty", "{{stub}}")])}) / "a.xml"
    first = read_dump(path)
    with monkeypatch.context() as patch:
        patch.setattr(wikipedia, "_rows", lambda *_: pytest.fail("it was read again"))
        again = read_dump(path)
    assert rows_of(again) == rows_of(first)
    assert again.skipped == first.skipped == {"train": [("99", "page 99 (Empty): no text is left without its markup")]}
    assert again.splits["train"].cache_files  # memory-mapped, not in memory
    (entry,) = (tmp_path / "cache" / "wikipedia").iterdir()
    for name in ("rows.arrow", "left_out.json"):
        (entry / name).unlink()  # the file is still mapped, so it is replaced and not cut
        (entry / name).write_text("")  # a damaged entry is written again
        assert rows_of(read_dump(path)) == rows_of(first)
    write(tmp_path, {"a.xml": dump(PAGES[:3])})
    assert len(read_dump(path).splits["train"]) == 3
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError, match="set GRAFT_CACHE"):
        read_dump(path)


def test_pages_do_not_pile_up(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.xml": dump([page(i, "T", "word " * 4000) for i in range(300)])}) / "a.xml"
    tracemalloc.start()
    try:
        count = sum(1 for _ in wikipedia.read_pages(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 300
    assert peak < path.stat().st_size / 4


# ---- files that are no dumps ----


@PROPERTY
@given(place=st.floats(0, 1, exclude_max=True), compressed=st.booleans())
def test_a_dump_cut_anywhere_is_named(place: float, compressed: bool, tmp_path: Path) -> None:
    complete = dump(PAGES).removesuffix("</mediawiki>\n").encode()
    complete = bz2.compress(complete + b"</mediawiki>\n") if compressed else complete
    path = tmp_path / f"cut.xml{'.bz2' if compressed else ''}"
    path.write_bytes(complete[: int(place * len(complete))])
    for attempt in (load, read_dump):
        with pytest.raises(DataError) as caught:
            attempt(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
    event("in the middle" if "ends in the middle, after" in message else message.rpartition(":")[2])
    assert "ends in the middle, after" in message
    assert not list((wikipedia.cache_root() / "wikipedia").glob(".*"))  # no partial file is left


def test_a_cut_dump_says_how_far_it_went(tmp_path: Path) -> None:
    content = dump(PAGES)
    path = write(tmp_path, {"cut.xml": content[: content.index("<title>Thing 8")]}) / "cut.xml"
    with pytest.raises(DataError, match=r"cut\.xml: the dump ends in the middle, after 7 articles: download it again"):
        load(path)


NO_DUMPS: dict[str, tuple[str, str | bytes, str]] = {
    "another XML": ("a.xml", "<html><body/></html>", "it begins with <html>, not with <mediawiki>"),
    "no XML": ("a.xml", "hello", "not valid XML: syntax error"),
    "damaged XML": (
        "a.xml",
        dump(PAGES).replace("<title>Thing 8", "<title"),
        "damaged one, after 7 articles: not valid XML",
    ),
    "no bz2": ("a.xml.bz2", "hello", "not bz2, or damaged"),
    "a damaged bz2": (
        "a.xml.bz2",
        bz2.compress(dump(PAGES).encode()).replace(b"1AY&SY", b"1AY&SZ"),
        "not bz2, or damaged",
    ),
    "only redirects": (
        "a.xml",
        dump([page(1, "A", "#REDIRECT", redirect=True)]),
        "no articles (left out: 1 redirects)",
    ),
}


@pytest.mark.parametrize("case", NO_DUMPS)
def test_what_is_no_dump_is_refused(case: str, tmp_path: Path) -> None:
    name, content, words = NO_DUMPS[case]
    with pytest.raises(DataError) as caught:
        load(write(tmp_path, {name: content}) / name, format="wikipedia")
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_dump_has_articles_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.xml": dump(PAGES)}) / "a.xml"
    with pytest.raises(DataError, match=r"data\.columns"):
        load(path, columns={"text": "body"})
    with pytest.raises(DataError, match="this task needs image, label"):
        load_splits(DataSection(id=str(path)), DataSpec(("image", "label")))


# ---- prose ----

PROSE = {
    "links and quotes": ("''A'' '''[[b|bee]]''' [[c]]s [http://x d] [http://y] &amp; &lt;e", "A bee cs d & <e"),
    "files and categories": (
        "a [[File:x.jpg|thumb|a [[b]] c]] d [[Category:E]] [[Datei:f.png]] [[:Category:G]]",
        "a d Category:G",
    ),
    "notes and comments": ("a<ref name='x/y' /> b<ref>''open {{cite}}</ref> c<!-- <ref> --> d''.", "a b c d."),
    "templates": ("a {{infobox|b}}, c (; {{ipa|d}}) e ({{f}})", "a, c e"),
    "templates that speak": (
        "{{As of|2015}} {{lang|fr|''mot''}}, {{convert|3|km|mi}}, {{convert|3|to|5|kg}}, {{lang-de|Wort}}",
        "As of 2015 mot, 3 km, 3 to 5 kg, Wort",
    ),
    "tables": ("a\n{|\n! b\n|-\n| c\n|}\nd\n{| class=x\n| ''[[e\n|}\nf", "a\n\nd\n\nf"),
    "lists": ("* a\n* b\n# c\n; d\n: e", "a\nb\nc\nd\ne"),
    "headings": ("a\n== B ==\nc\n=== D ===\n{{e}}\n==F==\n===''G''===\nh", "a\n\nB\n\nc\n\nF\n\nG\n\nh"),
    "sections of sources": (
        "a\n==See also==\n* b\n===C===\nd\n==E==\nf\n== References ==\n<references/>",
        "a\n\nE\n\nf",
    ),
    "formulas": ("so <math>E = mc^2</math>, H<sub>2</sub>O<br/>x", "so E = mc^2, H2O\nx"),
    "spaces": ("__NOTOC__a&nbsp;b  c \n\n\n\n d", "a b c\n\nd"),
    "an open quote": ("''a\n\nb'' c '''d", "a\n\nb c d"),
    "half of a character": ("a &#xD800; b", "a \ufffd b"),
}


@pytest.mark.parametrize("case", PROSE)
def test_prose_is_left(case: str, tmp_path: Path) -> None:
    """The dump calls its file namespace Datei."""
    markup, left = PROSE[case]
    source = read_dump(write(tmp_path, {"a.xml": dump([page(1, case, markup)])}))
    assert source.splits["train"]["text"] == [left]


def test_a_real_slice() -> None:
    if not SLICE.is_dir():
        pytest.skip(f"no real data here ({SLICE})")
    source = read_dump(SLICE)
    rows = {row["title"]: row["text"] for row in source.splits["train"]}
    assert counted(source) == 206 + 5 + 1  # pages of the two files, and the README
    assert (len(rows), source.ignored["redirects"]) == (110, 99)
    assert rows["Anarchism"].startswith(
        "Anarchism is a political philosophy that advocates self-governed societies based on voluntary"
    )
    marks = ("[[", "]]", "{|", "|}", "<ref", "</ref", "''", "__", "( ", "()", "\n\n\n")
    marks += ("\n\nSee also\n\n", "\n\nReferences\n\n", "\n\nExternal links\n\n")
    assert not [(title, mark) for title, words in rows.items() for mark in marks if mark in words]
