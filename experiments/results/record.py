"""What a study came to, as records: what every table, sentence, figure and page is made from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.results.declaration import Declaration
from experiments.results.tuning import Choice
from experiments.studies.contract import HIGHER, LOWER
from moe.analysis import load

COMPLETE, INCOMPLETE, MISSING, DIVERGED = "complete", "incomplete", "missing", "diverged"
BASELINE, NO_BASELINE = "baseline", "no baseline"
UNCLEAR, ONE_SEED = "not told apart", "one seed"  # beside LOWER and HIGHER
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
MATCHED = 0.01  # relative tolerance within which FLOPs count as equal


@dataclasses.dataclass(frozen=True)
class Summary:
    """A quantity over seeds; `mean` is None without any, `sd` below two."""

    n: int
    mean: float | None
    sd: float | None
    by_seed: Mapping[int, float]


@dataclasses.dataclass(frozen=True)
class Difference(Summary):
    """A paired difference over the seeds that two arms share; intervals at 95 %.

    Attributes:
      low, high: t interval of the mean; with one seed it and all that follows is None.
      bootstrap_low, bootstrap_high: percentile interval of the paired bootstrap.
      effect: mean over sd, a size; None where the differences do not vary.
      p, p_holm: of the paired t test, and corrected for the `comparisons` of its family.
      verdict: by p_holm.
    """

    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    effect: float | None
    p: float | None
    p_holm: float | None
    comparisons: int
    verdict: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was declared of a difference before the first step, beside what was observed.

    Attributes:
      arm, against: the loss of the first minus that of the second.
      contrast: its name; "" for one to the baseline.
      direction, size, source: as declared; nats.
      difference: over all seeds that are there; None where a run diverged or none is shared.
      p_equal: of the tests within the margin, corrected; None without a margin.
      verdict: SUPPORTED where the corrected t test tells it apart on the expected side, or where
        it lies within the margin and was expected to; CONTRADICTED where it is told apart on the
        other side, lies within the margin where a side was expected, or beyond it where none was;
        else UNDECIDED.
      reason: what that rests on.
      seeds: how many had been looked at.
      seeds_needed, seeds_published: how many would tell a difference of the size observed, or of
        the size published, from none at 80 % power, by the spread observed and at alpha over the
        number of comparisons; None where there is no such size or no number will do.
    """

    arm: str
    against: str
    contrast: str
    direction: str
    size: float | None
    source: str
    difference: Difference | None
    p_equal: float | None
    verdict: str
    reason: str
    seeds: int
    seeds_needed: int | None
    seeds_published: int | None

    @property
    def open(self) -> bool:
        """Whether more seeds could decide it: no run of its arms diverged."""
        return self.verdict == UNDECIDED and self.difference is not None


@dataclasses.dataclass(frozen=True)
class Share:
    """A ratio of differences with Fieller's 95 % interval, or the reason why there is none."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Band:
    """A curve over training: mean, lowest and highest over seeds; None where one is not finite."""

    tokens: tuple[int, ...] = ()
    mean: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclasses.dataclass(frozen=True)
class Curves:
    """The losses of an arm in training; `eval_difference` is to the baseline, paired by seed."""

    finished: bool
    peak_learning_rate: float | None
    train: Band
    eval: Band
    eval_difference: Band


@dataclasses.dataclass(frozen=True)
class Peak:
    """The strongest tie of a desk to an expert; a share of 0 where there is none."""

    share: float = 0.0
    desk: str = ""
    layer: int = 0
    expert: int = 0


@dataclasses.dataclass(frozen=True)
class Routers:
    """The load of an arm's experts, per MoE layer.

    Attributes:
      metrics: name of `moe.analysis.load.METRICS` -> mean over seeds of each layer.
      load, desk_load, peak: those of one seed, as experts have no order across seeds.
    """

    causal: bool
    causal_in_training: bool
    layers: tuple[int, ...]
    num_experts: int
    metrics: Mapping[str, tuple[float, ...]]
    load: list[list[float]]
    desk_load: Mapping[str, list[list[float]]]
    peak: Peak
    shown_seed: int

    def overall(self) -> dict[str, float]:
        """Each metric as one number over the layers."""
        measured = [metric for metric in load.METRICS if metric.name in self.metrics]
        return {metric.name: metric.overall(self.metrics[metric.name]) for metric in measured}

    def told(self) -> list[str]:
        """The metrics that have words, each as a part of a sentence."""
        overall = self.overall()
        return [m.told(overall[m.name]) for m in load.METRICS if m.told and m.name in overall]

    def content(self) -> dict[str, Any]:
        """The metrics stand beside the rest."""
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rest["peak"] = self.peak if self.peak.share else {"share": 0.0}
        return plain({**rest.pop("metrics"), **rest})


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm over its seeds; losses in nats per token."""

    name: str
    description: str
    status: str
    seeds_finished: tuple[int, ...]
    seeds_diverged: tuple[int, ...]
    seeds_unfinished: tuple[int, ...]
    seeds_absent: tuple[int, ...]
    val_loss: Summary
    val_bits_per_byte: Summary
    desk_loss: Mapping[str, Summary]
    desk_tokens: Mapping[str, int]
    router: Routers | None
    curve: Curves
    timing: Mapping[str, float | None]
    params_total: int | None
    params_active: int | None
    params_by_part: Mapping[str, float]
    flops_per_token: float | None
    flops_by_part: Mapping[str, float]
    tokens: int | None
    steps: int | None
    verdict: str = MISSING
    flops_ratio: float | None = None  # to the baseline
    difference: Difference | None = None
    desk_difference: Mapping[str, Difference | None] = dataclasses.field(default_factory=dict)
    contrasts: Mapping[str, Difference | None] = dataclasses.field(default_factory=dict)
    scales: Mapping[str, Share | None] = dataclasses.field(default_factory=dict)

    @property
    def matched(self) -> bool:
        """Whether its forward FLOPs per token are those of the baseline within 1 %."""
        return self.flops_ratio is not None and abs(self.flops_ratio - 1) <= MATCHED

    @property
    def judged(self) -> bool:
        """Whether its difference to the baseline was set against the noise between seeds."""
        return self.verdict in (LOWER, HIGHER, UNCLEAR)

    def content(self) -> dict[str, Any]:
        """The contrasts and scales stand beside the rest, each under its name."""
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del rest["name"]
        return plain({**rest.pop("contrasts"), **rest.pop("scales"), **rest})


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A whole study: numbers only, sentences are added by the report.

    Attributes:
      arms: by name: the baseline, the arms of its FLOPs, then those at other FLOPs.
      outcomes: what came of each expectation; none where nothing was declared beforehand.
      tuned: what every arm took of each grid; none where nothing was tuned.
      shorter: the same arms trained for less, each length with a decay of its own.
      baselines: the count-based ones on the same held-out text.
      environment: each version once; a list where the runs differ.
      problems: a line for each file that could not be used.
    """

    declared: Declaration
    arms: Mapping[str, Arm]
    baselines: Mapping[str, Any]
    environment: Mapping[str, Any]
    problems: tuple[str, ...]
    outcomes: tuple[Outcome, ...] = ()
    tuned: tuple[Choice, ...] = ()
    shorter: tuple["Comparison", ...] = ()

    @property
    def baseline(self) -> str:
        """The name of the arm that others are compared with."""
        return self.declared.baseline

    @property
    def others(self) -> list[Arm]:
        """Every arm but the baseline."""
        return [arm for arm in self.arms.values() if arm.name != self.baseline]

    @property
    def colour_order(self) -> tuple[str, ...]:
        """Every arm but the baseline in the order of the colours; strangers come last."""
        order = dict.fromkeys([*self.declared.colour_order, *self.arms])
        return tuple(arm for arm in order if arm != self.baseline)

    @property
    def one_seed(self) -> bool:
        """Whether no arm has a second finished seed, so that nothing is known of the noise."""
        return max((len(arm.seeds_finished) for arm in self.arms.values()), default=0) < 2

    def by_length(self) -> list[tuple[int, "Comparison"]]:
        """Tokens of a run and what came out, for each length whose baseline has ended."""
        lengths = []
        for each in (*self.shorter, self):
            tokens = each.arms[each.baseline].tokens if each.baseline in each.arms else None
            if tokens:
                lengths.append((tokens, each))
        return sorted(lengths, key=lambda length: length[0])

    def content(self) -> dict[str, Any]:
        """What results.json holds."""
        declared = self.declared.content()
        del declared["caveats"]  # those that hold are among the sentences
        return declared | {
            "arm_order": list(self.arms),
            "arms": plain(self.arms),
            "outcomes": plain(self.outcomes),
            "tuned": plain(self.tuned),
            "baselines": plain(self.baselines),
            "environment": plain(self.environment),
            "problems": list(self.problems),
        }


def plain(value: Any) -> Any:
    """Records as dictionaries, for JSON, with names as text."""
    if hasattr(value, "content"):
        return value.content()
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
