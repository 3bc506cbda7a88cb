"""What a terminal or a log sees of runs: a bar or a line, weighted by cost, with the time left."""

import contextlib
import datetime
import sys
import time
from collections.abc import Sequence

from experiments.results.folder import Task
from moe.devices.processes import is_first

EVERY_S = 30  # between lines where there is no terminal


class Progress:
    """One bar over all runs, weighted by cost, with an estimate; quiet when not on a terminal."""

    def __init__(self, tasks: Sequence[Task], prices: Sequence[float]):
        from tqdm import tqdm

        self._prices = {task.arm: price for task, price in zip(tasks, prices, strict=True)}
        self._steps = {
            (task.arm, seed): 0 for task in tasks for seed in task.seeds if not task.finished(seed)
        }
        self._length = {task.arm: task.experiment.train.steps for task in tasks}
        self.stopped: dict[tuple[str, int], int] = {}  # run -> the step that it saved
        self._spoke, self._told = -float("inf"), False
        total = sum(self._prices[arm] * self._length[arm] for arm, _ in self._steps)
        self._bar = tqdm(
            total=total / 1e6,
            disable=not sys.stderr.isatty(),
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}",
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._bar.close()

    def say(self, line: str) -> None:
        """Writes a line above the bar, in one process if several train together."""
        if not is_first():
            return
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to end a run
            self._bar.write(line, file=sys.stderr)

    def take(self, arm: str, seed: int, row: dict) -> None:
        """Shows one report of a run."""
        run = f"{arm} seed {seed}"
        if row["kind"] == "step":
            gained = row["step"] - self._steps[arm, seed]
            self._steps[arm, seed] = row["step"]
            with contextlib.suppress(OSError):
                self._bar.update(gained * self._prices[arm] / 1e6)
        elif row["kind"] == "train":
            self._show(run, self._length[arm], row)
        elif row["kind"] == "stopped":
            self.stopped[arm, seed] = row["step"]
        elif "message" in row:
            self.say(f"{run}: {row['message']}")
        elif row["kind"] == "eval" and row["step"] == self._length[arm]:
            self.say(f"{run}: {row['val_loss']:.4f} nats per token")

    def _show(self, run: str, steps: int, row: dict) -> None:
        """The line of a run: beside the bar, or for itself where there is no terminal."""
        if not self._told and row["tokens_per_s"] and row["mfu"] is None:
            self._told = True
            self.say("MFU is left out: unknown device, no peak in moe/cost/accelerators.py")
        text = progress_line(run, steps, row)
        if not self._bar.disable:
            with contextlib.suppress(OSError):
                self._bar.set_description(text)
        elif time.monotonic() - self._spoke >= EVERY_S:
            self._spoke = time.monotonic()
            self.say(text)

    def stopped_line(self) -> str:
        """How far the runs came that were stopped, and how to go on."""
        runs = [f"{arm} seed {seed} at step {step}" for (arm, seed), step in self.stopped.items()]
        return (
            f"stopped, saved: {', '.join(runs) or 'nothing was running'}; the same command resumes"
        )

    def read(self, rows) -> None:
        """Takes everything that processes send, until None."""
        for report in iter(rows.get, None):
            self.take(*report)


def progress_line(run: str, steps: int, row: dict) -> str:
    """Step, loss, speed and time left, from a row of kind "train"."""
    parts = [f"{run}: step {row['step']:,}/{steps:,}", f"loss {row['loss']:.4f}"]
    if row["tokens_per_s"]:
        left = (steps - row["step"]) * row["tokens"] / row["step"] / row["tokens_per_s"]
        parts += [f"{row['tokens_per_s']:,.0f} tokens/s"]
        parts += [f"MFU {row['mfu']:.1%}"] if row["mfu"] is not None else []
        parts += [f"{datetime.timedelta(seconds=round(left))} left"]
    return ", ".join(parts)
