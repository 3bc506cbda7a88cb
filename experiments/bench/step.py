"""Times training steps of the arms of a study, in one process and in turn."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from experiments.bench import parts
from experiments.bench.contract import Benchmark, folder
from experiments.bench.timing import measured, save
from experiments.runner import huge_pages
from experiments.select import resolve
from moe import registry
from moe.registry import Mistake

STUDY = "dense_topk_hash"


def act(given: Any) -> None:
    """Times the arms that the flags name, in huge pages, as `run` trains."""
    study = registry.lookup("study", STUDY)
    experiments = resolve(STUDY, given.arms, given.size, given.set)
    if study.baseline not in experiments:
        raise Mistake(f"--arms={','.join(given.arms)}: must name {study.baseline}, the baseline")
    huge_pages.restart()
    title = " ".join([STUDY, f"--size={given.size}", *(f"--set {text}" for text in given.set)])
    step(title, experiments, study.baseline, directory=folder(given.workdir))


def step(
    title: str,
    experiments: Mapping[str, Any],
    baseline: str,
    repeats: int = 15,
    directory: pathlib.Path | None = None,
) -> list[dict]:
    """Prints the median step of each arm over the baseline's, interleaved.

    Then the shares of its parts (`experiments.bench.parts`); writes both as step.json into
    `directory`.

    The data row is the time that the training loop waits for a batch from the prefetching stream.
    On CPU every arm runs in this process with all its cores; `run` gives each arm a core of its
    own. Returns the rows: arm, median_s, ratio (median of the ratios repeat by repeat), low and
    high (their quartiles).
    """
    import jax

    from moe.data.loader import load
    from moe.training.step import init, train_step

    base = experiments[baseline]
    dataset = load(base.data, base.model.vocab_size)
    batches = dataset.stream(0, 0, base.train.batch)
    states = {arm: init(e, dataset.corpus) for arm, e in experiments.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ["data", *experiments]}
    for repeat in range(repeats + 2):
        tick = time.perf_counter()
        batch = next(batches)
        took = {"data": time.perf_counter() - tick}
        for arm, experiment in experiments.items():
            tick = time.perf_counter()
            states[arm], metrics = train_step(experiment, states[arm], batch)
            jax.block_until_ready((states[arm], metrics))
            took[arm] = time.perf_counter() - tick
        if repeat >= 2:  # the first compiles, the second still warms up
            for name, value in took.items():
                seconds[name].append(value)
    rows = [measured(name, seconds, baseline) for name in seconds]
    _print(rows, experiments, base, title, repeats)
    shares = parts.parts(experiments, dataset)
    save(directory, "step", {"title": title, "steps": rows, "parts": shares})
    return rows


def _print(rows: list[dict], experiments: Mapping, base, title: str, repeats: int) -> None:
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


BENCHMARK = Benchmark(
    act,
    flags=("size", "arms", "set", "workdir"),
    examples=(
        "--arms=dense,top2",
        "--size=small --arms=dense,top1 --set=model.moe.dispatch=einsum",
    ),
)
