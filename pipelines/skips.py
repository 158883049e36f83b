"""Rows that cannot be read or used: counted, told, and too many of them an error."""

import logging
import math
from collections.abc import Sequence

from pipelines.errors import DataError

log = logging.getLogger("graft")


class Skips:
    """Unreadable examples, counted once each; too many of them end the run."""

    def __init__(self, share: float, already: dict[str, list[tuple[str, str]]], totals: dict[str, int]) -> None:
        self.share = share
        self.found = {split: dict(rows) for split, rows in already.items()}
        self.totals = totals
        for split, rows in self.found.items():
            for why in list(rows.values())[:3]:
                log.warning("skipped, cannot be read: %s", why)
            if len(rows) > 3:
                log.warning("skipped, cannot be read: %d more rows of %s", len(rows) - 3, split)
            self._check(split)

    def add(self, split: str, skipped: Sequence[tuple[str, str]]) -> None:
        """Count rows (id, why) and warn of the new ones. Raises DataError when there are too many."""
        known = self.found.setdefault(split, {})
        new = [(id_, why) for id_, why in skipped if id_ not in known]
        known.update(new)
        for _, why in new:
            log.warning("skipped, cannot be read: %s", why)
        if new:
            self._check(split)

    def _check(self, split: str) -> None:
        n, total = len(self.found[split]), self.totals.get(split, 0)
        limit = max(3, math.floor(self.share * total)) if self.share else 0  # of few rows, a share is no row at all
        if n > limit:
            first = list(self.found[split].values())[:3]
            allowed = f"{limit} of {total} may be" if limit else "none may be"
            them = "them" if n > 1 else "it"
            raise DataError(
                f"{n} row{'s' * (n > 1)} of {split} cannot be read, {allowed} (data.max_skipped={self.share:g}): {'; '.join(first)}"
                f"{f'; and {n - 3} more' if n > 3 else ''}. Repair {them} or take {them} out, or raise data.max_skipped"
            )
