"""SIGTERM and Ctrl-C: the first asks the runs to save and stop, the second stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The runs were asked to stop and did; the message says how to resume."""


class Request:
    """Whether somebody asked to stop."""

    def __init__(self):
        """Nobody has."""
        self.asked = False
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
        if self.nothing_to_save:
            raise Interrupted("stopped before the first step; the same command begins again")
        os.write(2, b"stopping: the runs save their step; once more to stop at once\n")
        self.also()
        self._telling = False
        if self._again:
            raise KeyboardInterrupt


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Takes the signals while the block runs, where this thread may decide that."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.take) for number in _SIGNALS}
    try:
        yield request
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
