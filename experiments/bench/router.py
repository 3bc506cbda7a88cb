"""Every router's time beside that of the experts that it feeds."""

import dataclasses
import statistics
from typing import Any, NamedTuple

from experiments.bench.contract import Benchmark
from experiments.bench.timing import interleaved, measured, processor
from moe import registry
from moe.registry import Mistake


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


def act(given: Any) -> None:
    """Times all routers."""
    router()


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
        row = measured(name, seconds, "experts")
        one, T = routers[name], sizes.B * sizes.L
        as_is = getattr(one, "k", None) != sizes.k
        kind = type(calls[name]()[0]).__name__
        facts = {"plan": kind, "k": one.choices(sizes.E, T), "as_is": as_is}
        rows.append({"router": row.pop("arm")} | facts | row)
    _print_routers(rows, sizes, statistics.median(seconds["experts"]), repeats)
    return rows


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


BENCHMARK = Benchmark(act)
