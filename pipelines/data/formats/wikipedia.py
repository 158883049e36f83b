"""Wikipedia dumps (dumps.wikimedia.org): pages-articles, .xml or .xml.bz2; one file, or a folder of such files.

<mediawiki> <siteinfo/> <page> <title/> <ns/> <id/> <redirect/>? <revision> <text/> </revision> </page> ... </mediawiki>

An article is a row {id, title, text}. Its text is the prose without markup, tables, notes and lists of sources
(recognised by their English headings). Extracting the prose of a complete Wikipedia takes hours, so the rows are stored
in $GRAFT_CACHE/wikipedia and mapped into memory.
"""

import bz2
import hashlib
import html
import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data.columns import select, values
from pipelines.data.files import kind_of
from pipelines.data.schema import Source
from pipelines.data.stored import UNREADABLE
from pipelines.errors import DataError, MissingColumn, RunError
from pipelines.utils.cache import begin, cache_root, discard, finish, hold, identity

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".xml", ".bz2")
ROOM = 60e9  # bytes of stored rows; enough for the largest Wikipedia in several files
PROSE = 1  # to be increased when `prose` gives other text, so that stored rows are not used


def detect(path: Path) -> bool:
    """Whether a file, or one of the files in a folder, is a dump."""
    return any(map(_looks_right, _dumps(path)))


def _looks_right(path: Path) -> bool:
    try:
        with _open(path) as file:
            return b"<mediawiki" in file.read(4000)
    except (EOFError, OSError):  # cut off or damaged: `read` will report it, if the name is that of a dump
        return ".xml" in path.name.lower()


def _dumps(path: Path) -> list[Path]:
    """The dump files of a folder.

    A part has a name like pages-articles1.xml-p1p41242.bz2; indexes (.txt.bz2) are left out.
    """
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    files = [p for p in path.iterdir() if ".xml" in p.name.lower() and p.suffix.lower() in SUFFIXES]
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))


def _open(path: Path) -> bz2.BZ2File | io.BufferedReader:
    return bz2.open(path) if path.suffix.lower() == ".bz2" else path.open("rb")


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"text": "text", "title": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the dumps: one per article. Raises DataError or MissingColumn."""
    from datasets import concatenate_datasets

    path = Path(section.id).expanduser()
    if not path.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    unknown = [column for column in columns if column not in ("text", "title")]
    if unknown:
        raise DataError(
            f"data.id: {section.id} holds articles, which have a title and a text, "
            f"but this task needs {', '.join(columns)}"
        )
    if section.columns:
        raise MissingColumn("data.columns: articles have no columns but title and text: leave it out")
    dumps = _dumps(path)
    if not dumps:
        raise DataError(f"data.id: {section.id} holds no dump ({', '.join(SUFFIXES)})")
    ignored: Counter[str] = Counter()
    if path.is_dir():
        ignored.update(
            kind_of(p) for p in path.iterdir() if p.is_file() and p not in dumps and not p.name.startswith(".")
        )
    parts, skipped = [], []
    for dump in dumps:
        rows, left_out = _kept(dump)
        parts.append(rows)
        ignored.update(left_out["ignored"])
        skipped += [(id_, why) for id_, why in left_out["skipped"]]
    rows = _once(concatenate_datasets(parts), ignored) if len(parts) > 1 else parts[0]
    if not len(rows):
        raise DataError(
            f"{path}: no articles (left out: {', '.join(f'{n} {what}' for what, n in ignored.items()) or 'nothing'})"
        )
    return Source(splits={"train": rows}, skipped={"train": skipped}, ignored=dict(ignored))


def _once(rows: "Dataset", ignored: Counter[str]) -> "Dataset":
    """Each page once: files that were cut at other places, or dumped on another day, contain some pages twice."""
    seen: set[tuple[str, str]] = set()
    pages = zip(values(rows, "id"), values(rows, "title"), strict=True)
    first = [index for index, page in enumerate(pages) if page not in seen and not seen.add(page)]  # type: ignore[func-returns-value]
    if len(first) == len(rows):
        return rows
    ignored["articles that an earlier file holds"] += len(rows) - len(first)
    return select(rows, first)


# ---- stored rows ----


def _kept(path: Path) -> "tuple[Dataset, dict[str, Any]]":
    """The articles of one dump, mapped from the cache, and what was left out.

    The second is {"ignored": {kind: n}, "skipped": [[id, why]]}.
    """
    import mwparserfromhell
    from datasets import Dataset

    key = [str(path.resolve()), *identity(path), PROSE, mwparserfromhell.__version__]
    folder = cache_root() / "wikipedia" / hashlib.blake2b(json.dumps(key).encode(), digest_size=12).hexdigest()

    def opened() -> "tuple[Dataset, dict[str, Any]]":
        hold(folder)
        return Dataset.from_file(str(folder / "rows.arrow")), json.loads((folder / "left_out.json").read_text())

    if folder.exists():
        try:
            return opened()
        except UNREADABLE:  # it is damaged
            discard(folder)
    _keep(path, folder)
    return opened()


def _keep(path: Path, folder: Path) -> None:
    import pyarrow

    schema = pyarrow.schema({name: pyarrow.string() for name in ("id", "title", "text")})
    left_out: dict[str, Any] = {"ignored": Counter(), "skipped": []}
    rows = _rows(path, **left_out)
    temporary = None
    try:
        temporary = begin(folder, ROOM)
        with (
            pyarrow.OSFile(str(temporary / "rows.arrow"), "wb") as file,
            pyarrow.ipc.new_stream(file, schema) as writer,
        ):
            while batch := list(itertools.islice(rows, 200)):
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
        (temporary / "left_out.json").write_text(json.dumps(left_out))
        finish(temporary, folder, ROOM)
    except OSError as error:  # an error of the cache: those of the dump are DataErrors already
        raise RunError(
            f"{folder.parent}: the articles cannot be written ({error}); free some room, or set GRAFT_CACHE"
        ) from None
    finally:
        if temporary is not None:
            discard(temporary)


# ---- pages to rows ----

# pyexpat's error codes for an early end: no element, an unclosed token, an incomplete character, an open CDATA section
_ENDS_EARLY = (3, 5, 6, 20)


def _rows(path: Path, ignored: Counter[str], skipped: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Yield {id, title, text} of every article, and record what is left out. Raises DataError naming the file."""
    from mwparserfromhell.parser import ParserError

    found = 0
    early = f"{path}: the dump ends in the middle, after {{}} articles: download it again"
    try:
        for page, dropped in read_pages(path):
            if page.findtext("{*}ns") != "0":
                ignored["pages outside the articles"] += 1
                continue
            if page.find("{*}redirect") is not None:
                ignored["redirects"] += 1
                continue
            id_, title = page.findtext("{*}id", ""), page.findtext("{*}title", "")
            try:
                text = prose(page.findtext("{*}revision/{*}text") or "", dropped)
                reason = "no text is left without its markup"
            except ParserError:  # happens for one page in millions
                text, reason = "", "its markup cannot be read"
            if text:
                found += 1
                yield {"id": id_, "title": title, "text": text}
            else:
                skipped.append((id_, f"page {id_} ({title}): {reason}"))
    except EOFError:
        raise DataError(early.format(found)) from None
    except ET.ParseError as error:
        if error.code in _ENDS_EARLY:
            raise DataError(early.format(found)) from None
        raise DataError(f"{path}: no dump, or a damaged one, after {found} articles: not valid XML: {error}") from None
    except OSError as error:
        why = error.strerror or "not bz2, or damaged: download it again"
        raise DataError(f"{path}: cannot be read after {found} articles: {why}") from None


def read_pages(path: Path) -> Iterator[tuple[ET.Element, frozenset[str]]]:
    """Yield every page, with the prefixes of this wiki's links to files and categories. Raises DataError."""
    dropped = frozenset(("file", "image", "media", "category"))
    with _open(path) as file:
        events = ET.iterparse(file, events=("start", "end"))
        _, root = next(events)
        if _name(root) != "mediawiki":
            raise DataError(f"{path}: not a dump of MediaWiki: it begins with <{_name(root)}>, not with <mediawiki>")
        for event, element in events:
            if event == "end" and _name(element) == "siteinfo":
                dropped |= {e.text.lower() for e in element.iter() if e.get("key") in ("6", "14") and e.text}
            if event == "end" and _name(element) == "page":
                yield element, dropped
                root.clear()  # otherwise every page stays in memory as a child of the root


def _name(element: ET.Element) -> str:
    """A tag without its namespace, which depends on the version of the export."""
    return element.tag.rpartition("}")[2]


# ---- markup to prose ----

# headings of lists, sources and notes; their sections are dropped, with all subsections
ENDING = frozenset(
    (
        "bibliography",
        "citations",
        "external links",
        "external references",
        "footnotes",
        "further reading",
        "gallery",
        "notes",
        "notes and references",
        "references",
        "references and notes",
        "see also",
        "sources",
    )
)
TAGS = frozenset(("gallery", "graph", "imagemap", "references", "score", "table", "timeline"))
# English templates that contain words of a sentence -> the position of these words; without them the sentence has a gap
WORDS = {
    "lang": 2,
    "transl": 2,
    "as of": 1,
    "nowrap": 1,
    "small": 1,
    "smaller": 1,
    "nihongo": 1,
    "quote": 1,
    "val": 1,
    "angbr": 1,
}

_HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$", re.MULTILINE)
# removed before parsing, as MediaWiki does: an open quote inside a note would damage the text after it
_NOTES = re.compile(r"<!--.*?-->|<ref\b[^>]*?(?:/>|>.*?</ref\s*>)", re.DOTALL | re.IGNORECASE)
_TIDY = [
    (re.compile(r"^\{\|.*?^\|\}", re.DOTALL | re.MULTILINE), ""),  # tables that the parser could not parse
    (re.compile(r"</?(?:blockquote|center|div|ref|small|span)\b[^<>]*>|__[A-Z]+__|''+"), ""),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r"\((?: ?[,;:])+ ?|\( "), "("),  # (Greek: {{gone}}; born ...)
    (re.compile(r" ?\( ?\)"), ""),
    (re.compile(r" (?=[,.;:)](?:\s|$))"), ""),
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
]


def prose(markup: str, dropped: frozenset[str]) -> str:
    """An article's prose: paragraphs and headings, separated by empty lines.

    Links whose prefix is in `dropped` are removed.
    """
    pieces = ["", "", *_HEADING.split(_NOTES.sub("", markup))]  # the lead has no heading
    sections, above = [], 7
    for marks, heading, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        title = _tidy(heading, dropped)
        if len(marks) <= above:
            above = len(marks) if title.lower() in ENDING else 7
        if above == 7:
            sections.append((len(marks), title, _tidy(body, dropped)))
    kept: list[str] = []
    below = 0
    for level, title, text in reversed(sections):
        if text or below > level:  # a heading without text under it is dropped
            kept += [text, title]
            below = level
    return "\n\n".join(piece for piece in reversed(kept) if piece)


def _tidy(markup: str, dropped: frozenset[str]) -> str:
    import mwparserfromhell

    text = _plain(mwparserfromhell.parse(markup).nodes, dropped)
    for pattern, instead in _TIDY:
        text = pattern.sub(instead, text)
    return text.strip()


def _plain(nodes: Iterable[Any], dropped: frozenset[str]) -> str:
    """The text of parsed nodes.

    mwparserfromhell's own strip_code is not used: it keeps captions and drops the words of templates.
    """
    from mwparserfromhell.nodes import ExternalLink, HTMLEntity, Tag, Template, Text, Wikilink

    parts: list[str] = []
    for node in nodes:
        inner = None
        if isinstance(node, Text):
            parts.append(node.value)
        elif isinstance(node, HTMLEntity):
            parts.append(html.unescape(str(node)))  # the node's own normalize returns half characters
        elif isinstance(node, Wikilink):
            if str(node.title).partition(":")[0].strip().lower() not in dropped:
                inner = node.text
                parts.append(str(node.title).lstrip(":") if inner is None else "")
        elif isinstance(node, ExternalLink):
            inner = node.title
        elif isinstance(node, Tag):
            name = str(node.tag).strip().lower()
            parts.append("\n" if name == "br" else "")
            inner = None if name in TAGS else node.contents
        elif isinstance(node, Template):
            parts.append(_words_of(node, dropped))
        if inner is not None:
            parts.append(_plain(inner.nodes, dropped))
    return "".join(parts)


def _words_of(template: Any, dropped: frozenset[str]) -> str:
    """The words that a template contributes to the sentence around it."""
    name = str(template.name).strip()
    values = [argument.value for argument in template.params if not argument.showkey]
    if name.lower() == "convert":
        chosen = values[
            : 4 if len(values) > 1 and str(values[1]).strip() in ("to", "-", "–", "and", "or", "by", "x") else 2
        ]
    else:
        place = 1 if name.lower().startswith("lang-") else WORDS.get(name.lower(), 0)
        chosen = values[place - 1 : place] if place else []
    words = " ".join(_plain(value.nodes, dropped) for value in chosen)
    return f"{name} {words}" if name.lower() == "as of" else words
