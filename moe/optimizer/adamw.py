"""AdamW (arXiv 1711.05101) with a learning-rate schedule, clipping and a weight-decay mask."""

import dataclasses

import optax

from moe.optimizer.schedules import Schedule, WarmupStableDecay
from moe.params import decayed
from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW.

    Attributes:
      learning_rate: the schedule's peak.
      schedule: its shape over the run.
      weight_decay: decoupled, times the learning rate; on matrices only, never on norms.
      b1, b2, eps: moments' decay rates, denominator's floor.
      clip: largest global norm of the gradient; 0 does not clip.
    """

    learning_rate: float = 3e-3
    schedule: Schedule = WarmupStableDecay()
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0

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
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise Mistake(f"{path}.{name}={getattr(self, name)}: must be a number >= 0")
        for name in ("learning_rate", "eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise Mistake(f"{path}.{name}={getattr(self, name)}: must be a number > 0")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise Mistake(f"{path}.{name}={getattr(self, name)}: must be in [0, 1)")
        self.schedule.check(f"{path}.schedule")
