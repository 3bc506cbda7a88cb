"""Parameters of a checkpoint, for analysis."""

import os
from typing import Any

import jax

from moe.checkpoint import places
from moe.checkpoint.format import Damaged, open_orbax, read_arrays, read_record
from moe.params import nested
from moe.registry import Mistake


def restore_params(directory: str | os.PathLike, step: int | str | None = None) -> Any:
    """The parameters alone, verified, on one device; for analysis.

    Args:
      directory: of the checkpoints, RUN/checkpoints or gs://BUCKET/PATH/ARM/seedN.
      step: a step, "best" for the lowest held-out loss, None for the newest.

    Raises Mistake, one line, when there is no such checkpoint or it is damaged.
    """
    return restore(directory, step)[0]


def restore(
    directory: str | os.PathLike, step: int | str | None = None
) -> tuple[Any, dict[str, Any]]:
    """The parameters, as `restore_params` gives them, and the checkpoint's record."""
    place = places.at(directory)
    orbax = open_orbax()
    try:
        chosen = _chosen(orbax, place, step)
        record = read_record(orbax, place, chosen)
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        state: dict = dict.fromkeys(record["empty"], {})
        for name, leaf in record["leaves"].items():
            state[name] = jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"], sharding=here)
        wanted = {"params": nested(state)["params"]}
        found = read_arrays(orbax, place, chosen, wanted, record["leaves"])
        return found["params"], record
    except Damaged as error:
        raise Mistake(f"{place}: damaged ({error}); name another step") from error
    finally:
        orbax.close()


def _chosen(orbax: Any, place: Any, step: int | str | None) -> int:
    """The step that is meant, of a checkpoint that is there."""
    found, chosen = place.steps(), step
    if step == "best":
        losses = [(read_record(orbax, place, s)["loss"], s) for s in found]
        known = [(loss, s) for loss, s in losses if loss is not None]
        chosen = min(known)[1] if known else "best"
    elif step is None and found:
        chosen = found[-1]
    if not isinstance(chosen, int) or chosen not in found:
        shown, wanted = ", ".join(map(str, found)) or "none", "newest" if chosen is None else chosen
        raise Mistake(f"{place}: step={wanted}: no such checkpoint (valid: {shown})")
    return chosen
