"""One arm of a study at its seeds: trains what is not there yet and writes what came out."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.results.folder import DIVERGED, ELSEWHERE, Task
from experiments.results.result import Result
from moe import fields, files
from moe.environment import environment, peak_memory


def run_task(
    task: Task, on_log: Callable[[int, dict], None], stop: Callable[[], bool] = lambda: False
) -> None:
    """Runs the seeds of one arm one after the other, in this process.

    on_log gets (seed, row) for everything that `moe.training.loop.train` reports, and rows of kind
    "begun", "diverged", "stopped" and "finished"; stop is that of `train`.
    """
    from moe.devices.processes import agreed, is_first
    from moe.training.loop import Stopped

    missing = agreed([not task.finished(s) for s in task.seeds])
    todo = [seed for seed, wanted in zip(task.seeds, missing, strict=True) if wanted]
    if not todo or stop():
        return
    dataset = dataset_of(task.experiment)
    message = task.experiment.epochs(dataset.one_pass)
    on_log(todo[0], {"kind": "notice", "message": message})
    for seed in todo:
        on_log(seed, {"kind": "begun"})
        try:
            run_one(task, seed, dataset, lambda row, seed=seed: on_log(seed, row), stop)
        except FloatingPointError as error:
            if is_first():
                files.write(task.directory(seed) / DIVERGED, f"{error}\n")
            on_log(seed, {"kind": "diverged", "message": str(error)})
        except Stopped as stopped:
            on_log(seed, {"kind": "stopped", "step": stopped.step})
            return


def dataset_of(experiment: Any) -> Any:
    """The text of an experiment; raises Mistake where it does not fit."""
    from moe.data.loader import load

    dataset = load(experiment.data, experiment.model.vocab_size)
    experiment.check_text(dataset)
    return dataset


def run_one(
    task: Task,
    seed: int,
    dataset: Any,
    on_log: Callable[[dict], None],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Runs one experiment to its end; writes experiment.txt, tokenizer.json and result.json."""
    from moe.devices.processes import is_first
    from moe.training import clock
    from moe.training.loop import train
    from moe.training.sinks import Watch

    experiment = dataclasses.replace(task.experiment, seed=seed)
    directory, text = task.directory(seed), fields.expression(experiment)
    directory.mkdir(parents=True, exist_ok=True)
    watch = Watch(task.profile, task.wandb, f"{task.study}/{task.arm}/seed{seed}")
    with contextlib.ExitStack() as held:
        if is_first():
            # Processes of a killed run may be about to die.
            held.enter_context(files.hold(directory, patience_s=60, called="--workdir"))
            files.write(directory / "experiment.txt", text)
            files.write(directory / "tokenizer.json", dataset.tokenizer.sealed)
            if task.checkpoints:
                files.write(directory / ELSEWHERE, f"{task.checkpoints}\n")
        place = task.checkpoint_directory(seed)
        trained = train(experiment, dataset, directory, text, on_log, stop, watch, place)
        if is_first():
            _result(task, experiment, dataset, trained).write(directory)
            (directory / DIVERGED).unlink(missing_ok=True)
    on_log({"kind": "finished", "message": clock.line(trained.seconds)})


def _result(task: Task, experiment: Any, dataset: Any, trained: Any) -> Result:
    from moe.analysis import ngram
    from moe.cost import account
    from moe.devices.sharding import in_words
    from moe.training import clock
    from moe.training.loop import utilisation

    cost, evaluation = account.account(experiment), trained.evaluation
    tokens_per_step = experiment.train.batch * experiment.data.sequence_length
    return Result(
        study=task.study,
        size=task.size,
        arm=task.arm,
        seed=experiment.seed,
        val_loss=evaluation.val_loss,
        val_bits_per_byte=evaluation.val_bits_per_byte,
        desk_loss=evaluation.desk_loss,
        desk_tokens=dict(zip(evaluation.desks, evaluation.tokens_Y.tolist(), strict=True)),
        params_total=cost.params_total,
        params_active=cost.params_active,
        params_by_part=cost.params_by_part,
        flops_per_token=cost.flops_per_token,
        flops_by_part=cost.flops_by_part,
        tokens=experiment.train.steps * tokens_per_step,
        steps=experiment.train.steps,
        router=evaluation.router(experiment),
        hash=_hash_report(experiment.model, trained, dataset.corpus),
        baselines=ngram.baselines(dataset),
        timing={
            "wall_s": trained.wall_s,
            "compile_s": trained.compile_s,
            "step_s": trained.step_s,
            "tokens_per_s": tokens_per_step / trained.step_s,
            "peak_memory_bytes": peak_memory(),
            "seconds": trained.seconds,
            "goodput": clock.goodput(trained.seconds),
            "mfu": utilisation(experiment, tokens_per_step / trained.step_s),
        },
        environment=environment(dataset.fingerprint, in_words()),
    )


def _hash_report(model: Any, trained: Any, corpus: Any) -> list[dict | None]:
    """Of each MoE layer with a hash table: its load on the training text, its drift from there."""
    import numpy as np

    from moe.analysis import drift
    from moe.model.depth import map_routers
    from moe.params import state
    from moe.routers.hash import Hash

    found = [None] * len(model.routers)

    def look(params, n):
        if isinstance(model.routers[n], Hash):
            table_VK = np.asarray(state(params)["expert_VK"])
            load_E = trained.evaluation.load_YNE.sum(axis=0)[n]
            found[n] = drift.report(model.routers[n].key, table_VK, corpus, load_E)
        return params

    if model.routers:
        map_routers(trained.state.params, look)
    return found
