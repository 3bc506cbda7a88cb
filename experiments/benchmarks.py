"""The command `bench`: which benchmark, with which of its flags."""

import pathlib
from collections.abc import Sequence

from experiments import options
from experiments.request import known_size
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
        options.SIZE,
        options.ARMS,
        options.SET,
        options.SHAPE,
        options.SKEWS,
        options.DTYPE,
        options.WORKDIR,
    ):
        if flag.present and flag.name not in taken:
            known = ", ".join(f"--{name}" for name in taken) or "none"
            raise Mistake(f"--{flag.name}: is no flag of bench {words[0]} (valid: {known})")
    known_size(options.SIZE.value)
    from experiments import bench, bench_data, bench_groups, bench_layer

    directory = pathlib.Path(options.WORKDIR.value) if options.WORKDIR.value else None
    if words[0] == "layer":
        shapes = [bench_layer.shape(text) for text in options.SHAPE.value] or bench_layer.SHAPES
        for skew in options.SKEWS.value:
            if skew not in bench_layer.SKEWS:
                raise Mistake(f"--skews={skew}: {no_such('skew', skew, bench_layer.SKEWS)}")
        if options.DTYPE.value not in bench_layer.DTYPES:
            wrong = no_such("dtype", options.DTYPE.value, bench_layer.DTYPES)
            raise Mistake(f"--dtype={options.DTYPE.value}: {wrong}")
        bench_layer.layer(
            shapes, options.SKEWS.value, directory=directory, dtype=options.DTYPE.value
        )
    elif words[0] == "groups":
        bench_groups.groups(directory=directory)
    elif words[0] == "router":
        bench.router()
    elif words[0] == "data":
        bench_data.data(options.SIZE.value, options.SET.value, directory=directory)
    else:
        bench.step(
            options.SIZE.value,
            overrides=options.SET.value,
            directory=directory,
            arms=options.ARMS.value,
        )
