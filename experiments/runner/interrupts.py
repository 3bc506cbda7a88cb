"""SIGTERM and Ctrl-C: the first asks the runs to save and stop, the second stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A person's Ctrl-C stopped the runs, which have saved; the message says how to resume."""

    code: ClassVar[int] = 0  # of the command


class Preempted(Interrupted):
    """The system did, by SIGTERM here or to another of their processes: start them again."""

    code = 75  # EX_TEMPFAIL


class Stopping:
    """Whether somebody asked to stop, and who."""

    def __init__(self):
        """Nobody has."""
        self.asked = self.by_a_person = False
        self.also: Callable[[], None] = lambda: None  # called by the first signal
        self.nothing_to_save = False  # then the first signal stops at once too
        self._telling = self._again = False

    def take(self, number: int, frame: object) -> None:
        """Handles a signal. One that comes while the first is told waits: `also` may hold locks."""
        if self._telling:
            self._again = True
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = self._telling = True
        self.by_a_person = number == signal.SIGINT
        if self.nothing_to_save:
            raise self.stopped("stopped before the first step; the same command begins again")
        os.write(2, b"stopping: the runs save their step; once more to stop at once\n")
        self.also()
        self._telling = False
        if self._again:
            raise KeyboardInterrupt

    def stopped(self, message: str) -> Interrupted:
        """What to raise when the runs have stopped."""
        return Interrupted(message) if self.by_a_person else Preempted(message)


@contextlib.contextmanager
def listening() -> Iterator[Stopping]:
    """Takes the signals while the block runs, where this thread may decide that."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stopping.take) for number in _SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Leaves SIGINT to nobody while the block runs; processes started inside inherit that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
