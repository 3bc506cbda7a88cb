"""Tunes every arm alike before its runs: grids of a study, at a part of the steps, on other seeds.

Each value of a grid trains like a run of the study, in tuning/ARM@PATH=VALUE of its folder, so what
is there is not trained again. A grid whose best value is its lowest or highest goes on that way,
`WIDENED` times at most.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.results.folder import DIVERGED, Task
from experiments.results.result import of_run
from experiments.results.tuning import FOLDER, Choice, read, write
from experiments.runner import workers
from experiments.runner.request import Request
from experiments.studies.plan import Grid, Tuning
from moe import fields, registry
from moe.registry import Mistake

WIDENED = 3  # times that a grid is made longer at one end or the other

Train = Callable[[Sequence[Task]], None]


def declared(request: Request) -> Tuning | None:
    """How the arms of a request are tuned; None where they are not.

    Raises Mistake where the seeds of the tuning are among those of the runs, and for several
    processes, which need not see the same files.
    """
    tuning = registry.lookup("study", request.study).tuning
    tuning = tuning and tuning.at(request.size, request.overrides)
    if tuning is None:
        return None
    taken = sorted(set(tuning.seeds) & set(request.planned))
    if taken:
        raise Mistake(
            f"--seeds: {taken[0]} is one that {request.study} tunes on "
            f"({', '.join(map(str, tuning.seeds))}); take others"
        )
    if request.processes != 1:
        raise Mistake(
            f"--size={request.size}: {request.study} tunes its arms there, in one process; with "
            f"several, --set {' and '.join(grid.path for grid in tuning.grids)}"
        )
    return tuning


def tuned(request: Request, tuning: Tuning, train: Train) -> dict[str, Any]:
    """Arm -> its experiment with the best value of each grid, one grid after the other.

    Args:
      tuning: what `declared` found.
      train: trains tasks, or goes on with them, to their ends.
    """
    experiments = dict(request.experiments)
    choices = [choice for choice in read(request.workdir) if choice.arm not in experiments]
    for grid in tuning.grids:
        for choice in _search(request, tuning, grid, experiments, train):
            choices.append(choice)
            text = repr(choice.value)
            experiments[choice.arm] = fields.override(experiments[choice.arm], grid.path, text)
    write(request.workdir, choices)
    return experiments


def _search(
    request: Request, tuning: Tuning, grid: Grid, experiments: Mapping[str, Any], train: Train
) -> list[Choice]:
    """What the grid came to in every arm that has the field, and not at 0, where it is off.

    Five parameters and a function: the search is one step of `tuned`, and shares all it knows.
    """
    values = {arm: list(grid.values) for arm in experiments if _has(experiments[arm], grid.path)}
    found: list[Choice] = []
    for widened in range(WIDENED + 1):
        trials = {
            (arm, value): _trial(request, tuning, experiments[arm], (arm, grid.path, value))
            for arm, tried in values.items()
            for value in tried
        }
        train(workers.dearest_first([trial for trial in trials.values() if _left(trial)]))
        found = [_choice(grid, trials, arm, tried) for arm, tried in values.items()]
        edges = [choice for choice in found if choice.at_edge and len(choice.losses) > 1]
        if not edges or widened == WIDENED:
            break
        for choice in edges:
            values[choice.arm].append(_beyond(choice))
    return found


def _has(experiment: Any, path: str) -> bool:
    return bool(fields.fields(experiment).get(path))


def _beyond(choice: Choice) -> float:
    """The value that follows at the end where the best one lies, in the grid's own ratio."""
    tried = choice.tried
    low, high = (tried[0], tried[1]) if choice.at_edge < 0 else (tried[-2], tried[-1])
    value = low * low / high if choice.at_edge < 0 else high * high / low
    return float(f"{value:.3g}")


def _trial(
    request: Request, tuning: Tuning, experiment: Any, place: tuple[str, str, float]
) -> Task:
    """The run of one value, shorter than the study's, with an evaluation and a save at its end."""
    arm, path, value = place
    experiment = fields.override(experiment, path, repr(value))
    steps = tuning.steps(experiment.train.steps)
    train = dataclasses.replace(
        experiment.train, steps=steps, eval_every=steps, save_every=steps, keep_best=0
    )
    return Task(
        request.study,
        request.size,
        f"{arm}@{path.rpartition('.')[2]}={value:g}",
        dataclasses.replace(experiment, train=train),
        tuning.seeds,
        request.workdir / FOLDER,
    )


def _left(trial: Task) -> bool:
    """Whether it has a run to train: one that diverged has said enough."""
    return not all(trial.finished(s) or _diverged(trial, s) for s in trial.seeds)


def _diverged(trial: Task, seed: int) -> bool:
    return (trial.directory(seed) / DIVERGED).exists()


def _choice(grid: Grid, trials: Mapping, arm: str, tried: Sequence[float]) -> Choice:
    losses = {v: tuple(_loss(trials[arm, v], s) for s in trials[arm, v].seeds) for v in tried}
    return Choice(grid.path, arm, losses, trials[arm, tried[0]].experiment.train.steps)


def _loss(trial: Task, seed: int) -> float | None:
    return None if _diverged(trial, seed) else of_run(trial, seed).val_loss
