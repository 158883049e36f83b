"""Kinds of columns, and the media files: images and recordings with their suffixes."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset


KINDS = {  # kind of column -> whether its values are files
    "image": True,
    "audio": True,
    "video": True,
    "mask": True,  # an image whose pixels are class numbers
    "features": True,  # numbers that a network computed from a video
    "text": False,
    "messages": False,  # a conversation (see pipelines.data.text.chat)
    "label": False,
    "number": False,
    "boxes": False,  # lists of {"box": [x, y, width, height], "label": ...}
}
MEDIA = tuple(kind for kind, is_file in KINDS.items() if is_file)  # a column of files has the name of its kind


def kinds_of(columns: Iterable[str]) -> dict[str, str]:
    """The kind of each column: its name if that is the name of a kind, otherwise text."""
    return {column: column if column in KINDS else "text" for column in columns}


def file_columns(rows: "Dataset") -> list[str]:
    """The columns that hold files. A column of text may have such a name too, so the type is checked."""
    from datasets import Value

    return [name for name in rows.column_names if name in MEDIA and not isinstance(rows.features[name], Value)]


def paths(rows: "Dataset", column: str | None = None) -> list[str | None]:
    """The path of each row's image or recording, or of another column of files.

    None if the row has none or holds the file's bytes, which are not read.
    """
    import pyarrow.compute

    columns = file_columns(rows)
    if not columns:
        return [None] * len(rows)
    column = column or min(columns, key=MEDIA.index)
    # from the table itself: `Dataset.flatten` loses the columns of concatenated data sets (datasets 5.2)
    stored = rows.data.column(column)
    if not pyarrow.types.is_struct(stored.type) or stored.type.get_field_index("path") < 0:
        return [None] * len(rows)
    found = pyarrow.compute.struct_field(stored, "path")
    # with bytes there is only a name, which may also be that of another file here
    if stored.type.get_field_index("bytes") >= 0:
        has_bytes = pyarrow.compute.is_valid(pyarrow.compute.struct_field(stored, "bytes"))
        found = pyarrow.compute.if_else(has_bytes, pyarrow.scalar(None, found.type), found)
    listed: list[str | None] = (found if rows._indices is None else found.take(rows._indices.column(0))).to_pylist()
    return listed


FILE_NAME = "file_name"  # the column with the names of files in a list such as metadata.csv


class Kind(NamedTuple):
    """A medium: its column, its names in messages (singular, plural), and the suffixes that are read and not read."""

    column: str
    one: str
    files: str
    suffixes: frozenset[str]
    unread: frozenset[str]


_PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


_FURTHER = (".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".ico", ".tga")
HEIC = (".heic", ".heif", ".hif")  # photos of phones; they are read with the extra `heic`
READS_HEIC = find_spec("pillow_heif") is not None
_UNREAD_IMAGES = frozenset((".jxl", ".psd", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"))

_RECORDINGS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
)
# read with the extra audio-formats; without it each file's error names it
_OF_TELEPHONES = frozenset((".m4a", ".m4b", ".aac", ".webm", ".mka", ".3gp", ".amr", ".wma", ".wv", ".ac3"))
_VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".3gp", ".ts", ".ogv", ".flv", ".wmv")
VIDEOS_WITH_SOUND = frozenset((".mp4",))  # a folder of these is one of recordings only where nothing else is in it
_UNREAD_RECORDINGS = frozenset((".ape",))
SOUND_OR_PICTURES = frozenset((".webm", ".3gp"))  # what browsers and telephones write, with a picture or without one

IMAGES = Kind(
    "image",
    "image",
    "images",
    frozenset((*_PHOTOS, *_FURTHER, *(HEIC if READS_HEIC else ()))),
    _UNREAD_IMAGES | frozenset(() if READS_HEIC else HEIC),
)


AUDIO = Kind("audio", "recording", "recordings", _RECORDINGS | _OF_TELEPHONES | VIDEOS_WITH_SOUND, _UNREAD_RECORDINGS)


FEATURES = frozenset((".tfrecord", ".npy", ".npz"))
VIDEO = Kind("video", "video", "videos", frozenset((*_VIDEOS, ".gif")), frozenset((".swf", ".rm", ".vob")))
