"""The command `bench`: which benchmark, with which of its flags."""

import pathlib
from collections.abc import Sequence

from experiments.bench import cases, router
from experiments.command import flags
from experiments.select import known_size
from moe.registry import Mistake, no_such


def run(words: Sequence[str]) -> None:
    """Runs the benchmark that the only word names; raises Mistake, one line, for a mistake."""
    valid = {
        "data": ("size", "set", "workdir"),
        "groups": ("workdir",),
        "layer": ("shape", "skews", "dtype", "workdir"),
        "router": (),
        "step": ("size", "arms", "set", "workdir"),
    }
    if words[0] not in valid:
        raise Mistake(f"bench {words[0]}: {no_such('benchmark', words[0], valid)}")
    taken = valid[words[0]]
    for flag in (
        flags.SIZE,
        flags.ARMS,
        flags.SET,
        flags.SHAPE,
        flags.SKEWS,
        flags.DTYPE,
        flags.WORKDIR,
    ):
        if flag.present and flag.name not in taken:
            known = ", ".join(f"--{name}" for name in taken) or "none"
            raise Mistake(f"--{flag.name}: is no flag of bench {words[0]} (valid: {known})")
    known_size(flags.SIZE.value)
    from experiments.bench import data, groups, layer, step

    directory = pathlib.Path(flags.WORKDIR.value) if flags.WORKDIR.value else None
    if words[0] == "layer":
        shapes = [cases.shape(text) for text in flags.SHAPE.value] or layer.SHAPES
        for skew in flags.SKEWS.value:
            if skew not in layer.SKEWS:
                raise Mistake(f"--skews={skew}: {no_such('skew', skew, layer.SKEWS)}")
        if flags.DTYPE.value not in layer.DTYPES:
            wrong = no_such("dtype", flags.DTYPE.value, layer.DTYPES)
            raise Mistake(f"--dtype={flags.DTYPE.value}: {wrong}")
        layer.layer(shapes, flags.SKEWS.value, directory=directory, dtype=flags.DTYPE.value)
    elif words[0] == "groups":
        groups.groups(directory=directory)
    elif words[0] == "router":
        router.router()
    elif words[0] == "data":
        data.data(flags.SIZE.value, flags.SET.value, directory=directory)
    else:
        step.step(
            flags.SIZE.value,
            overrides=flags.SET.value,
            directory=directory,
            arms=flags.ARMS.value,
        )
