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
from typing import Any

from experiments.results.folder import Task
from experiments.runner import huge_pages, interrupts
from experiments.runner.mistakes import is_mistake, line
from experiments.runner.progress import Progress
from experiments.runner.task import run_task
from moe import files
from moe.devices import processes
from moe.registry import Mistake

IDLE = -1  # in the place of a seed
_ASKED: list[int] = []  # the signals that this process got, if it is one of those below


def dearest_first(tasks: Sequence[Task]) -> list[Task]:
    """The tasks by the FLOPs of a token, so that the last ones to end are short."""
    return sorted(tasks, key=_price, reverse=True)


def _price(task: Task) -> float:
    from moe.cost.account import flops_per_token

    return flops_per_token(task.experiment.model, task.experiment.data.sequence_length)


def side_by_side(tasks: Sequence[Task], jobs: int, on_log: Callable | None) -> int:
    """How many runs train at the same time, each in a process of its own if they are several."""
    if _here(jobs, on_log):
        return 1
    return min(jobs or _cores(), len(tasks) - 1 + len(tasks[-1].seeds))


def _here(jobs: int, on_log: Callable | None) -> bool:
    return on_log is not None or (not jobs and _accelerator())


def run(
    tasks: Sequence[Task],
    jobs: int,
    begin: Callable[[], None],
    on_log: Callable[[str, int, dict], None] | None = None,
) -> None:
    """Runs the tasks, dearest first, with a progress bar on a terminal and else lines.

    jobs and on_log are those of `experiments.runner.run.run`, which says what is raised; begin is
    called when the text of every task is there, and fits it.
    """
    with (
        Progress(tasks, [_price(task) for task in tasks]) as progress,
        interrupts.listening() as stopping,
    ):
        here = _here(jobs, on_log)
        if not here:
            progress.say("corpus, tokeniser and baselines (about a minute the first time)")
        stopping.nothing_to_save = processes.alone()
        _prepare(tasks, counted=not here)
        begin()
        stopping.nothing_to_save = False
        if here:
            for task in tasks:
                _run_here(task, progress, on_log, stopping)
        else:
            # The last arm goes seed by seed, so that no core waits long at the end.
            *first, last = tasks
            count = side_by_side(tasks, jobs, on_log)
            tasks = [*first, *(dataclasses.replace(last, seeds=(seed,)) for seed in last.seeds)]
            _run_processes(tasks, count, progress, stopping)
    if stopping.asked or progress.stopped:
        raise stopping.stopped(progress.stopped_line())


def _run_here(task: Task, progress: Progress, on_log, stopping: interrupts.Stopping) -> None:

    def take(seed, row):
        progress.take(task.arm, seed, row)
        if on_log is not None:
            on_log(task.arm, seed, row)

    run_task(task, take, lambda: processes.anyone(stopping.asked))


def _prepare(tasks: Sequence[Task], counted: bool) -> None:
    """Makes the text of all that is left to do, before anything of the runs is written.

    counted: its baselines too, for which processes would all wait.
    """
    from moe.analysis import ngram
    from moe.data.loader import load

    datasets = {}
    for task in tasks:
        if all(map(task.finished, task.seeds)):
            continue
        text = task.experiment.data, task.experiment.model.vocab_size
        if text not in datasets:
            datasets[text] = load(*text)
        task.experiment.check_text(datasets[text])
    for dataset in datasets.values() if counted else ():
        ngram.baselines(dataset)


def _run_processes(
    tasks: Sequence[Task], jobs: int, progress: Progress, stopping: interrupts.Stopping
) -> None:
    """Runs the tasks in `jobs` processes; the first that fails stops the others, then raises."""
    context = multiprocessing.get_context("spawn")
    rows, cores = context.Queue(), context.Queue()
    # Without locks, which a process that is killed would keep: whether to stop; and of each
    # process its number, its task, and its seed or IDLE.
    stop, doing = context.RawValue("b", False), context.RawArray("q", 3 * jobs)
    for j in range(jobs):
        cores.put(j)
    # A process cannot end before its rows are read, so a thread reads whatever else happens here.
    reader = threading.Thread(target=progress.read, args=(rows,), daemon=True)
    reader.start()

    def ask():
        stop.value = True

    stopping.also = ask
    if stopping.asked:
        ask()
    try:
        with (
            huge_pages.in_new_processes(),
            concurrent.futures.ProcessPoolExecutor(
                jobs, mp_context=context, initializer=_start, initargs=(rows, cores, stop, doing)
            ) as pool,
        ):
            with interrupts.ignored():  # a process inherits that: only this one hears Ctrl-C
                futures = [pool.submit(_work, task, n) for n, task in enumerate(tasks)]
            workers = multiprocessing.active_children()
            try:
                _finish(futures, workers, stopping)
            except BaseException as error:
                broken = isinstance(error, concurrent.futures.process.BrokenProcessPool)
                why = _killed(_gone(workers), tasks, doing) if broken else ""
                ask()
                pool.shutdown(wait=False, cancel_futures=True)
                at_once = isinstance(error, KeyboardInterrupt)  # a killed run resumes
                _end(workers, 0 if at_once else 30, doing)
                rows.cancel_join_thread()  # one that was killed may have held the queue
                if broken:
                    raise files.Failed(why) from error
                raise
    finally:
        stopping.also = lambda: None
        rows.put(None)
        reader.join(timeout=5)


def _finish(
    futures: Sequence[concurrent.futures.Future],
    workers: Sequence[Any],
    stopping: interrupts.Stopping,
) -> None:
    """Waits for all; raises Mistake, one line, for the first that made a mistake.

    Raises BrokenProcessPool when a process is gone. The pool says so by itself, but not always.
    """
    left = set(futures)
    try:
        while left:
            ended, left = concurrent.futures.wait(left, 1, concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                if mistake := future.result():
                    raise Mistake(mistake)
            if any(process.exitcode for process in workers):
                raise concurrent.futures.process.BrokenProcessPool
    except concurrent.futures.process.BrokenProcessPool:
        if not stopping.asked:  # a process that got the signal before it could listen
            raise


def _end(workers: Sequence[Any], seconds: float, doing: Sequence[int]) -> None:
    """Waits for processes that were told to stop and have something to save, then kills all."""
    deadline = time.monotonic() + seconds
    for process in workers:
        while time.monotonic() < deadline and process.pid in _busy(doing) and process.is_alive():
            process.join(0.1)
        process.kill()


def _busy(doing: Sequence[int]) -> set[int]:
    """The processes that have a run."""
    return {doing[n] for n in range(0, len(doing), 3) if doing[n + 2] != IDLE}


def _gone(workers: Sequence[Any]) -> list[Any]:
    """Those that have ended, waited for: one dies for a moment before its exit code is there."""
    ready = multiprocessing.connection.wait([process.sentinel for process in workers], 5)
    ended = [process for process in workers if process.sentinel in ready]
    for process in ended:
        process.join(5)
    return ended


def _killed(ended: Sequence[Any], tasks: Sequence[Task], doing: Sequence[int]) -> str:
    """Which run of which process came to which end, in one line, and how to go on."""
    own = {doing[n]: (tasks[doing[n + 1]].arm, doing[n + 2]) for n in range(0, len(doing), 3)}
    ends = {process.pid: process.exitcode for process in ended if process.exitcode}
    told = {pid: code for pid, code in ends.items() if code != -signal.SIGTERM}  # as others are
    lines = []
    for pid, code in (told or ends).items():
        arm, seed = own.get(pid, ("a process that had not begun", None))
        name = arm if seed is None else f"{arm} seed {seed}"
        lines.append(f"{name}: {_end_of(code)}")
    return f"{'; '.join(lines) or 'a process is gone'}; the same command resumes"


def _end_of(code: int) -> str:
    if code >= 0:
        return f"its process ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "a signal"
    why = ", most often for want of memory: lower --jobs or train.batch" * (name == "SIGKILL")
    return f"its process was killed by {name} (signal {-code}){why}"


def _start(rows, cores, stop, doing) -> None:
    """In a new process: claims its share of the cores before JAX starts its threads."""
    global _ROWS, _STOP, _DOING, _PLACE
    jobs = len(doing) // 3
    _ROWS, _STOP = rows, stop
    signal.signal(signal.SIGTERM, lambda number, frame: _ASKED.append(number))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    j = cores.get()
    _DOING, _PLACE = doing, slice(3 * j, 3 * j + 3)
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[j::jobs]
        if mine:
            os.sched_setaffinity(0, mine)


def _die_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(task: Task, n: int) -> str | None:
    """Runs a task, the nth; returns the line of a mistake, whose traceback would be lost."""

    def send(seed, row):
        _DOING[_PLACE] = os.getpid(), n, seed
        _ROWS.put((task.arm, seed, row))

    send(task.seeds[0], {"kind": "begun"})
    try:
        run_task(task, send, lambda: bool(_ASKED) or bool(_STOP.value))
    except Exception as error:
        if not is_mistake(error, task.workdir):
            raise
        return f"{task.arm}: {line(error, task.workdir)}"
    finally:
        _DOING[_PLACE] = os.getpid(), n, IDLE
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> bool:
    import jax

    return jax.default_backend() != "cpu"
