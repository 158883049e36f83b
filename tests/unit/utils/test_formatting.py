"""Names of metrics as people read them."""

import pytest

from pipelines.reporting.pages import in_a_sentence
from pipelines.utils.formatting import readable_name


@pytest.mark.parametrize(
    ("name", "shown", "within"),
    [
        ("gap", "GAP", "GAP"),
        ("perr", "PERR", "PERR"),
        ("hit_at_1", "Hit@1", "hit@1"),
        ("balanced_accuracy", "Balanced accuracy", "balanced accuracy"),
    ],
)
def test_metrics_have_readable_names(name: str, shown: str, within: str) -> None:
    assert (readable_name(name), in_a_sentence(name)) == (shown, within)
