"""Processes that train arms side by side: on CPU, one core each beats all cores on one arm."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence

from experiments.run import Task, run_task

# Large arrays come and go at every step; in huge pages the kernel maps them far faster. Read by
# the C library when a process starts (glibc 2.35 or newer; unknown elsewhere and then ignored).
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def run(
    tasks: Sequence[Task], jobs: int, on_log: Callable[[str, int, dict], None] | None = None
) -> None:
    """Runs the tasks, dearest first, with a progress bar on a terminal and else a line a run.

    jobs and on_log are those of `experiments.run.run`.
    """
    from moe.cost import flops_per_token

    def price(task):
        return flops_per_token(task.experiment.model, task.experiment.data.sequence_length)

    tasks = sorted(tasks, key=price, reverse=True)
    with Progress(tasks, [price(task) for task in tasks]) as progress:
        if on_log is not None or (not jobs and _accelerator()):
            for task in tasks:
                _run_here(task, progress, on_log)
            return
        _prepare(tasks)
        _run_processes(tasks, min(jobs or _cores(), len(tasks)), progress)


def _run_here(task: Task, progress: "Progress", on_log) -> None:
    def take(seed, row):
        progress.take(task.arm, seed, row)
        if on_log is not None:
            on_log(task.arm, seed, row)

    run_task(task, take)


def _prepare(tasks: Sequence[Task]) -> None:
    """Makes the corpus, tokeniser and baselines once, before processes would all wait for them."""
    from moe.data import ngram
    from moe.data.loader import load

    wanted = {(task.experiment.data, task.experiment.model.vocab_size) for task in tasks}
    for data, vocab_size in sorted(wanted, key=repr):
        ngram.baselines(load(data, vocab_size))


def _run_processes(tasks: Sequence[Task], jobs: int, progress: "Progress") -> None:
    context = multiprocessing.get_context("spawn")
    rows, cores = context.Queue(), context.Queue()
    for j in range(jobs):
        cores.put(j)
    before = os.environ.get("GLIBC_TUNABLES")
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [before, _HUGE_PAGES]))
    try:
        with concurrent.futures.ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_start, initargs=(rows, cores, jobs)
        ) as pool:
            waiting = {pool.submit(_work, task) for task in tasks}
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, timeout=0.2)
                progress.drain(rows)
                for future in done:
                    future.result()  # a failure here ends the study
    finally:
        if before is None:
            del os.environ["GLIBC_TUNABLES"]
        else:
            os.environ["GLIBC_TUNABLES"] = before
    progress.drain(rows)


def _start(rows, cores, jobs: int) -> None:
    """In a new process: claims its share of the cores before JAX starts its threads."""
    global _ROWS
    _ROWS = rows
    threading.Thread(target=_die_with_parent, daemon=True).start()
    j = cores.get()
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[j::jobs]
        if mine:
            os.sched_setaffinity(0, mine)


def _die_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(task: Task) -> None:
    run_task(task, lambda seed, row: _ROWS.put((task.arm, seed, row)))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> bool:
    import jax

    return jax.default_backend() != "cpu"


class Progress:
    """One bar over all runs, weighted by cost, with an estimate; quiet when not on a terminal."""

    def __init__(self, tasks: Sequence[Task], prices: Sequence[float]):
        from tqdm import tqdm

        self._prices = {task.arm: price for task, price in zip(tasks, prices, strict=True)}
        self._steps = {
            (task.arm, seed): 0
            for task in tasks
            for seed in task.seeds
            if not (task.directory(seed) / "result.json").exists()
        }
        self._length = {task.arm: task.experiment.train.steps for task in tasks}
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

    def take(self, arm: str, seed: int, row: dict) -> None:
        """Shows one report of a run."""
        if row["kind"] == "step":
            gained = row["step"] - self._steps[arm, seed]
            self._steps[arm, seed] = row["step"]
            self._bar.update(gained * self._prices[arm] / 1e6)
        elif row["kind"] == "diverged":
            self._bar.write(f"{arm} seed {seed}: {row['message']}", file=sys.stderr)
        elif row["kind"] == "eval":
            self._bar.set_description(f"{arm}/seed{seed}")
            if row["step"] == self._length[arm]:
                line = f"{arm} seed {seed}: {row['val_loss']:.4f} nats per token"
                self._bar.write(line, file=sys.stderr)

    def drain(self, rows) -> None:
        """Takes everything that processes have sent."""
        while True:
            try:
                self.take(*rows.get_nowait())
            except queue.Empty:
                return
