"""Times training steps of all arms of a study, or all routers, in one process and in turn."""

import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from moe import registry
from moe.registry import Mistake


def step(
    size: str,
    study_name: str = "dense_topk_hash",
    overrides: Sequence[str] = (),
    repeats: int = 15,
    directory: pathlib.Path | None = None,
    arms: Sequence[str] | None = None,
) -> list[dict]:
    """Prints the median step of each arm, all unless named, over the baseline's, interleaved.

    Then the shares of its parts (`bench_parts`); writes both as step.json into `directory`.

    The data row is the time that the training loop waits for a batch from the prefetching stream.
    On CPU every arm runs in this process with all its cores; `run` gives each arm a core of its
    own. Returns the rows: arm, median_s, ratio (median of the ratios repeat by repeat), low and
    high (their quartiles).
    """
    import jax

    from experiments import bench_parts
    from experiments.request import resolve
    from moe.data.loader import load
    from moe.training import step

    study = registry.lookup("study", study_name)
    experiments = resolve(study_name, arms, size, overrides)
    if study.baseline not in experiments:
        raise Mistake(f"--arms={','.join(arms)}: must name {study.baseline}, the baseline")
    base = experiments[study.baseline]
    dataset = load(base.data, base.model.vocab_size)
    batches = dataset.stream(0, 0, base.train.batch)
    states = {arm: step.init(e, dataset.corpus) for arm, e in experiments.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ["data", *experiments]}
    for repeat in range(repeats + 2):
        tick = time.perf_counter()
        batch = next(batches)
        took = {"data": time.perf_counter() - tick}
        for arm, experiment in experiments.items():
            tick = time.perf_counter()
            states[arm], metrics = step.train_step(experiment, states[arm], batch)
            jax.block_until_ready((states[arm], metrics))
            took[arm] = time.perf_counter() - tick
        if repeat >= 2:  # the first compiles, the second still warms up
            for name, value in took.items():
                seconds[name].append(value)
    rows = [_row(name, seconds, study.baseline) for name in seconds]
    title = " ".join([study_name, f"--size={size}", *(f"--set {o}" for o in overrides)])
    _print(rows, experiments, base, title, repeats)
    shares = bench_parts.parts(experiments, dataset)
    save(directory, "step", {"title": title, "steps": rows, "parts": shares})
    return rows


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
    written[0].write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        written.append(directory / f"{name}.png")
        plot(written[1])
    print(f"\nwritten: {', '.join(map(str, written))}")


def _print(rows: list[dict], experiments: dict, base, title: str, repeats: int) -> None:
    import jax

    from moe.cost import account

    length = base.data.sequence_length
    tokens = base.train.batch * length
    print(f"{title}: one training step, {tokens} tokens, {repeats} repeats in turn")
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}\n")
    print(f"{'':<14} {'median':>10} {'ratio':>7} {'quartiles':>13} {'GFLOP/s':>8}")
    for row in rows:
        arm, rate = row["arm"], ""
        if arm in experiments:
            flops = 3 * tokens * account.flops_per_token(experiments[arm].model, length)
            rate = f"{flops / row['median_s'] / 1e9:>8.1f}"
        quartiles = f"{row['low']:.2f} to {row['high']:.2f}"
        milliseconds = f"{row['median_s'] * 1e3:.2f} ms"
        print(f"{arm:<14} {milliseconds:>10} {row['ratio']:>7.3f} {quartiles:>13} {rate}")


class Sizes(NamedTuple):
    """What `router` times at: B sequences of L tokens, width D, E experts of width F, k, V ids."""

    B: int = 8
    L: int = 512
    D: int = 512
    E: int = 64
    F: int = 512
    k: int = 8
    V: int = 32_768


_SIZES = Sizes()


def router(sizes: Sizes = _SIZES, repeats: int = 9, names: tuple[str, ...] = ()) -> list[dict]:
    """Prints, for each router, one routing step in training and its share of the experts' time.

    A step is keys, the router with an rng, the sums of its loss terms over the T = B * L tokens
    and its losses; the experts' time is one forward pass of SwiGLU over T * k rows, E groups of
    equal size. Neither has a backward pass. All routers, or those named, get sizes.k choices where
    their check allows it. Returns the rows: router, plan, k, as_is, median_s, ratio (median over
    repeats), low and high (quartiles of the ratio).
    """

    names = names or registry.names("router")
    routers = {name: _with_k(registry.lookup("router", name), sizes) for name in names}
    calls = {"experts": _experts_call(sizes)}
    calls |= {name: _router_call(routers[name], sizes) for name in names}
    seconds = interleaved(calls, repeats)
    rows = []
    for name in names:
        row = _row(name, seconds, "experts")
        one, T = routers[name], sizes.B * sizes.L
        as_is = getattr(one, "k", None) != sizes.k
        kind = type(calls[name]()[0]).__name__
        facts = {"plan": kind, "k": one.choices(sizes.E, T), "as_is": as_is}
        rows.append({"router": row.pop("arm")} | facts | row)
    _print_routers(rows, sizes, statistics.median(seconds["experts"]), repeats)
    return rows


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


def _with_k(one, sizes: Sizes):
    """The router with k choices, or as it is where it has no k or refuses that one."""
    if "k" not in {field.name for field in dataclasses.fields(one)}:
        return one
    changed = dataclasses.replace(one, k=sizes.k)
    try:
        changed.check("router", sizes.E)
    except Mistake:
        return one
    return changed


def _router_call(one, sizes: Sizes):
    """A function without arguments: one routing step on random tokens, compiled once."""
    import jax

    B, L, D, E, _, _, V = sizes
    keys = jax.random.split(jax.random.key(0), 5)
    params = jax.jit(lambda key: one.init(key, D, E, V))(keys[0])
    x_TD = jax.random.normal(keys[1], (B * L, D))
    id_BL = jax.random.randint(keys[2], (B, L), 0, V)
    label_BL = jax.random.randint(keys[3], (B, L), 0, getattr(one, "labels", 1))

    @jax.jit
    def step(params, x_TD, id_BL, label_BL, rng):
        key_T = one.keys(id_BL, label_BL).reshape(B * L)
        routing = one(params, x_TD, key_T, E, rng)
        sums = jax.tree.map(lambda a: a.sum(axis=0), routing.terms)
        return routing.plan, one.losses(sums, B * L), sums, routing.metrics, routing.stats

    return lambda: step(params, x_TD, id_BL, label_BL, keys[4])


def _experts_call(sizes: Sizes):
    """A function without arguments: the forward pass of all experts, compiled once."""
    import jax

    from moe.experts.feed_forward import SwiGLU

    B, L, D, E, F, k, _ = sizes
    experts = SwiGLU(F)
    params = jax.jit(lambda key: experts.init(key, E, D))(jax.random.key(0))
    x_ECD = jax.random.normal(jax.random.key(1), (E, B * L * k // E, D))
    step = jax.jit(experts)
    return lambda: step(params, x_ECD)


def _print_routers(rows: list[dict], sizes: Sizes, experts_s: float, repeats: int) -> None:
    import jax

    T, limit = sizes.B * sizes.L, 0.10
    print(f"routing of {T} tokens, D={sizes.D}, E={sizes.E}: {repeats} repeats in turn")
    print(f"{processor()}, JAX {jax.__version__}")
    rows_read = f"{T * sizes.k} rows through SwiGLU, F={sizes.F}"
    print(f"experts, forward: {experts_s * 1e3:.1f} ms for {rows_read}\n")
    print(f"{'router':<19} {'median':>10} {'share':>7} {'quartiles':>15} {'k':>6}")
    for row in rows:
        milliseconds = f"{row['median_s'] * 1e3:.2f} ms"
        quartiles = f"{row['low']:.1%} to {row['high']:.1%}"
        note = " as it is" if row["as_is"] else ""
        print(
            f"{row['router']:<19} {milliseconds:>10} {row['ratio']:>7.1%} {quartiles:>15} "
            f"{row['k']:>6.3g}{note}"
        )
    slow = [r["router"] for r in rows if r["ratio"] > limit and r["plan"] == "Choices"]
    others = [r["router"] for r in rows if r["ratio"] > limit and r["plan"] != "Choices"]
    print(f"\ntarget: at most {limit:.0%} for every token-choice router")
    print(f"above it: {', '.join(slow) or 'none'}; of other kinds: {', '.join(others) or 'none'}")


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


def _row(name: str, seconds: dict[str, list[float]], baseline: str) -> dict:
    ratios = [a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "arm": name,
        "median_s": statistics.median(seconds[name]),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
    }
