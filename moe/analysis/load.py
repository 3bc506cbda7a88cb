"""How evenly experts are used: entropy, worst overload, dead experts (Wang et al., 2408.15664).

METRICS is the one list of what is measured of loads. `moe.training` writes each into metrics.jsonl
and result.json; the reports of `experiments` show each as a column, and in words where it has some.
To add one: its function, and an entry.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moe.registry import Mistake


@dataclasses.dataclass(frozen=True)
class Load:
    """What routers asked of experts; leading axes, such as MoE layers, are kept apart."""

    load_E: np.ndarray  # assignments, served or not
    dropped: np.ndarray  # how many were not served, one axis less
    unserved: np.ndarray  # the share of the tokens that no expert served, one axis less

    @property
    def asked(self) -> np.ndarray:
        """All assignments, one axis less than the load."""
        return np.asarray(self.load_E).sum(axis=-1)


def fractions(load_E: np.ndarray) -> np.ndarray:
    """Load per expert as a share of all assignments; the last axis sums to 1 (0 without load)."""
    load_E = np.asarray(load_E, np.float64)
    return load_E / np.maximum(load_E.sum(axis=-1, keepdims=True), 1e-300)


def load_entropy(load_E: np.ndarray) -> np.ndarray:
    """-sum f ln f / ln E over the last axis: 1 is even, 0 is one expert; 1 for E = 1."""
    f_E = fractions(load_E)
    if f_E.shape[-1] == 1:
        return np.ones(f_E.shape[:-1])
    logs_E = np.log(np.where(f_E > 0, f_E, 1))
    # Adding 0 turns the -0.0 of a single used expert into 0.0.
    return -(f_E * logs_E).sum(axis=-1) / np.log(f_E.shape[-1]) + 0.0


def max_violation(load_E: np.ndarray) -> np.ndarray:
    """Load of the busiest expert over the mean load, minus 1: 0 is even, E - 1 the worst."""
    f_E = fractions(load_E)
    return f_E.max(axis=-1) * f_E.shape[-1] - 1


def dead_experts(load_E: np.ndarray) -> np.ndarray:
    """How many experts get less than 1 % of an even share."""
    f_E = fractions(load_E)
    return (f_E < 0.01 / f_E.shape[-1]).sum(axis=-1)


def drop_rate(load: Load) -> np.ndarray:
    """Share of the assignments that were not served; 0 where none was asked for."""
    return load.dropped / np.where(load.asked > 0, load.asked, 1)


def mean(values: Sequence[float]) -> float:
    """Of the MoE layers."""
    return math.fsum(values) / len(values)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number for each MoE layer.

    Attributes:
      name: its key in metrics.jsonl and result.json.
      measure: from loads of all layers to a number for each.
      title, short: heading of its column, and that in a terminal.
      note: what the number is, one line.
      overall: the layers' numbers as one: `mean`, `max`, `math.fsum`.
      shown: that number as a cell.
      told: that number as a part of a sentence; None leaves it out.
    """

    name: str
    measure: Callable[[Load], np.ndarray]
    title: str
    short: str
    note: str
    overall: Callable[[Sequence[float]], float] = mean
    shown: Callable[[float], str] = "{:.3f}".format
    told: Callable[[float], str] | None = None


METRICS = (
    Metric(
        "load_entropy",
        lambda load: load_entropy(load.load_E),
        title="Load entropy",
        short="entropy",
        note="−Σ f ln f / ln E of the shares f of the experts, mean over MoE layers; 1 is even",
        told="entropy {:.3f} of 1".format,
    ),
    Metric(
        "max_violation",
        lambda load: max_violation(load.load_E),
        title="Max violation",
        short="max vio",
        note="busiest expert over the even share 1/E, minus 1; worst MoE layer",
        overall=max,
        shown="{:.2f}".format,
        told=lambda value: f"busiest expert {1 + value:.2f} × the even share in its layer",
    ),
    Metric(
        "drop_rate",
        drop_rate,
        title="Drop rate (%)",
        short="drop %",
        note="assignments asked for and dropped by router or dispatcher, mean over MoE layers",
        shown=lambda value: f"{100 * value:.2f}",
    ),
    Metric(
        "unserved_rate",
        lambda load: load.unserved,
        title="Tokens unserved (%)",
        short="unserved %",
        note="tokens that no routed expert serves, mean over MoE layers",
        shown=lambda value: f"{100 * value:.2f}",
    ),
    Metric(
        "dead_experts",
        lambda load: dead_experts(load.load_E),
        title="Dead experts",
        short="dead",
        note="experts below 1 % of the even share, all MoE layers",
        overall=math.fsum,
        shown=lambda value: f"{value:g}" if value == round(value) else f"{value:.1f}",
    ),
)


def measured(load: Load) -> dict[str, list[float]]:
    """Every metric of each layer, by name."""
    return {metric.name: np.asarray(metric.measure(load)).tolist() for metric in METRICS}


@dataclasses.dataclass(frozen=True)
class RouterLoad:
    """The `router` of result.json: how a model's routers loaded its experts on held-out text.

    Attributes:
      causal, causal_in_training: whether no layer's output depended on later tokens.
      layers: the MoE layers, counted from 0.
      metrics: name -> a number for each of them; what a run of an older version did not measure
        is not there.
      load: shares of the assignments, layer by expert; desk_load: the same of each desk.
    """

    causal: bool
    causal_in_training: bool
    layers: list[int]
    num_experts: int
    metrics: Mapping[str, list[float]]
    load: list[list[float]]
    desk_load: Mapping[str, list[list[float]]]

    def content(self) -> dict[str, Any]:
        """As result.json holds it, the metrics beside the rest."""
        return {
            "causal": self.causal,
            "causal_in_training": self.causal_in_training,
            "layers": self.layers,
            "num_experts": self.num_experts,
            **self.metrics,
            "load": self.load,
            "desk_load": dict(self.desk_load),
        }

    @classmethod
    def read(cls, content: Any) -> "RouterLoad":
        """Of what `content` gave; raises Mistake that says what is wrong in it."""
        names = {metric.name for metric in METRICS}
        try:
            found = cls(
                causal=content.get("causal", True),
                causal_in_training=content.get("causal_in_training", True),
                layers=content["layers"],
                num_experts=content["num_experts"],
                metrics={key: content[key] for key in content if key in names},
                load=content["load"],
                desk_load=content["desk_load"],
            )
            found._check()
        except (KeyError, TypeError, AttributeError) as error:
            raise Mistake(f"router is not as the results format has it ({error})") from None
        return found

    def _check(self) -> None:
        layers, experts = len(self.layers), self.num_experts
        loads = [self.load, *self.desk_load.values()]
        rows = [row for of_desk in loads for row in of_desk]
        numbers = [number for row in [*self.metrics.values(), *rows] for number in row]
        fits = all(len(values) == layers for values in [*self.metrics.values(), *loads])
        if not fits or any(len(row) != experts for row in rows):
            raise Mistake(f"router lists do not fit {layers} layers of {experts} experts")
        if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers) or not all(
            map(math.isfinite, numbers)
        ):
            raise Mistake("router has a value that is not a finite number")
