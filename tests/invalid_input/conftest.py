"""What the tests of invalid input share: a recipe, a model and data that are right, to be made wrong."""

from tests.support.invalid_inputs import (
    a_finished_run,
    a_right_world,
    a_world,
)

__all__ = ["a_finished_run", "a_right_world", "a_world"]
