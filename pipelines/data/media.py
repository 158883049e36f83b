"""Kinds of files: images and recordings, the columns that hold them and how their names end."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset


KINDS = {  # kinds of columns -> whether their values are files
    "image": True,
    "audio": True,
    "video": True,
    "mask": True,  # an image whose pixels are the numbers of classes
    "text": False,
    "label": False,
    "number": False,
    "boxes": False,  # lists of {"box": [x, y, width, height], "label": ...}
}
MEDIA = tuple(kind for kind, is_file in KINDS.items() if is_file)  # a column of files is called by its kind


def kinds_of(columns: Iterable[str]) -> dict[str, str]:
    """The kinds of columns for which a task names none: a name may be that of a kind; else the column holds text."""
    return {column: column if column in KINDS else "text" for column in columns}


def file_columns(rows: "Dataset") -> list[str]:
    """The columns that hold files; a column of text may be called "video" too."""
    from datasets import Value

    return [name for name in rows.column_names if name in MEDIA and not isinstance(rows.features[name], Value)]


def paths(rows: "Dataset") -> list[str | None]:
    """Of every row the file of its image or recording. A hub data set's rows hold the files' bytes: these are not touched."""
    import pyarrow.compute

    columns = file_columns(rows)
    if not columns:
        return [None] * len(rows)
    column = min(columns, key=MEDIA.index)
    # of the table itself: `Dataset.flatten` loses the columns of concatenated data sets (datasets 5.2)
    stored = rows.data.column(column)
    if not pyarrow.types.is_struct(stored.type) or stored.type.get_field_index("path") < 0:
        return [None] * len(rows)
    found = pyarrow.compute.struct_field(stored, "path")
    if (
        stored.type.get_field_index("bytes") >= 0
    ):  # with bytes comes a name only, which may be that of some other file here
        held = pyarrow.compute.is_valid(pyarrow.compute.struct_field(stored, "bytes"))
        found = pyarrow.compute.if_else(held, pyarrow.scalar(None, found.type), found)
    listed: list[str | None] = (found if rows._indices is None else found.take(rows._indices.column(0))).to_pylist()
    return listed


FILE_NAME = "file_name"  # the column that names each row's file in a list such as metadata.csv


class Kind(NamedTuple):
    """A medium: its column, what its files are called in messages, how their names end, and how those end that cannot be read."""

    column: str
    one: str
    files: str
    suffixes: frozenset[str]
    unread: frozenset[str]


_PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


_FURTHER = (".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".ico", ".tga")
_UNREAD_IMAGES = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".psd", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2")
)

_RECORDINGS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
)
_UNREAD_RECORDINGS = frozenset(
    (".m4a", ".m4b", ".mp4", ".aac", ".webm", ".mka", ".wma", ".amr", ".3gp", ".ape", ".wv", ".ac3")
)

IMAGES = Kind("image", "image", "images", frozenset((*_PHOTOS, *_FURTHER)), _UNREAD_IMAGES)


AUDIO = Kind("audio", "recording", "recordings", _RECORDINGS, _UNREAD_RECORDINGS)
