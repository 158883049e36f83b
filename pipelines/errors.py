"""Every error that a user may see.

    GraftError
    ├── RecipeError   the recipe or an override is wrong          exit 2
    ├── DataError     a row, a file or a column is wrong          exit 2
    │   └── MissingColumn   a column does not exist
    ├── ModelError    the model is missing or does not fit        exit 2
    ├── RunError      the run failed: disk, memory, loss          exit 1
    └── HubError      the hub refused or failed                   exit 1
        └── HubUnreachable  no network, or HF_HUB_OFFLINE is set

A message has one or two lines: what was got, what is allowed, what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class GraftError(Exception):
    exit_code = 1


class RecipeError(GraftError):
    exit_code = 2


class DataError(GraftError):
    exit_code = 2


class MissingColumn(DataError):
    """The data lack a column, or no column could be identified."""


class ModelError(GraftError):
    exit_code = 2


class RunError(GraftError):
    exit_code = 1


class HubError(GraftError):
    exit_code = 1


class HubUnreachable(HubError):
    """The hub cannot be asked: there is no network, or HF_HUB_OFFLINE is set."""


@contextmanager
def of_key(key: str) -> Iterator[None]:
    """Inside the block, every GraftError names this key of the recipe; its kind stays."""
    try:
        yield
    except GraftError as error:
        if str(error).startswith(key):
            raise
        raise type(error)(f"{key}: {error}") from error
