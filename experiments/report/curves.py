"""Loss over training, averaged over seeds at the steps that they share."""

import math

from experiments.results.record import Band, Curves
from experiments.results.result import finite
from experiments.results.runs import Point, Run, Runs


def curves(arm: str, runs: Runs) -> Curves:
    """Mean, lowest and highest over seeds at the steps that every shown seed has.

    Finished seeds where there are any, else all that have lines; `finished` says which.
    """
    own = [run for run in runs.runs if run.arm == arm and (run.train or run.evaluation)]
    ended = [run for run in own if run.seed in runs.finished(arm)]
    shown = ended or own
    rates = [point.learning_rate for run in shown for point in run.train.values()]
    return Curves(
        finished=bool(ended),
        peak_learning_rate=max(filter(finite, rates), default=None),
        train=_band([run.train for run in shown]),
        eval=_band([run.evaluation for run in shown]),
        eval_difference=_band(_eval_difference(shown, runs)),
    )


def _eval_difference(shown: list[Run], runs: Runs) -> list[dict[int, Point]]:
    """Per seed: validation loss minus that of the baseline at the same seed and step."""
    baseline = {run.seed: run for run in runs.runs if run.arm == runs.declared.baseline}
    curves = []
    for run in shown:
        other = baseline[run.seed].evaluation if run.seed in baseline else {}
        curve = {}
        for step in sorted(set(run.evaluation) & set(other)):
            here, there = run.evaluation[step], other[step]
            if finite(here.nats) and finite(there.nats):
                curve[step] = Point(here.tokens, here.nats - there.nats)
        if curve:
            curves.append(curve)
    return curves


def _band(curves: list[dict[int, Point]]) -> Band:
    """One curve of mean, low and high over seeds; a step with a non-finite value is None."""
    steps = sorted(set.intersection(*map(set, curves)) if curves else ())
    mean, low, high = [], [], []
    for step in steps:
        values = [curve[step].nats for curve in curves]
        usable = all(map(finite, values))
        mean.append(math.fsum(values) / len(values) if usable else None)
        low.append(min(values) if usable else None)
        high.append(max(values) if usable else None)
    tokens = tuple(curves[0][step].tokens for step in steps)
    return Band(tokens, tuple(mean), tuple(low), tuple(high))
