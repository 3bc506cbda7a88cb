"""Processes that train arms side by side: on CPU, one core each beats all cores on one arm."""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from experiments.results.folder import Task
from experiments.runner import huge_pages, interrupts
from experiments.runner.mistakes import is_mistake, line
from experiments.runner.progress import Progress
from experiments.runner.task import run_task
from moe.devices import processes
from moe.registry import Mistake

_ASKED: list[int] = []  # the signals that this process got, if it is one of those below


def run(
    tasks: Sequence[Task], jobs: int, on_log: Callable[[str, int, dict], None] | None = None
) -> None:
    """Runs the tasks, dearest first, with a progress bar on a terminal and else lines.

    jobs and on_log are those of `experiments.runner.run.run`, which says what is raised.
    """
    from moe.cost.account import flops_per_token

    def price(task):
        return flops_per_token(task.experiment.model, task.experiment.data.sequence_length)

    tasks = sorted(tasks, key=price, reverse=True)
    with (
        Progress(tasks, [price(task) for task in tasks]) as progress,
        interrupts.listening() as stopping,
    ):
        if on_log is not None or (not jobs and _accelerator()):
            for task in tasks:
                _run_here(task, progress, on_log, stopping)
        else:
            progress.say("corpus, tokeniser and baselines (about a minute the first time)")
            stopping.nothing_to_save = True
            _prepare(tasks)
            stopping.nothing_to_save = False
            # The last arm goes seed by seed, so that no core waits long at the end.
            *first, last = tasks
            tasks = [*first, *(dataclasses.replace(last, seeds=(seed,)) for seed in last.seeds)]
            _run_processes(tasks, min(jobs or _cores(), len(tasks)), progress, stopping)
    if stopping.asked or progress.stopped:
        raise stopping.stopped(progress.stopped_line())


def _run_here(task: Task, progress: Progress, on_log, stopping: interrupts.Stopping) -> None:

    def take(seed, row):
        progress.take(task.arm, seed, row)
        if on_log is not None:
            on_log(task.arm, seed, row)

    run_task(task, take, lambda: processes.anyone(stopping.asked))


def _prepare(tasks: Sequence[Task]) -> None:
    """Makes the corpus, tokeniser and baselines once, before processes would all wait for them."""
    from moe.analysis import ngram
    from moe.data.loader import load

    datasets = {}
    for experiment in (task.experiment for task in tasks):
        text = experiment.data, experiment.model.vocab_size
        if text not in datasets:
            datasets[text] = load(*text)
        experiment.check_text(datasets[text])
    for dataset in datasets.values():
        ngram.baselines(dataset)


def _run_processes(
    tasks: Sequence[Task], jobs: int, progress: Progress, stopping: interrupts.Stopping
) -> None:
    """Runs the tasks in `jobs` processes; the first that fails stops the others, then raises."""
    context = multiprocessing.get_context("spawn")
    rows, cores, stop = context.Queue(), context.Queue(), context.Event()
    for j in range(jobs):
        cores.put(j)
    # A process cannot end before its rows are read, so a thread reads whatever else happens here.
    reader = threading.Thread(target=progress.read, args=(rows,), daemon=True)
    reader.start()
    stopping.also = stop.set
    if stopping.asked:
        stop.set()
    try:
        with (
            huge_pages.in_new_processes(),
            concurrent.futures.ProcessPoolExecutor(
                jobs, mp_context=context, initializer=_start, initargs=(rows, cores, stop, jobs)
            ) as pool,
        ):
            with interrupts.ignored():  # a process inherits that: only this one hears Ctrl-C
                futures = [pool.submit(_work, task) for task in tasks]
            try:
                _finish(futures, stopping)
            except BaseException as error:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                at_once = isinstance(error, KeyboardInterrupt)  # a killed run resumes
                _end(multiprocessing.active_children(), seconds=0 if at_once else 30)
                rows.cancel_join_thread()  # one that was killed may have held the queue
                raise
    finally:
        stopping.also = lambda: None
        rows.put(None)
        reader.join(timeout=5)


def _finish(futures: Sequence[concurrent.futures.Future], stopping: interrupts.Stopping) -> None:
    """Waits for all; raises Mistake, one line, for the first that made a mistake."""
    try:
        for future in concurrent.futures.as_completed(futures):
            if mistake := future.result():
                raise Mistake(mistake)
    except concurrent.futures.process.BrokenProcessPool:
        if not stopping.asked:  # a process that got the signal before it could listen
            raise


def _end(processes: Sequence[multiprocessing.Process], seconds: float) -> None:
    """Waits for processes that were told to stop, then kills those that hang in a library."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        process.kill()


def _start(rows, cores, stop, jobs: int) -> None:
    """In a new process: claims its share of the cores before JAX starts its threads."""
    global _ROWS, _STOP
    _ROWS, _STOP = rows, stop
    signal.signal(signal.SIGTERM, lambda number, frame: _ASKED.append(number))
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


def _work(task: Task) -> str | None:
    """Runs a task; returns the line of a mistake, whose traceback would be lost on its way."""

    def send(seed, row):
        _ROWS.put((task.arm, seed, row))

    try:
        run_task(task, send, lambda: bool(_ASKED) or _STOP.is_set())
    except (Mistake, OSError) as error:
        if not is_mistake(error):
            raise
        return f"{task.arm}: {line(error, task.workdir)}"
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> bool:
    import jax

    return jax.default_backend() != "cpu"
