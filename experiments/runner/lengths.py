"""The same arms trained for less: each shorter length is a study in a folder of this one.

Its learning rate goes up and down within it, so its losses are those of whole runs, which a point
on the way of a longer run is not.
"""

import dataclasses
from typing import Any

from experiments.results.folder import LENGTHS
from experiments.runner.request import Request
from moe import registry


def shorter(request: Request, experiments: dict[str, Any]) -> list[tuple[Request, dict[str, Any]]]:
    """A request for each shorter length, the longest first, and arm -> its experiment.

    Args:
      experiments: of the whole length, as they were tuned.
    """
    lengths = registry.lookup("study", request.study).lengths
    shares = lengths.shares if lengths is not None and request.size in lengths.sizes else ()
    found = []
    for share in sorted(shares, reverse=True):
        cut = {arm: _cut(experiment, share) for arm, experiment in experiments.items()}
        steps = min(experiment.train.steps for experiment in cut.values())
        each = dataclasses.replace(request, workdir=request.workdir / LENGTHS / str(steps))
        found.append((each, cut))
    return found


def _cut(experiment: Any, share: float) -> Any:
    """The experiment with that share of its steps, evaluated and saved as often on its way."""
    train = experiment.train
    steps, every = (max(1, round(share * count)) for count in (train.steps, train.eval_every))
    train = dataclasses.replace(
        train,
        steps=steps,
        log_every=min(train.log_every, every),
        eval_every=every,
        save_every=every * max(1, round(train.save_every / train.eval_every)),
    )
    return dataclasses.replace(experiment, train=train)
