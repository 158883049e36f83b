"""Rows to examples once, in parallel, in Arrow: encodings of large data sets are kept on disk and mapped back.

They lie in $GRAFT_CACHE/encoded, keyed by the rows, the tokenizer and the options; the oldest leave when they grow beyond 10 GB.
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.schema import fingerprint
from pipelines.errors import RunError
from pipelines.utils.cache import cache_root, make_room
from pipelines.utils.hardware import cores

if TYPE_CHECKING:
    from datasets import Dataset

SMALL = 20_000  # rows below which encoding takes a few seconds: they stay in memory, and one process does it
ROOM = 10e9  # bytes


def encode(
    rows: "Dataset", function: Callable[[dict[str, list], list[int]], dict[str, list]], key: Any, at_once: int = 500
) -> "Dataset":  # fmt: skip
    """`rows.map(function)` in batches of `at_once`, called with columns and row numbers.

    `function` may return more or fewer examples than it got rows.

    `key` is all that the result depends on beside the rows, as JSON. What was computed before is read from disk.
    """
    settings: dict[str, Any] = {"batched": True, "batch_size": at_once, "remove_columns": rows.column_names, "with_indices": True}
    if len(rows) < SMALL:
        # a fingerprint of our own: the library would pickle the tokenizer to make one, for a cache that is not used here
        return rows.map(function, keep_in_memory=True, new_fingerprint="graft", **settings)
    digest = hashlib.blake2b(json.dumps([key, fingerprint(rows)], sort_keys=True).encode(), digest_size=12).hexdigest()
    folder = cache_root() / "encoded" / digest
    return _mapped(rows, function, folder, settings)


def _mapped(rows: "Dataset", function: Any, folder: Path, settings: dict[str, Any]) -> "Dataset":
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    if (folder / "state.json").is_file():
        try:
            folder.touch()  # the newest use decides what leaves first
            return Dataset.load_from_disk(str(folder))
        except (OSError, ValueError, DatasetGenerationError):
            shutil.rmtree(folder, ignore_errors=True)
    settings["num_proc"] = min(cores(), 16) if cores() > 1 else None
    beside = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_room(folder.parent, ROOM)
        made = rows.map(function, load_from_cache_file=False, **settings)
        made.save_to_disk(str(beside))
        if not folder.exists():  # else another run was quicker: theirs is the same
            beside.rename(folder)
        return Dataset.load_from_disk(str(folder))
    except OSError as error:
        raise RunError(f"{folder.parent}: the encoded data cannot be written ({error}); free some room, or set GRAFT_CACHE") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
