"""Compiles a training step for TPU slices that are not there, with libtpu from the package index.

Says what XLA says: bytes on a device, collectives and FLOPs of a step. Nothing runs.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from moe.cost import account, compiled
from moe.devices.mesh import Mesh, in_use
from moe.environment import wrong_libtpu
from moe.experiment import Experiment
from moe.files import words
from moe.registry import Mistake, no_such

CHIP_BYTES = {  # high-bandwidth memory of a chip, from Google's documentation of each generation
    name: gibibytes * 2**30
    for name, gibibytes in {
        "v4": 32,
        "v5e": 16,
        "v5p": 95,
        "v6e": 32,
        "tpu7x": 192,
    }.items()
}
# The two cores of a v4 chip are one device, as jax finds them on a real one; of v5p libtpu knows.
_AS_ONE_DEVICE = {"v4": {"chip_config_name": "megacore"}}


@dataclasses.dataclass(frozen=True)
class Report:
    """A compiled training step; bytes are those of one device.

    Attributes:
      devices: of the slice; chips of some generations are two devices.
      arguments: state and batch.
      temporaries: what the step needs besides, the program's own code included.
      capacity: memory of a device.
      collectives: those of one step.
      flops: of one step on one device, by `moe/cost`: a backward pass counts as two forward ones.
    """

    devices: int
    arguments: int
    temporaries: int
    capacity: int
    collectives: tuple[compiled.Collective, ...]
    flops: float

    @property
    def total(self) -> int:
        """The most that a device holds."""
        return self.arguments + self.temporaries

    @property
    def fits(self) -> bool:
        """Whether that is no more than a device has."""
        return self.total <= self.capacity


def slice_devices(target: str) -> list[Any]:
    """The devices of a slice such as v5e:4x4; raises Mistake with one line."""
    name, _, shape = target.partition(":")
    if name not in CHIP_BYTES:
        raise Mistake(f"--compile-for={target}: {no_such('TPU', name, CHIP_BYTES)}")
    if not re.fullmatch(r"[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){1,2}", shape, re.ASCII):
        raise Mistake(f"--compile-for={target}: must be a TPU and a shape, as in v5e:4x4")
    if importlib.util.find_spec("libtpu") is None:
        raise Mistake(f"--compile-for={target}: needs libtpu; make install WITH=tpu")
    wrong = wrong_libtpu()
    if wrong:
        raise Mistake(f"--compile-for={target}: {wrong}")
    import jax
    from jax.experimental import topologies

    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }.items():
        os.environ.setdefault(key, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=target, **_AS_ONE_DEVICE.get(name, {})
        ).devices
    except Exception as error:  # of a type that differs between versions
        reason = words(error)
        raise Mistake(f"--compile-for={target}: libtpu knows no such slice: {reason}") from error


def compile_step(experiment: Experiment, mesh: Mesh, target: str, devices: list[Any]) -> Report:
    """Compiles the training step for the devices of a slice."""
    from moe.training import step

    name, _, shape = target.partition(":")
    chips = math.prod(int(side) for side in shape.split("x"))
    with in_use(mesh, devices):
        program = step.lower(experiment).compile()
    memory: Any = program.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes + outputs
    tokens = experiment.train.batch * experiment.data.sequence_length
    return Report(
        devices=len(devices),
        arguments=memory.argument_size_in_bytes,
        temporaries=temporaries,
        capacity=CHIP_BYTES[name] * chips // len(devices),
        collectives=tuple(compiled.collectives(program.as_text() or "")),
        flops=3 * account.account(experiment).flops_per_token * tokens / len(devices),
    )
