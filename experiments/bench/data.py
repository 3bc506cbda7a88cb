"""Times the reading of data: alone, and as what a training loop waits for it."""

import itertools
import pathlib
import statistics
import time
from typing import Any

from experiments.bench.contract import Benchmark, folder
from experiments.bench.timing import processor, save
from experiments.select import resolve
from moe import registry

STUDY = "dense_topk_hash"
TARGET = 0.05  # of a training step, at most


def act(given: Any) -> None:
    """Times the text of the study's baseline, its quickest arm."""
    arm = registry.lookup("study", STUDY).baseline
    experiment = resolve(STUDY, (arm,), given.size, given.set)[arm]
    data(given.size, experiment, directory=folder(given.workdir))


def data(
    title: str,
    experiment: Any,
    batches: int = 500,
    steps: int = 60,
    directory: pathlib.Path | None = None,
) -> dict:
    """Prints batches and tokens per second, and the share of a step that the loop waits for data.

    Writes data.json into `directory`.
    Returns load_s (opening what is prepared), first_batch_s and jump_s (the first batch of a stream
    from step 0 and from step 10,000), batches_per_s and tokens_per_s (a stream that nobody uses),
    wait_s and step_s (medians), share (summed waiting over summed steps and waiting).
    """
    from moe.data.loader import load

    B, L = experiment.train.batch, experiment.data.sequence_length
    load(experiment.data, experiment.model.vocab_size)  # prepares
    tick = time.perf_counter()
    dataset = load(experiment.data, experiment.model.vocab_size)
    row = {"load_s": time.perf_counter() - tick}
    for name, start in (("first_batch_s", 0), ("jump_s", 10_000)):
        tick = time.perf_counter()
        next(dataset.stream(0, start, B))
        row[name] = time.perf_counter() - tick
    stream = dataset.stream(0, 0, B)
    tick = time.perf_counter()
    for _ in itertools.islice(stream, batches):
        pass
    row["batches_per_s"] = batches / (time.perf_counter() - tick)
    row["tokens_per_s"] = row["batches_per_s"] * B * L
    row |= _waits(experiment, dataset, steps)
    row |= {"batch": B, "sequence_length": L, "source": experiment.data.source}
    print(f"{title}, data.source={experiment.data.source}: batches of {B} x {L} tokens")
    print(f"{processor()}\n")
    print(f"opening the prepared tokens  {row['load_s'] * 1e3:10.1f} ms")
    print(f"first batch, from step 0     {row['first_batch_s'] * 1e3:10.1f} ms")
    print(f"first batch, from step 10000 {row['jump_s'] * 1e3:10.1f} ms")
    print(f"batches, read alone          {row['batches_per_s']:10,.0f} per s")
    print(f"tokens, read alone           {row['tokens_per_s']:10,.0f} per s")
    print(f"wait for a batch, median     {row['wait_s'] * 1e3:10.3f} ms")
    print(f"training step, median        {row['step_s'] * 1e3:10.3f} ms")
    verdict = "met" if row["share"] <= TARGET else "missed"
    print(f"share of the loop            {row['share']:10.2%}  (target {TARGET:.0%}: {verdict})")
    save(directory, "data", row)
    return row


def _waits(experiment, dataset, steps: int) -> dict:
    """The training loop in small: what it waits for data, and what its steps take."""
    import jax

    from moe.training.step import init, train_step

    state = init(experiment, dataset.corpus)
    stream, waits, took = dataset.stream(0, 0, experiment.train.batch), [], []
    for _ in range(steps + 2):  # the first compiles, the second still warms up
        tick = time.perf_counter()
        batch = next(stream)
        got = time.perf_counter()
        state, metrics = train_step(experiment, state, batch)
        jax.block_until_ready(metrics)
        waits.append(got - tick)
        took.append(time.perf_counter() - got)
    waits, took = waits[2:], took[2:]
    share = sum(waits) / (sum(waits) + sum(took))
    return {"wait_s": statistics.median(waits), "step_s": statistics.median(took), "share": share}


BENCHMARK = Benchmark(
    act,
    flags=("size", "set", "workdir"),
    examples=("--size=small", "--set=data.source=folder:my/texts"),
)
