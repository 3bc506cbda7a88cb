"""Processes that train arms side by side: on CPU, one core each beats all cores on one arm."""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from experiments.task import Task, dataset_of, run_task
from moe.mesh import is_first

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
        progress.say("corpus, tokeniser and baselines (about a minute the first time)")
        _prepare(tasks)
        # The last arm goes seed by seed, so that no core waits long at the end.
        *first, last = tasks
        tasks = [*first, *(dataclasses.replace(last, seeds=(seed,)) for seed in last.seeds)]
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

    for task in tasks:
        ngram.baselines(dataset_of(task.experiment))


def _run_processes(tasks: Sequence[Task], jobs: int, progress: "Progress") -> None:
    """Runs the tasks in `jobs` processes; the first that fails stops the others, then raises."""
    context = multiprocessing.get_context("spawn")
    rows, cores, stop = context.Queue(), context.Queue(), context.Event()
    for j in range(jobs):
        cores.put(j)
    # A process cannot end before its rows are read, so a thread reads whatever else happens here.
    reader = threading.Thread(target=progress.read, args=(rows,), daemon=True)
    reader.start()
    try:
        with (
            _environment("GLIBC_TUNABLES", _HUGE_PAGES),
            concurrent.futures.ProcessPoolExecutor(
                jobs, mp_context=context, initializer=_start, initargs=(rows, cores, stop, jobs)
            ) as pool,
        ):
            with _interrupts_ignored():  # a process inherits that: only this one hears Ctrl-C
                futures = [pool.submit(_work, task) for task in tasks]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException as error:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                at_once = isinstance(error, KeyboardInterrupt)  # a killed run resumes
                _end(multiprocessing.active_children(), seconds=0 if at_once else 15)
                rows.cancel_join_thread()  # one that was killed may have held the queue
                raise
    finally:
        rows.put(None)
        reader.join(timeout=5)


@contextlib.contextmanager
def _interrupts_ignored():
    """Leaves SIGINT to nobody for a moment, where this thread may decide that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(processes: Sequence[multiprocessing.Process], seconds: float) -> None:
    """Waits for processes that were told to stop, then kills those that hang in a library."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        process.kill()


@contextlib.contextmanager
def _environment(name: str, setting: str):
    """Adds a setting to a colon-separated environment variable, for processes started inside."""
    before = os.environ.get(name)
    os.environ[name] = ":".join(filter(None, [before, setting]))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _start(rows, cores, stop, jobs: int) -> None:
    """In a new process: claims its share of the cores before JAX starts its threads."""
    global _ROWS, _STOP
    _ROWS, _STOP = rows, stop
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
    def send(seed, row):
        if _STOP.is_set():
            raise RuntimeError("stopped, since another arm failed")
        _ROWS.put((task.arm, seed, row))

    run_task(task, send)


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

    def say(self, line: str) -> None:
        """Writes a line above the bar, in one process if several train together."""
        if not is_first():
            return
        self._bar.write(line, file=sys.stderr)

    def take(self, arm: str, seed: int, row: dict) -> None:
        """Shows one report of a run."""
        if row["kind"] == "step":
            gained = row["step"] - self._steps[arm, seed]
            self._steps[arm, seed] = row["step"]
            self._bar.update(gained * self._prices[arm] / 1e6)
        elif row["kind"] == "diverged":
            self.say(f"{arm} seed {seed}: {row['message']}")
        elif row["kind"] == "eval":
            self._bar.set_description(f"{arm}/seed{seed}")
            if row["step"] == self._length[arm]:
                self.say(f"{arm} seed {seed}: {row['val_loss']:.4f} nats per token")

    def read(self, rows) -> None:
        """Takes everything that processes send, until None."""
        for report in iter(rows.get, None):
            self.take(*report)
