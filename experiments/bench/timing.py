"""How benchmarks measure: calls in turn, medians, one file of results."""

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from moe import files


def save(
    directory: pathlib.Path | None,
    name: str,
    found: Any,
    plot: Callable[[pathlib.Path], None] | None = None,
) -> None:
    """Writes NAME.json, and NAME.png by `plot`, into the folder, if there is one; says so."""
    if directory is None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    written = [directory / f"{name}.json"]
    files.write(written[0], files.strict(found, indent=1) + "\n")
    if plot is not None:
        written.append(directory / f"{name}.png")
        plot(written[1])
    print(f"\nwritten: {', '.join(map(str, written))}")


def interleaved(calls: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, list[float]]:
    """Seconds of every call, `repeats` times in turn, after two rounds that compile and warm up."""
    import jax

    seconds = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            tick = time.perf_counter()
            jax.block_until_ready(call())
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - tick)
    return seconds


def processor() -> str:
    """The name of the accelerator, or of the CPU with its number of cores."""
    import os
    import platform

    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    table = pathlib.Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {named[0] if named else platform.machine()}"


def measured(name: str, seconds: dict[str, list[float]], baseline: str) -> dict:
    ratios = [a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "arm": name,
        "median_s": statistics.median(seconds[name]),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
    }


def timed_calls(function: Callable, *arguments, plan=()) -> tuple[Callable, Callable, int]:
    """Compiled forward and forward-and-backward calls, and the bytes that the latter allocates.

    plan: a last argument without gradient; as a constant, the compiler would sort it.
    """
    import jax
    import jax.numpy as jnp

    count = len(arguments)
    arguments += (plan,) if plan else ()

    def loss(*arguments):
        return jnp.sum(jnp.square(function(*arguments).astype(jnp.float32)))

    forward = jax.jit(function)
    both = jax.jit(jax.grad(loss, tuple(range(count)))).lower(*arguments).compile()
    memory = both.memory_analysis()
    temp_bytes = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else None
    return lambda: forward(*arguments), lambda: both(*arguments), temp_bytes
