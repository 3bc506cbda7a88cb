"""Runs a study: every arm at every seed, in parallel processes on CPU, resuming what is there."""

import contextlib
import dataclasses
from collections.abc import Callable

from experiments.results.declaration import Declaration
from experiments.results.folder import ELSEWHERE, Task
from experiments.runner import together, workers
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
    mesh, workdir = request.provided(), request.workdir
    tasks = [_task(request, arm) for arm in request.arms]
    for task in tasks:
        for seed in task.seeds:
            _same_experiment(task, seed)
            _same_checkpoints(task, seed)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"--workdir={workdir}: cannot be made ({error.strerror})") from error
    with contextlib.ExitStack() as held:
        if is_first():
            held.enter_context(files.hold(workdir, called="--workdir"))
            asked = Declaration.of(
                request.study, request.size, request.arms, request.seeds, request.overrides
            )
            asked.write(workdir)
        if mesh is not None:
            held.enter_context(in_use(mesh))
            on_log = on_log or (lambda arm, seed, row: None)
        held.enter_context(together.watching())
        workers.run(tasks, request.jobs, on_log)


def _task(request: Request, arm: str) -> Task:
    return Task(
        request.study,
        request.size,
        arm,
        request.experiments[arm],
        request.seeds,
        request.workdir,
        request.profiled(),
        request.wandb,
        request.checkpoints,
    )


def _same_experiment(task: Task, seed: int) -> None:
    """Raises Mistake when the run's folder holds another experiment."""
    path = task.directory(seed) / "experiment.txt"
    if not path.exists():
        return
    text = fields.expression(dataclasses.replace(task.experiment, seed=seed))
    asked = fields.identity(text).splitlines()
    found = fields.identity(path.read_text(encoding="utf-8")).splitlines()
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
    there = note.read_text(encoding="utf-8").strip() if note.exists() else None
    if there != task.checkpoints and (there or here.exists()):
        raise Mistake(
            f"--checkpoints={task.checkpoints or ''}: {directory} has its checkpoints in "
            f"{there or here}; go on there, or choose another --workdir"
        )
