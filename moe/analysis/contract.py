"""What metrics of traces take and give: numbers of a layer, each beside what chance gives."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from moe.analysis.trace import LayerTrace, Trace
from moe.registry import Mistake

NONE: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Reading:
    """One number of one layer.

    Attributes:
      name: what it is, unlike that of any other reading.
      value: None where the layer has no such thing (a rank of k = 1, the directions of a table).
      null_mean, null_sd: of the same number where what it looks for is not there; None without a
        null. The page of metrics says what was shuffled.
      detail: what it was made of, as JSON.
    """

    name: str
    value: float | None
    null_mean: float | None = None
    null_sd: float | None = None
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def excess(self) -> float | None:
        """The value over the null's mean."""
        if self.value is None or self.null_mean is None:
            return None
        return self.value - self.null_mean

    @property
    def sigmas(self) -> float | None:
        """The excess in standard deviations of the null; None where that has no spread."""
        return self.excess / self.null_sd if self.excess is not None and self.null_sd else None


class Metric(Protocol):
    """What one layer of a trace shows; the generator is for its null."""

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]: ...


class Comparison(Protocol):
    """What two layers show that read the same tokens, in two models or at two steps."""

    def __call__(
        self, text: Trace, first: LayerTrace, second: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]: ...


def reading(
    name: str,
    value: float | None,
    null: Sequence[float] | np.ndarray = (),
    detail: Mapping[str, Any] = NONE,
) -> Reading:
    """A value beside draws of its null: their mean and standard deviation (n - 1)."""
    draws = np.asarray(null, np.float64)
    if value is None or not math.isfinite(value):
        return Reading(name, None, detail=detail)
    if not len(draws) or not np.isfinite(draws).all():
        return Reading(name, float(value), detail=detail)
    spread = float(draws.std(ddof=1)) if len(draws) > 1 else None
    if spread is not None and spread < 1e-12 * max(1, abs(draws[0])):
        spread = 0.0  # of rounding alone
    return Reading(name, float(value), float(draws.mean()), spread, detail)


def absent(*names: str) -> list[Reading]:
    """Readings of a layer that has no such thing."""
    return [Reading(name, None) for name in names]


def same_text(first: Trace, second: Trace) -> None:
    """Raises Mistake, one line, where two traces cannot be compared token by token."""
    tokens = np.array_equal(first.id_T, second.id_T)
    if not tokens or not np.array_equal(first.position_T, second.position_T):
        raise Mistake(f"{second.about.label}: must be a trace of the text of {first.about.label}")
    if len(first.layers) != len(second.layers):
        raise Mistake(
            f"{second.about.label}: has {len(second.layers)} MoE layers; must have the "
            f"{len(first.layers)} of {first.about.label}"
        )


def json_ready(value: Any) -> Any:
    """Numbers rounded to 6 digits, None for what is not finite; tuples and arrays as lists."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [json_ready(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
