"""Times every dispatcher against the matmul peak, the dense twin and, if there, peers.

Nothing here reads data. A layer is dispatch, experts and combine on a given plan, so that all see
the same load; routing has a benchmark of its own.
"""

import functools
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.bench.cases import Case, Shape, dense_case, layer_inputs, make_plan, shape
from experiments.bench.contract import Benchmark, folder
from experiments.bench.timing import interleaved, processor, save, timed_calls
from moe import registry
from moe.registry import Mistake, no_such

SHAPES = (
    Shape(4096, 512, 2048, 8, 2),
    Shape(4096, 512, 1024, 32, 4),
    Shape(4096, 512, 256, 64, 8),
)
SKEWS = ("uniform", "zipf", "one", "empty")
DTYPES = {"float32": "float32", "bf16": "bfloat16"}

flags.DEFINE_multi_string("shape", [], "T,D,F,E,k instead of the usual ones; repeatable")
flags.DEFINE_list("skews", ["uniform"], f"loads, separated by commas: {', '.join(SKEWS)}")
flags.DEFINE_string("dtype", "float32", f"of weights and tokens: {', '.join(DTYPES)}")


def act(given: Any) -> None:
    """Times the layers of the shapes, loads and numbers that the flags name."""
    shapes = [shape(text) for text in given.shape] or SHAPES
    for skew in given.skews:
        if skew not in SKEWS:
            raise Mistake(f"--skews={skew}: {no_such('skew', skew, SKEWS)}")
    if given.dtype not in DTYPES:
        raise Mistake(f"--dtype={given.dtype}: {no_such('dtype', given.dtype, DTYPES)}")
    layer(shapes, given.skews, directory=folder(given.workdir), dtype=given.dtype)


def layer(
    shapes: Sequence[Shape] = SHAPES,
    skews: Sequence[str] = ("uniform",),
    repeats: int = 7,
    directory: pathlib.Path | None = None,
    dtype: str = "float32",
) -> list[dict]:
    """Prints a table for each shape and skew; writes layer.json and layer.png into `directory`.

    Everything of a table runs in turn, `repeats` times, with weights and tokens in one of DTYPES
    and gates in float32. Returns the rows: shape, skew, dtype, device, mechanism, forward_s and
    both_s (medians; both is forward and backward), gflops (useful, of both), peak (the share of a
    plain matrix product of that size in the same run), ratio (median over repeats of both to the
    dense twin's), temp_bytes (what both allocates, its gradients included), drop_rate.
    """
    # So that peers find room on a GPU; it must precede the first use of a device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    rows = []
    for one in shapes:
        for skew in skews:
            found = _table(one, skew, repeats, DTYPES[dtype])
            _print(found, one, skew, repeats)
            rows += found
    save(directory, "layer", rows, lambda path: _plot(rows, path))
    return rows


def _table(one: Shape, skew: str, repeats: int, dtype: str) -> list[dict]:
    from experiments.bench import peers

    cases = {"matmul": _matmul(one, dtype), "dense": dense_case(one, dtype)}
    plan = make_plan(one, skew)
    for name in mechanisms():
        cases[name] = _mechanism(registry.lookup("dispatch", name), one, plan, dtype)
    cases |= {name: Case(*facts) for name, facts in peers.mixtral(one, plan, dtype).items()}
    for name, facts in peers.lucidrains(one, dtype).items():
        cases[name] = Case(*facts, matrices=2)
    calls = {
        (name, which): getattr(case, which)
        for name, case in cases.items()
        for which in ("forward", "both")
    }
    seconds = interleaved(calls, repeats)
    median = {key: statistics.median(found) for key, found in seconds.items()}
    # Forward and backward are three times forward, whose FLOPs are those of three matrices.
    rate = {n: case.matrices * one.flops / median[n, "both"] for n, case in cases.items()}
    rows = []
    for name, case in cases.items():
        pairs = zip(seconds[name, "both"], seconds["dense", "both"], strict=True)
        ratios = [a / b for a, b in pairs]
        rows.append(
            {
                "shape": list(one),
                "skew": skew,
                "dtype": dtype,
                "device": processor(),
                "mechanism": name,
                "forward_s": median[name, "forward"],
                "both_s": median[name, "both"],
                "gflops": rate[name] / 1e9,
                "peak": rate[name] / rate["matmul"],
                "ratio": statistics.median(ratios),
                "temp_bytes": case.temp_bytes,
                "drop_rate": case.drop_rate,
            }
        )
    return rows


def mechanisms() -> list[str]:
    """The dispatchers for one device, each under its first name.

    The oracle is no mechanism, and `auto` takes another's.
    """
    from moe.dispatch.limited import Parallel

    names = [name for name in registry.names("dispatch") if name not in ("oracle", "auto")]
    first = {registry.lookup("dispatch", name): name for name in reversed(names)}
    return [name for one, name in reversed(first.items()) if not isinstance(one, Parallel)]


def _matmul(one: Shape, dtype: str) -> Case:
    """Plain products with as many FLOPs as the experts have: three of T x D x kF, and backward."""
    import jax

    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (one.T, one.D), dtype)
    w = jax.random.normal(keys[1], (one.D, one.k * one.F), dtype)
    once = jax.jit(lambda x, w: x @ w)

    def times(count):
        for _ in range(count):
            jax.block_until_ready(once(x, w))

    return Case(functools.partial(times, 3), functools.partial(times, 9))


def _mechanism(dispatch, one: Shape, plan, dtype: str) -> Case:
    import jax

    from moe.dispatch.parallel import serve
    from moe.experts.contract import Pool

    experts, params, x_TD = layer_inputs(one, one.F, one.E, dtype)
    G = dispatch.groups(one.T)
    lead = (one.T,) if G == 1 else (G, one.T // G)

    def run(params, x_TD, gate_TK, plan):
        made = plan.replace(gate_TK=gate_TK)
        made, x = jax.tree.map(lambda a: a.reshape(*lead, a.shape[1]), (made, x_TD))
        return serve(dispatch, made, x, Pool(params, experts, one.E), G)

    stats = jax.jit(run)(params, x_TD, plan.gate_TK, plan)[1]
    dropped = float(stats.dropped_K.sum() / stats.load_E.sum())
    calls = timed_calls(lambda *a: run(*a)[0], params, x_TD, plan.gate_TK, plan=plan)
    return Case(*calls, drop_rate=dropped)


def _print(rows: list[dict], one: Shape, skew: str, repeats: int) -> None:
    import jax

    T, D, F, E, k = one
    print(f"\nT={T} D={D} F={F} E={E} k={k}, load {skew}: {repeats} repeats in turn")
    facts = f"{rows[0]['device']}, JAX {jax.__version__}, {rows[0]['dtype']}"
    print(f"{facts}, SwiGLU; GFLOP/s are useful ones\n")
    head = ("forward", "and back", "GFLOP/s", "of peak", "/ dense", "memory", "dropped")
    print(f"{'':<14}" + "".join(f"{word:>11}" for word in head))
    for row in rows:
        memory = f"{row['temp_bytes'] / 1e6:.0f} MB" if row["temp_bytes"] else ""
        print(
            f"{row['mechanism']:<14}{row['forward_s'] * 1e3:>8.1f} ms{row['both_s'] * 1e3:>8.1f} ms"
            f"{row['gflops']:>11.1f}{row['peak']:>11.0%}{row['ratio']:>11.2f}{memory:>11}"
            f"{row['drop_rate']:>11.1%}"
        )


def _plot(rows: list[dict], path: pathlib.Path) -> None:
    """Share of the matmul peak of every mechanism, a group of bars for each shape and skew."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from experiments.figures.palette import SERIES

    cases = list(dict.fromkeys((tuple(row["shape"]), row["skew"]) for row in rows))
    names = [n for n in dict.fromkeys(row["mechanism"] for row in rows) if n != "matmul"]
    figure, axes = pyplot.subplots(figsize=(2.2 + 2.6 * len(cases), 3.6), layout="constrained")
    for i, name in enumerate(names):
        mine = {(tuple(r["shape"]), r["skew"]): r["peak"] for r in rows if r["mechanism"] == name}
        places = [c + (i - len(names) / 2 + 0.5) * 0.8 / len(names) for c in range(len(cases))]
        heights = [mine.get(case, 0.0) for case in cases]
        axes.bar(places, heights, 0.72 / len(names), label=name, color=SERIES[i % len(SERIES)])
    labels = [f"D={s[1]} F={s[2]}\nE={s[3]} k={s[4]}, {skew}" for s, skew in cases]
    axes.set_xticks(range(len(cases)), labels)
    axes.set_ylabel("useful FLOP/s over those of\na plain matrix product")
    axes.set_ylim(0, 1)
    axes.legend(ncols=min(len(names), 4), fontsize="small", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


BENCHMARK = Benchmark(
    act,
    flags=("shape", "skews", "dtype", "workdir"),
    examples=("--shape=4096,512,1024,32,4 --skews=uniform,zipf", "--dtype=bf16"),
)
