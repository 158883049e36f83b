"""The rows that a model was trained on, as digests in its folder: they never become test or validation rows later.

A run writes `trained_rows.json` into its model folder, with the digests of all runs that it started from. A digest has
40 bits and uses a salt of its run. It shows whether a row that one has was trained on, and reveals nothing about other
rows. Two different rows have the same digest in one of a million million pairs.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError

if TYPE_CHECKING:
    from pipelines.models.source import Weights


FILE = "trained_rows.json"
SIZE = 5  # bytes of a digest
LARGEST = 256 * 2**20  # maximum bytes of a file, enough for 38 million rows


@dataclass(frozen=True)
class TrainedRows:
    """Digests of training rows by run, the oldest run first. `named` is the model's name in messages."""

    runs: tuple[dict[str, Any], ...] = ()
    named: str = ""

    def __bool__(self) -> bool:
        return bool(self.runs)

    def before(self) -> "TrainedRows":
        """The rows that the start model of the last run was trained on."""
        return TrainedRows(self.runs[:-1], self.named)

    def known(self, contents: Sequence[str]) -> list[bool]:
        """Whether one of the runs was trained on each row, given the digests of the rows' contents.

        See leakage.with_contents for the digests.
        """
        found = [False] * len(contents)
        for run in self.runs:
            have, salt = _digests(run), bytes.fromhex(run["salt"])
            for number, content in enumerate(contents):
                found[number] = found[number] or _salted(content, salt) in have
        return found


def of(weights: "Weights") -> TrainedRows:
    """The trained rows of the model that a run starts from (see pipelines.models.source.Weights).

    They are empty for random weights.
    """
    return TrainedRows() if weights.folder is None or weights.random else read(weights.folder, weights.name)


def read(folder: Path, named: str) -> TrainedRows:
    """The trained rows of a model folder; empty if it has no such file. Raises ModelError for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return TrainedRows(named=named)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST / 2**20:g} MB")
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        for run in runs:
            bytes.fromhex(run["salt"])
            if len(_digests(run)) > run["rows"] or not isinstance(run["run"], str):
                raise ValueError(f"more digests than the {run['rows']} rows of {run['run']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path}: not the digests of training rows ({type(error).__name__}: {error}): fetch the model again"
        ) from None
    return TrainedRows(tuple(runs), named)


def text(run: str, contents: Iterable[str], before: TrainedRows) -> str:
    """The content of `trained_rows.json` for a run on rows with these contents, started from the model of `before`."""
    rows = sorted(set(contents))
    # the salt depends on the rows, so that the same run writes the same file
    salt = hashlib.blake2b("".join(rows).encode(), digest_size=16).digest()
    digests = sorted({_salted(row, salt) for row in rows})
    own = {
        "run": run,
        "rows": len(digests),
        "salt": salt.hex(),
        "digests": base64.b64encode(b"".join(digests)).decode(),
    }
    return json.dumps({"schema": 1, "about": __doc__.splitlines()[0], "runs": [*before.runs, own]}, indent=1) + "\n"


def _salted(content: str, salt: bytes) -> bytes:
    return hashlib.blake2b(content.encode(), key=salt, digest_size=SIZE).digest()


def _digests(run: dict[str, Any]) -> set[bytes]:
    try:
        packed = base64.b64decode(run["digests"], validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(packed) % SIZE:
        raise ValueError(f"{len(packed)} bytes are no digests of {SIZE}")
    return {packed[at : at + SIZE] for at in range(0, len(packed), SIZE)}
