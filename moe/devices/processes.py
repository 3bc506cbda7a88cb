"""Several processes that train together: how they join and agree."""

from collections.abc import Sequence

from moe.registry import Mistake

PATIENCE_S = 60  # until processes give up one that does not answer
MOST = 2**20


def join(coordinator: str, count: int | None, number: int | None) -> None:
    """Makes this process number `number` of `count` that train together.

    Args:
      coordinator: HOST:PORT of process 0, or "auto": the cluster (SLURM, Kubernetes, Cloud TPU,
        Open MPI) knows it, and both numbers.

    Raises Mistake with one line.
    """
    import jax

    patience = dict.fromkeys(("heartbeat_timeout_seconds", "shutdown_timeout_seconds"), PATIENCE_S)
    if coordinator == "auto":
        if (count, number) != (None, None):
            raise Mistake("--coordinator=auto: takes no --num_processes and no --process_id")
        try:
            jax.distributed.initialize(**patience)
        except (ValueError, RuntimeError) as error:
            raise Mistake(
                "--coordinator=auto: no cluster is found here; name --coordinator=HOST:PORT, "
                f"--num_processes and --process_id ({error})"
            ) from error
        return
    host, _, port = coordinator.rpartition(":")
    numbered = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    if host.split() != [host] or not numbered:
        raise Mistake(f"--coordinator={coordinator}: must be HOST:PORT of process 0, or auto")
    if count is None or number is None:
        missing = "num_processes" if count is None else "process_id"
        raise Mistake(f"--{missing}: is missing beside --coordinator={coordinator}")
    if not 1 <= count <= MOST:
        raise Mistake(f"--num_processes={count}: must be in [1, {MOST}]")
    if not 0 <= number < count:
        raise Mistake(f"--process_id={number}: must be in [0, num_processes={count})")
    jax.distributed.initialize(coordinator, count, number, **patience)


def is_first() -> bool:
    """Whether this process writes what one process writes: it is alone, or number 0."""
    import jax

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def alone() -> bool:
    """Whether no other process trains with this one."""
    import jax

    return jax.process_count() == 1


def agreed(values: Sequence[bool]) -> list[bool]:
    """What process 0 says, on every process."""
    if alone():
        return list(values)
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(np.array(values)).tolist()


def anyone(value: bool) -> bool:
    """Whether it is true of any process, on every process."""
    if alone():
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(value)).any())
