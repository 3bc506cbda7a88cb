"""Where the time of a run went, and its share spent on steps (goodput, arXiv 2502.06982)."""

import contextlib
import time

KINDS = ("starting", "compiling", "stepping", "data", "evaluating", "saving")


class Clock:
    """Adds up seconds by kind, in this process; what is not measured is "other"."""

    def __init__(self):
        """Starts now."""
        self._began = time.perf_counter()
        self._seconds: dict[str, float] = {kind: 0.0 for kind in KINDS}

    @contextlib.contextmanager
    def __call__(self, kind: str):
        """Counts the time inside as one of KINDS, also when the block fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[kind] += time.perf_counter() - began

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def seconds(self) -> dict[str, float]:
        """Seconds by kind; they add up to the wall time."""
        wall, found = self.wall_s, dict(self._seconds)
        return found | {"other": wall - sum(found.values())}


def goodput(seconds: dict[str, float]) -> float:
    """The share of steps in all seconds."""
    return seconds["stepping"] / sum(seconds.values())


def line(seconds: dict[str, float]) -> str:
    """One line with what took at least a tenth of a second, longest first."""
    parts = sorted(((s, kind) for kind, s in seconds.items() if s >= 0.1), reverse=True)
    shown = ", ".join(f"{kind} {s:.1f} s" for s, kind in parts)
    return f"goodput {goodput(seconds):.0%}" + f" ({shown})" * bool(shown)
