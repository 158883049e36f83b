"""Loss scaling for fp16, the precision of GPUs without bf16 (Micikevicius et al. 2018, arXiv:1710.03740).

Small gradients would be zero in fp16, so the loss is multiplied by a scale before the backward pass and the gradients
are divided by it afterwards. If they overflow, the step is left out and the scale is halved; after many steps without
overflow it is doubled. The rule and its numbers are those of torch.amp.GradScaler. Here they are plain values of the
State, so a checkpoint holds them, and all processes and phases decide by the norm that the step computes anyway.
"""

import math

from pipelines.errors import RunError
from pipelines.training.checkpoint import State

FIRST = 2.0**16
INTERVAL = 2000  # steps without overflow before the scale is doubled
MOST_IN_A_ROW = 50  # steps left out in a row before the run ends; from FIRST, 16 halvings reach a scale of 1


def begin(state: State, precision: str) -> None:
    """Set the first scale, if the run computes in fp16 and has none yet."""
    if precision == "fp16" and state.loss_scale is None:
        state.loss_scale = FIRST


def fits(state: State, loss: float, norm: float) -> bool:
    """Whether the gradients may be used. In fp16 this also counts the step and sets the next scale.

    Raises RunError after too many steps in a row with an overflow.
    """
    if state.loss_scale is None:
        return True
    if math.isfinite(loss) and math.isfinite(norm):
        state.skips_in_a_row = 0
        state.steps_since_skip += 1
        if state.steps_since_skip == INTERVAL:
            state.loss_scale, state.steps_since_skip = 2 * state.loss_scale, 0
        return True
    state.skipped_steps += 1
    state.skips_in_a_row += 1
    state.loss_scale, state.steps_since_skip = state.loss_scale / 2, 0
    if state.skips_in_a_row == MOST_IN_A_ROW:
        what = "gradient" if math.isfinite(loss) else "loss"
        raise RunError(
            f"step {state.previous_steps + state.step + 1}: the {what} was not finite in {MOST_IN_A_ROW} steps in a "
            "row: its values are too large for fp16. Nothing saved is lost: set train.precision=fp32, or lower "
            "train.learning_rate (a run of its own: --run)"
        )
    return False
