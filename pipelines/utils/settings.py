"""Numbers that the user may set in a request: for tasks, and for models that are below them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A number that the user may set; an integer if `kind` is int."""

    kind: type[int] | type[float]
    least: float
    most: float
