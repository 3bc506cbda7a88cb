"""The loop around the training step: it logs, evaluates, saves, resumes, stops when asked."""

import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from moe.analysis import load
from moe.checkpoint import history
from moe.checkpoint.format import Identity
from moe.cost import accelerators, account
from moe.devices import sharding
from moe.devices.processes import is_first
from moe.experiment import Experiment
from moe.training.clock import Clock
from moe.training.evaluate import Evaluation, evaluate
from moe.training.gradients import Metrics
from moe.training.record import MetricsLog, NoLog
from moe.training.sinks import Watch
from moe.training.step import TrainState, init, train_step


@dataclasses.dataclass
class Result:
    """What `train` leaves behind: the trained state, its last evaluation, and times in seconds."""

    state: TrainState
    evaluation: Evaluation
    wall_s: float
    compile_s: float
    step_s: float  # median over the steps of this process; nan without any
    seconds: dict[str, float]  # of this process, by kind
    resumed_from: int


class Stopped(Exception):
    """A run that was asked to stop, and has saved its last step."""

    def __init__(self, step: int):
        super().__init__(f"stopped and saved at step {step}")
        self.step = step


def notices(row: dict) -> None:
    """Prints what a run survived, on stderr; the rest is in its files."""
    if row["kind"] == "notice":
        print(row["message"], file=sys.stderr)


def train(
    experiment: Experiment,
    dataset: Any,
    directory: pathlib.Path,
    experiment_text: str,
    on_log: Callable[[dict], None] = notices,
    stop: Callable[[], bool] = lambda: False,
    watch: Watch = Watch(),  # noqa: B008
    checkpoint_directory: str | os.PathLike | None = None,
) -> Result:
    """Runs an experiment to its end, from its newest whole checkpoint if there is any.

    Over budget: what is run, on what, where and by which name; the rest, how it is heard, stopped
    and watched, can be left out.

    Args:
      dataset: what `moe.data.loader.load` returns.
      directory: gets metrics.jsonl, tensorboard/ and, unless they go elsewhere, checkpoints/.
      experiment_text: saved with every checkpoint; another text there is refused.
      on_log: called with every row of metrics.jsonl as it is written, with {"kind": "step"}, and
        with {"kind": "notice", "message": line}.
      stop: asked after every step; true saves that step and raises Stopped.
      watch: what is recorded besides.
      checkpoint_directory: a folder, or gs://BUCKET/PATH, where the checkpoints go instead, and a
        copy of the metrics with each: a run goes on from there when `directory` is lost.

    Raises FloatingPointError on a loss or a state that is not finite; the last checkpoint is kept.
    """
    clock = Clock()
    with clock("starting"):
        state = init(experiment, dataset.corpus)
        identity = Identity(experiment_text, dataset.fingerprint, dataset.tokenizer_fingerprint)
        checkpoints = history.Checkpoints(
            checkpoint_directory or directory / "checkpoints",
            identity,
            experiment.train.keep_last,
            experiment.train.keep_best,
            lambda line: on_log({"kind": "notice", "message": line}),
        )
    log = None
    try:
        with clock("starting"):
            restored = checkpoints.restore(history.abstract(state))
            state = restored[1] if restored else state
            start = int(state.step)
            copy = checkpoints.place if checkpoint_directory else None
            log = MetricsLog(directory, start, watch, copy) if is_first() else NoLog()
        if restored is None:
            with clock("saving"):
                checkpoints.save(0, state)
        loop = _Loop(experiment, dataset, directory, log, checkpoints, clock, on_log)
        state, evaluation = loop.run(state, start, stop)
    finally:
        with clock("saving"):
            if log is not None:
                log.close()
            checkpoints.close()
    step_s = float(np.median(loop.step_s)) if loop.step_s else float("nan")
    compile_s, wall_s = loop.compile_s, clock.wall_s
    return Result(state, evaluation, wall_s, compile_s, step_s, clock.seconds(), start)


@dataclasses.dataclass
class _Loop:
    """One run in one process."""

    experiment: Experiment
    dataset: Any
    directory: pathlib.Path
    log: MetricsLog | NoLog
    checkpoints: history.Checkpoints
    clock: Clock
    on_log: Callable[[dict], None]
    compile_s: float = 0.0
    step_s: list[float] = dataclasses.field(default_factory=list)

    def run(
        self, state: TrainState, start: int, stop: Callable[[], bool]
    ) -> tuple[TrainState, Evaluation]:
        """Takes the steps after `start`; returns the last state and its evaluation."""
        train, evaluation = self.experiment.train, None
        for line in self.log.gaps(start // train.log_every * train.log_every):
            self.on_log({"kind": "notice", "message": line})
        rows = sharding.rows(train.batch)
        batches = self.dataset.stream(self.experiment.seed, start, train.batch, rows)
        for step in range(start + 1, train.steps + 1):
            self.log.watch_step(step)
            state, metrics = self._step(state, batches, first=step == start + 1)
            last, loss = step == train.steps, None
            if step % train.log_every == 0 or last or not math.isfinite(float(metrics.loss)):
                self._write(train_row(self.experiment, metrics, step, self.step_s))
                _check_finite(float(metrics.loss), step, self.directory)
            if step % train.eval_every == 0 or last:
                look = len(self.dataset.desks)  # batches; the last evaluation is of all windows
                evaluation = self._evaluate(state, None if last else look)
                self._write(evaluation.row(self.experiment, step))
                if last or step % train.save_every == 0:  # what is kept is chosen on all windows
                    loss = (evaluation if last else self._evaluate(state)).val_loss
            stopped = not last and stop()
            if step % train.save_every == 0 or last or stopped:
                with self.clock("saving"):
                    self.log.sync()  # a checkpoint on disk has its rows on disk
                    self.checkpoints.save(step, state, loss)
            self.on_log({"kind": "step", "step": step})
            if stopped:
                with self.clock("saving"):
                    self.checkpoints.wait()
                raise Stopped(step)
        return state, evaluation or self._evaluate(state)

    def _step(self, state: TrainState, batches: Any, first: bool) -> tuple[TrainState, Metrics]:
        with self.clock("data"):
            batch = next(batches)
        before = self.clock.wall_s
        with self.clock("compiling" if first else "stepping"):
            state, metrics = train_step(self.experiment, state, batch)
            jax.block_until_ready(metrics)
        took = self.clock.wall_s - before
        if first:
            self.compile_s = took
        else:
            self.step_s.append(took)
        return state, metrics

    def _evaluate(self, state: TrainState, batches: int | None = None) -> Evaluation:
        with self.clock("evaluating"):
            return evaluate(self.experiment, state.params, self.dataset, batches)

    def _write(self, row: dict) -> None:
        self.log.write(row)
        self.on_log(row)


def train_row(experiment: Experiment, metrics: Metrics, step: int, seconds: list[float]) -> dict:
    """One line of metrics.jsonl, kind "train"; seconds are those of the steps so far."""
    tokens = experiment.train.batch * experiment.data.sequence_length
    recent = seconds[-experiment.train.log_every :]
    rate = tokens / float(np.median(recent)) if recent else None
    schedule = experiment.optimizer.schedule(
        experiment.optimizer.learning_rate, experiment.train.steps
    )
    router = None
    if metrics.load_NE is not None:
        load_NE, dropped_N, unserved_N = jax.tree.map(
            np.asarray, (metrics.load_NE, metrics.dropped_N, metrics.unserved_N)
        )
        router = load.measured(load.Load(load_NE, dropped_N, unserved_N / tokens))
    return {
        "kind": "train",
        "step": step,
        "tokens": step * tokens,
        "loss": float(metrics.loss),
        "nats": float(metrics.nats),
        "grad_norm": float(metrics.grad_norm),
        "learning_rate": float(np.asarray(schedule(step - 1))),
        "tokens_per_s": rate,
        "mfu": rate and utilisation(experiment, rate),
        "router": router,
        "losses": {name: float(value) for name, value in metrics.metrics.items()},
    }


def utilisation(experiment: Experiment, tokens_per_s: float) -> float | None:
    """MFU: a step is three forward passes of matrix products; None on an unknown device."""
    model, length = experiment.model, experiment.data.sequence_length
    flops = 3 * account.flops_per_token(model, length, experiment.tokens_per_call)
    return accelerators.mfu(flops * tokens_per_s, model.dtype)


def _check_finite(loss: float, step: int, directory: pathlib.Path) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"loss={loss} at step {step} in {directory}: the run stops, its last "
            "checkpoint is kept; try a lower optimizer.learning_rate"
        )
