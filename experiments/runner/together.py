"""What a process does when one that trains with it is gone."""

import contextlib
import os
import sys
from collections.abc import Iterator

from experiments.runner.mistakes import is_mistake, line


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Ends this process, with one line and exit code 2, when a collective finds nobody there.

    At once, since leaving in order would wait for the process that is gone. A process that waits
    elsewhere, as in a save, is ended by JAX when heartbeats stay away
    (`moe.devices.processes.PATIENCE_S`).
    """
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        gone = f"another one is gone ({line(error)[:200]})"
        why = line(error) if is_mistake(error) else gone  # the former of this one's memory
        print(
            f"error: process {jax.process_index()} of {jax.process_count()}: {why}; "
            "the same commands, in all processes, resume",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)
