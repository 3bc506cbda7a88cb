"""What routing groups cost and save under `einsum`: drops, FLOPs and time against their size.

Dispatch and combine are one-hot products, so their FLOPs grow with the group: over the experts'
they are T_g / F for two matrices and 2 T_g / 3 F for three (times the capacity factor). Smaller
groups drop more, since loads vary more.
"""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.bench.cases import Shape, dense_case, layer_inputs, make_plan
from experiments.bench.contract import Benchmark, folder
from experiments.bench.timing import interleaved, processor, save, timed_calls

SHAPE = Shape(4096, 512, 2048, 8, 2)
SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
FACTORS = (1.0, 1.25, 1.5, 2.0)


def act(given: Any) -> None:
    """Times groups of every size."""
    groups(directory=folder(given.workdir))


def groups(
    one: Shape = SHAPE,
    sizes: Sequence[int] = SIZES,
    repeats: int = 5,
    directory: pathlib.Path | None = None,
) -> list[dict]:
    """Prints a row for each group size; writes groups.json and groups.png into `directory`.

    Returns the rows: shape, group, law and flops (dispatch FLOPs over the experts', by formula and
    counted in the compiled forward pass, capacity factor 1), ratio (forward and backward over the
    dense twin's, capacity factor 1.25), drop_rate (skew -> factor -> share of assignments).
    """
    cases = {group: _case(one, group) for group in sizes if group <= one.T}
    dense = dense_case(one, "float32").both
    seconds = interleaved({"dense": dense, **{g: case for g, (case, _) in cases.items()}}, repeats)
    rows = []
    for group, (_, flops) in cases.items():
        pairs = zip(seconds[group], seconds["dense"], strict=True)
        rows.append(
            {
                "shape": list(one),
                "group": group,
                "law": 2 * group / (3 * one.F),
                "flops": flops / one.flops - 1,
                "ratio": statistics.median(a / b for a, b in pairs),
                "drop_rate": {skew: _drops(one, skew, group) for skew in ("uniform", "zipf")},
            }
        )
    _print(rows, one, repeats)
    save(directory, "groups", rows, lambda path: _plot(rows, path))
    return rows


def _case(one: Shape, group: int):
    """The timed call of einsum at factor 1.25, and the forward FLOPs at factor 1."""
    import jax

    from moe.dispatch.einsum import Einsum
    from moe.experts.contract import Pool

    experts, params, x_TD = layer_inputs(one, one.F, one.E, "float32")
    x_GTD = x_TD.reshape(one.T // group, group, one.D)
    plans = _plans(one, "uniform", group)

    def run(factor, params, x_GTD, plans):
        def serve(plan, x_TD):
            return Einsum(factor, group)(plan, x_TD, Pool(params, experts, one.E))[0]

        return jax.vmap(serve)(plans, x_GTD)

    def serve_all(params, x_GTD, plans):
        return run(1.25, params, x_GTD, plans)

    counted = jax.jit(run, static_argnums=0).lower(1.0, params, x_GTD, plans).compile()
    return timed_calls(serve_all, params, x_GTD, plan=plans)[1], counted.cost_analysis()["flops"]


def _plans(one: Shape, skew: str, group: int):
    """The plan of all tokens, cut into groups."""
    import jax

    plan = make_plan(one, skew)
    return jax.tree.map(lambda a: a.reshape(one.T // group, group, one.k), plan)


def _drops(one: Shape, skew: str, group: int) -> dict[str, float]:
    """Capacity factor -> share of the assignments that find no slot in their group."""
    import jax

    from moe.order import slot_rows
    from moe.plan import capacity

    plans = _plans(one, skew, group)
    found = {}
    for factor in FACTORS:
        C = capacity(factor, group, one.k, one.E)
        row_GTK = jax.vmap(lambda plan, C=C: slot_rows(plan, one.E, C))(plans)
        found[f"{factor:g}"] = float((row_GTK == one.E * C).mean())
    return found


def _print(rows: list[dict], one: Shape, repeats: int) -> None:
    import jax

    print(f"\nT={one.T} D={one.D} F={one.F} E={one.E} k={one.k}: {repeats} repeats in turn")
    print(f"{processor()}, JAX {jax.__version__}, float32, SwiGLU\n")
    head = f"{'group':>6} {'law':>7} {'counted':>8} {'/ dense':>8}   drops at capacity factor "
    print(head + ", ".join(f"{factor:g}" for factor in FACTORS) + " (uniform | zipf)")
    for row in rows:
        drops = " | ".join(
            " ".join(f"{rate:>6.2%}" for rate in of_skew.values())
            for of_skew in row["drop_rate"].values()
        )
        print(
            f"{row['group']:>6} {row['law']:>7.1%} {row['flops']:>8.1%} {row['ratio']:>8.2f}"
            f"   {drops}"
        )


def _plot(rows: list[dict], path: pathlib.Path) -> None:
    """Drops against the group size, and time against it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from experiments.figures.palette import MARKERS, SERIES, SETTINGS

    sizes = [row["group"] for row in rows]
    with pyplot.rc_context(SETTINGS):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        for i, factor in enumerate(FACTORS):
            for skew, line in (("uniform", "-"), ("zipf", "--")):
                rates = [100 * row["drop_rate"][skew][f"{factor:g}"] for row in rows]
                label = f"factor {factor:g}" if skew == "uniform" else None
                left.plot(sizes, rates, line + MARKERS[i], color=SERIES[i], label=label, ms=4)
        left.set_title("Dropped assignments (%): even load solid, Zipf dashed")
        right.plot(sizes, [row["ratio"] for row in rows], "-o", color=SERIES[0], ms=4)
        right.set_title("Forward and backward over the dense layer's")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.set_xlabel("tokens in a group")
        left.legend(fontsize="small", ncols=2, loc=(0.42, 0.36))
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


BENCHMARK = Benchmark(act, flags=("workdir",), examples=("", "--workdir=runs/groups"))
