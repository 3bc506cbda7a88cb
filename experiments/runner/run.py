"""Runs a study: every arm at every seed, in parallel processes on CPU, resuming what is there."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.results.declaration import Declaration
from experiments.results.folder import ELSEWHERE, METRICS, RESULT, Task
from experiments.results.result import of_run
from experiments.runner import lengths, memory, together, tune, workers
from experiments.runner.request import Request
from moe import fields, files
from moe.devices.mesh import in_use
from moe.devices.processes import is_first
from moe.registry import Mistake


def run(request: Request, on_log: Callable[[str, int, dict], None] | None = None) -> None:
    """Trains what is not there yet; leaves results where `experiments.report.report` reads them.

    Args:
      request: what is asked for.
      on_log: gets (arm, seed, row) for every row of a run, as it happens, in this process; the
        arms then run in this process too. For notebooks that draw while they train.

    Raises Mistake, before anything is written, for a mesh that cannot be had and for a workdir
    that holds other experiments or is in use; Interrupted when a signal stopped the runs, which
    then have saved. A second signal raises KeyboardInterrupt at once.
    """
    mesh, tuning = request.provided(), tune.declared(request)
    if mesh is not None:
        on_log = on_log or _silent
    asked, begun = _declared(request), []
    tasks = _tasks(request, request.experiments)
    _check(tasks, () if tuning else (_same_experiment,))
    asked.joined(request.workdir)
    left = [task for task in tasks if not all(map(task.finished, task.seeds))]
    if request.memory == "check" and left:
        count = workers.side_by_side(tasks, request.jobs, on_log)
        memory.check(left, count, mesh)
    with contextlib.ExitStack() as held:

        def begin():
            """Writes for the first time: all that can be checked is checked."""
            if is_first() and not begun:
                _made(request.workdir)
                held.enter_context(files.hold(request.workdir, called="--workdir"))
                asked.write(request.workdir)
                begun.append(True)

        def train(trials):
            begin() if not trials else workers.run(trials, request.jobs, begin, on_log and _silent)

        if mesh is not None:
            held.enter_context(in_use(mesh))
        held.enter_context(together.watching())
        if tuning:
            tasks = _tasks(request, tune.tuned(request, tuning, train))
            _check(tasks, (_same_experiment,))
        workers.run(tasks, request.jobs, begin, on_log)
        for each, experiments in lengths.shorter(request, {t.arm: t.experiment for t in tasks}):
            _run_shorter(each, experiments, on_log)


def _run_shorter(request: Request, experiments: Mapping[str, Any], on_log: Callable | None) -> None:
    """The arms at another length, in a folder within that of the study, which is held."""
    steps = next(iter(experiments.values())).train.steps
    overrides = [*request.overrides, f"train.steps={steps}"]
    asked = Declaration.of(request.study, request.size, request.arms, request.seeds, overrides)
    asked = dataclasses.replace(asked, tuning=None, lengths=None)
    tasks = _tasks(request, experiments)
    _check(tasks, (_same_experiment,))

    def begin():
        if is_first():
            _made(request.workdir)
            asked.write(request.workdir)

    workers.run(tasks, request.jobs, begin, on_log)


def _silent(arm: str, seed: int, row: dict) -> None:
    """Keeps runs in this process, and shows nobody their rows."""


def _tasks(request: Request, experiments: Mapping[str, Any]) -> list[Task]:
    return workers.dearest_first([_task(request, arm, experiments[arm]) for arm in request.arms])


def _check(tasks: Sequence[Task], more: Sequence[Callable]) -> None:
    """Raises Mistake, one line, for whatever is there and is not of these runs."""
    for task in tasks:
        for seed in task.seeds:
            for rule in (_places, *more, _same_checkpoints, _whole_result):
                rule(task, seed)


def _declared(request: Request) -> Declaration:
    asked = Declaration.of(
        request.study, request.size, request.arms, request.seeds, request.overrides
    )
    return asked.until(request.looks, request.planned) if request.looks else asked


def _made(workdir: pathlib.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"--workdir={workdir}: cannot be made ({error.strerror})") from error


def _task(request: Request, arm: str, experiment: Any) -> Task:
    return Task(
        request.study,
        request.size,
        arm,
        experiment,
        request.seeds,
        request.workdir,
        request.profiled(),
        request.wandb,
        request.checkpoints,
    )


def _places(task: Task, seed: int) -> None:
    """Raises Mistake where another kind of thing has the name of a folder or a file of the run."""
    run = task.directory(seed)
    for path in (run.parent, run, run / "checkpoints", run / "tensorboard"):
        if os.path.lexists(path) and not path.is_dir():
            raise Mistake(f"{path}: must be a folder; remove it")
    for name in (METRICS, "experiment.txt", "tokenizer.json", RESULT):
        if (run / name).exists() and not (run / name).is_file():
            raise Mistake(f"{run / name}: must be a plain file; remove it")


def _same_experiment(task: Task, seed: int) -> None:
    """Raises Mistake when the run's folder holds another experiment."""
    path = task.directory(seed) / "experiment.txt"
    if not os.path.lexists(path):
        return
    text = fields.expression(dataclasses.replace(task.experiment, seed=seed))
    asked = fields.identity(text).splitlines()
    found = fields.identity(files.text(path)).splitlines()
    for there, here in zip(found, asked, strict=False):
        if there != here:
            raise Mistake(
                f"{path}: holds another experiment ({there.strip()} there, {here.strip()} asked); "
                "choose another --workdir, or remove this folder"
            )
    if len(found) != len(asked):
        raise Mistake(f"{path}: holds another experiment; choose another --workdir")


def _same_checkpoints(task: Task, seed: int) -> None:
    """Raises Mistake when an unfinished run has its checkpoints in another place."""
    directory = task.directory(seed)
    if not (directory / "experiment.txt").exists() or task.finished(seed):
        return
    note, here = directory / ELSEWHERE, directory / "checkpoints"
    there = files.text(note).strip() if os.path.lexists(note) else None
    if there != task.checkpoints and (there or here.exists()):
        raise Mistake(
            f"--checkpoints={task.checkpoints or ''}: {directory} has its checkpoints in "
            f"{there or here}; go on there, or choose another --workdir"
        )


def _whole_result(task: Task, seed: int) -> None:
    """Raises Mistake when a run looks finished whose result is not its own, or not whole."""
    if task.finished(seed):
        of_run(task, seed)
