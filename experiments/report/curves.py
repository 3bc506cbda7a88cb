"""Loss over training, averaged over seeds at the steps that they share."""

import math

from experiments.results.runs import Run, Runs, finite, nats


def curves(arm: str, runs: Runs) -> dict:
    """Mean, lowest and highest over seeds at the steps that every shown seed has.

    Finished seeds where there are any, else all that have lines; `finished` says which.
    """
    own = [run for run in runs.runs if run.arm == arm and (run.train or run.evaluation)]
    ended = [run for run in own if run.seed in runs.finished(arm)]
    shown = ended or own
    rates = [
        line["learning_rate"]
        for run in shown
        for line in run.train.values()
        if finite(line.get("learning_rate"))
    ]
    return {
        "finished": bool(ended),
        "peak_learning_rate": max(rates, default=None),
        "train": _band([{s: (x["tokens"], nats(x)) for s, x in r.train.items()} for r in shown]),
        "eval": _band(
            [{s: (x["tokens"], x.get("val_loss")) for s, x in r.evaluation.items()} for r in shown]
        ),
        "eval_difference": _band(_eval_difference(shown, runs)),
    }


def _eval_difference(shown: list[Run], runs: Runs) -> list[dict]:
    """Per seed: validation loss minus that of the baseline at the same seed and step."""
    baseline = {run.seed: run for run in runs.runs if run.arm == runs.study["baseline"]}
    curves = []
    for run in shown:
        other = baseline[run.seed].evaluation if run.seed in baseline else {}
        curve = {}
        for step in sorted(set(run.evaluation) & set(other)):
            pair = run.evaluation[step].get("val_loss"), other[step].get("val_loss")
            if finite(pair[0]) and finite(pair[1]):
                curve[step] = (run.evaluation[step]["tokens"], pair[0] - pair[1])
        if curve:
            curves.append(curve)
    return curves


def _band(curves: list[dict[int, tuple]]) -> dict:
    """One curve of mean, low and high over seeds; a step with a non-finite value is null."""
    band = {"tokens": [], "mean": [], "low": [], "high": []}
    for step in sorted(set.intersection(*map(set, curves)) if curves else ()):
        values = [curve[step][1] for curve in curves]
        usable = all(finite(value) for value in values)
        band["tokens"].append(curves[0][step][0])
        band["mean"].append(math.fsum(values) / len(values) if usable else None)
        band["low"].append(min(values) if usable else None)
        band["high"].append(max(values) if usable else None)
    return band
