"""AdamW (arXiv 1711.05101) with a learning-rate schedule, clipping and a weight-decay mask."""

import dataclasses
from typing import Annotated

import optax

from moe.fields import Above, AtLeast, Within
from moe.optimizer.schedules import Schedule, WarmupStableDecay
from moe.params import decayed


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW.

    Attributes:
      learning_rate: the schedule's peak.
      schedule: its shape over the run.
      weight_decay: decoupled, times the learning rate; on the matrices named w_* alone. Norms,
        embeddings, an untied head_DV and the phi_DEC of Soft MoE do not decay, where the AdamW of
        most language models (GPT-3, arXiv 2005.14165, appendix B) shrinks every matrix: at a rate
        of 3e-3 and a weight decay of 0.1, by 3 % in 100 steps.
      b1, b2, eps: moments' decay rates, denominator's floor.
      clip: largest global norm of the gradient; 0 does not clip.
    """

    learning_rate: Annotated[float, Above(0)] = 3e-3
    schedule: Schedule = WarmupStableDecay()
    weight_decay: Annotated[float, AtLeast(0)] = 0.1
    b1: Annotated[float, Within(0, 1, "[)")] = 0.9
    b2: Annotated[float, Within(0, 1, "[)")] = 0.95
    eps: Annotated[float, Above(0)] = 1e-8
    clip: Annotated[float, AtLeast(0)] = 1.0

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optax optimizer for a run of `steps` steps."""
        adamw = optax.adamw(
            self.schedule(self.learning_rate, steps),
            self.b1,
            self.b2,
            self.eps,
            weight_decay=self.weight_decay,
            mask=decayed,
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), adamw) if self.clip else adamw

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, for an impossible schedule."""
        self.schedule.check(f"{path}.schedule")
