"""Meshes by name: `data:2,expert:4`, which of them an experiment can run on, and their devices.

Devices may belong to several processes, on several hosts: `join` before the first use of a device.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moe.devices.sharding import AXES, undivided
from moe.registry import Mistake, no_such

LARGEST = 2**20  # devices


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How many devices lie along each axis.

    Attributes:
      data: parts of a batch.
      fsdp: parts of a batch, whose devices also share parameters and optimizer slots by width.
      expert: parts of a batch, whose devices also share the experts.
      tensor: parts of heads, of hidden widths and of the vocabulary.
    """

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    tensor: int = 1

    @property
    def size(self) -> int:
        """Devices."""
        return math.prod(dataclasses.astuple(self))

    @property
    def batch_parts(self) -> int:
        """Into how many parts a batch is split."""
        return self.data * self.fsdp * self.expert

    def axes(self) -> dict[str, int]:
        """Axis -> size, of the axes that split anything; {"data": 1} where none does."""
        found = {axis: n for axis, n in dataclasses.asdict(self).items() if n > 1}
        return found or {"data": 1}

    def __str__(self):
        return ",".join(f"{axis}:{n}" for axis, n in self.axes().items())


def parse(text: str) -> Mesh:
    """Reads `data:2,expert:4`; raises Mistake with one line."""
    axes = {}
    for part in text.split(","):
        axis, colon, number = (word.strip() for word in part.partition(":"))
        if not colon:
            raise Mistake(f"--mesh={text}: must be auto or AXIS:SIZE,..., as in data:2,expert:4")
        if axis not in AXES:
            raise Mistake(f"--mesh={text}: {no_such('axis', axis, AXES)}")
        if axis in axes:
            raise Mistake(f"--mesh={text}: names {axis} twice")
        short = number.isascii() and number.isdigit() and len(number) <= 9
        if not short or not 1 <= int(number) <= LARGEST:
            raise Mistake(
                f"--mesh={text}: {axis}:{number} must be a number of devices, as in {axis}:2"
            )
        axes[axis] = int(number)
    if math.prod(axes.values()) > LARGEST:
        raise Mistake(f"--mesh={text}: must have at most {LARGEST} devices")
    return Mesh(**axes)


def obstacle(mesh: Mesh, experiment: Any) -> str | None:
    """The first reason why the experiment cannot run on the mesh, or None."""
    if reason := undivided(experiment.sizes(), dataclasses.asdict(mesh)):
        return reason
    try:
        experiment.check_drops(mesh.expert)
    except Mistake as error:
        return str(error)
    return None


def _factorizations(count: int, axes: int = 4) -> Iterator[tuple[int, ...]]:
    """All tuples of `axes` numbers with that product, the first one falling."""
    if axes == 1:
        yield (count,)
        return
    for first in sorted((d for d in range(1, count + 1) if count % d == 0), reverse=True):
        for rest in _factorizations(count // first, axes - 1):
            yield (first, *rest)


def possible(experiments: Sequence[Any], count: int) -> list[Mesh]:
    """The meshes of `count` devices on which all the experiments run; data-parallel ones first."""
    meshes = (Mesh(d, f, e, t) for d, e, f, t in _factorizations(count))
    return [m for m in meshes if not any(obstacle(m, experiment) for experiment in experiments)]


def nearest(mesh: Mesh, experiments: Sequence[Any], count: int | None, most: int = 3) -> list[Mesh]:
    """The possible meshes most like this one: of `count` devices, or of any number up to its own.

    Those of as many devices come first; distance is the sum over axes of |log2| of the ratio of
    sizes.
    """
    counts = [count] if count else range(1, min(mesh.size, 64) + 1)
    found = [candidate for n in counts for candidate in possible(experiments, n)]

    def distance(other):
        pairs = zip(dataclasses.astuple(mesh), dataclasses.astuple(other), strict=True)
        return other.size != mesh.size, sum(abs(math.log2(a / b)) for a, b in pairs), -other.size

    return sorted(found, key=distance)[:most]


def choose(text: str, experiments: Mapping[str, Any], count: int | None) -> Mesh:
    """The mesh that the text names, or for "auto" the most data-parallel one of `count` devices.

    Args:
      experiments: arm -> experiment; all must run on it.
      count: devices that are there; None if as many can be made as it takes.

    Raises Mistake, one line that names the nearest possible meshes.
    """
    every = list(experiments.values())
    if text == "auto":
        meshes = possible(every, count or 1)
        if not meshes:
            near = _near(Mesh(count or 1), every)
            raise Mistake(f"--mesh=auto: no mesh of {count} devices fits all arms{near}")
        return meshes[0]
    mesh = parse(text)
    for arm, experiment in experiments.items():
        reason = obstacle(mesh, experiment)
        if reason:
            place = f" (arm {arm})" if len(experiments) > 1 else ""
            raise Mistake(f"--mesh={text}: {reason}{place}{_near(mesh, every, count)}")
    if count not in (None, mesh.size):
        raise Mistake(
            f"--mesh={text}: needs {mesh.size} devices, {count} are there"
            f"{_near(mesh, every, count)}"
        )
    return mesh


def _near(mesh: Mesh, experiments: Sequence[Any], count: int | None = None) -> str:
    found = nearest(mesh, experiments, count) or nearest(mesh, experiments, None)
    return f"; nearest possible: {', '.join(map(str, found)) or 'none'}"


def provide(text: str, experiments: Mapping[str, Any], processes: int | None = 1) -> Mesh:
    """Chooses the mesh for the devices of all processes; on CPU makes as many as it needs.

    Comes before the first use of a device, since their number is then settled.

    Args:
      processes: how many were joined; None if a cluster knows, and then no devices are made: on
        CPU $JAX_NUM_CPU_DEVICES says how many each process has.
    """
    import jax

    wanted = 0
    if text != "auto":
        wanted = choose(text, experiments, None).size
        with contextlib.suppress(RuntimeError):  # devices are in use already: what is there counts
            if processes is not None:
                jax.config.update("jax_num_cpu_devices", -(-wanted // processes))
    devices = jax.devices()
    enough = text != "auto" and len(devices) >= wanted
    spare = devices[0].platform == "cpu" and jax.process_count() == 1 and enough
    return choose(text, experiments, None if spare else len(devices))


def in_use(mesh: Mesh, devices: Sequence[Any] | None = None):
    """A context in which the mesh is in use, over the first of the devices, or those given.

    Neighbours in the mesh are neighbours in a TPU's torus as far as may be; an axis of the torus
    is split where the mesh asks for it, which `jax.make_mesh` does on TPU v5e only.
    """
    import jax
    from jax.experimental import mesh_utils

    axes = mesh.axes()
    auto = (jax.sharding.AxisType.Auto,) * len(axes)
    devices = jax.devices()[: mesh.size] if devices is None else devices
    placed = mesh_utils.create_device_mesh(
        tuple(axes.values()), devices, allow_split_physical_axes=True
    )
    return jax.set_mesh(jax.sharding.Mesh(placed, tuple(axes), axis_types=auto))


def planned(mesh: Mesh):
    """A context in which the mesh is in use and has no devices: for shapes and what they hold."""
    import jax

    axes = mesh.axes()
    auto = (jax.sharding.AxisType.Auto,) * len(axes)
    return jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=auto)
    )
