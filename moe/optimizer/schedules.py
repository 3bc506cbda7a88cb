"""The learning rate over a run."""

import dataclasses
from typing import Annotated, ClassVar, Protocol

import optax

from moe.fields import Within
from moe.registry import Mistake


class Schedule(Protocol):
    """The learning rate over a run; a frozen dataclass of hyper-parameters."""

    kind: ClassVar[str] = "schedule"

    def __call__(self, peak: float, steps: int) -> optax.Schedule:
        """Returns step -> learning rate, for a run of `steps` steps."""
        ...

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, for fields that do not go together."""
        del path


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """Linear warm-up, a plateau at the peak, linear decay (MiniCPM, arXiv 2404.06395).

    Attributes:
      warmup, decay: fractions of the run.
      final: last learning rate over the peak.
    """

    warmup: Annotated[float, Within(0, 1)] = 0.05
    decay: Annotated[float, Within(0, 1)] = 0.3
    final: Annotated[float, Within(0, 1)] = 0.0

    def __call__(self, peak, steps):
        """Joins the three parts; a part shorter than one step is left out."""
        warm, cool = round(self.warmup * steps), round(self.decay * steps)
        return optax.join_schedules(
            [
                optax.linear_schedule(peak / max(warm, 1), peak, max(warm - 1, 1)),
                optax.constant_schedule(peak),
                optax.linear_schedule(peak, self.final * peak, max(cool, 1)),
            ],
            [warm, steps - cool],
        )

    def check(self, path):
        """Raises Mistake unless the parts fit into the run."""
        if self.warmup + self.decay > 1:
            raise Mistake(
                f"{path}.decay={self.decay}: warmup + decay must be <= 1, "
                f"and {path}.warmup={self.warmup}"
            )


@dataclasses.dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine down to final * peak (arXiv 1608.03983).

    Attributes:
      warmup: fraction of the run.
      final: last learning rate over the peak.
    """

    warmup: Annotated[float, Within(0, 1)] = 0.05
    final: Annotated[float, Within(0, 1)] = 0.1

    def __call__(self, peak, steps):
        """Warm-up takes at least one step."""
        warm = max(round(self.warmup * steps), 1)
        return optax.warmup_cosine_decay_schedule(
            peak / warm, peak, warm, max(steps, warm + 1), self.final * peak
        )
