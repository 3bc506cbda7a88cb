"""Runs a study: every arm at every seed, in parallel processes on CPU, resuming what is there."""

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.request import resolve
from moe import registry


@dataclasses.dataclass(frozen=True)
class Task:
    """One arm of a study at some seeds, which share a compilation."""

    study: str
    size: str
    arm: str
    experiment: Any  # seed 0
    seeds: tuple[int, ...]
    workdir: pathlib.Path

    def directory(self, seed: int) -> pathlib.Path:
        """Where the run of that seed lives."""
        return self.workdir / self.arm / f"seed{seed}"


def run(
    study_name: str,
    arms: Sequence[str] | None,
    size: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    workdir: str | os.PathLike,
    jobs: int = 0,
    on_log: Callable[[str, int, dict], None] | None = None,
) -> None:
    """Trains what is not there yet; leaves results where `experiments.report` reads them.

    Args:
      arms: None is all arms of the study.
      jobs: processes at the same time, each on a core of its own; 0 is one per core on CPU, and
        none (the arms one after the other in this process) with an accelerator.
      on_log: gets (arm, seed, row) for every row of a run, as it happens, in this process; the
        arms then run in this process too. For notebooks that draw while they train.

    Raises ValueError, before anything is written, for bad input and for a workdir that holds
    other experiments.
    """
    workdir = pathlib.Path(workdir)
    experiments = resolve(study_name, arms, size, overrides)
    tasks = [
        Task(study_name, size, arm, experiment, tuple(seeds), workdir)
        for arm, experiment in experiments.items()
    ]
    for task in tasks:
        for seed in task.seeds:
            _same_experiment(task, seed)
    _write_study(study_name, size, tuple(experiments), seeds, overrides, workdir)
    from experiments import workers

    workers.run(tasks, jobs, on_log)


def run_task(task: Task, on_log: Callable[[int, dict], None]) -> None:
    """Runs the seeds of one arm one after the other, in this process.

    on_log gets (seed, row) for everything that `moe.train.train` reports.
    """
    from moe.data.loader import load

    todo = [seed for seed in task.seeds if not (task.directory(seed) / "result.json").exists()]
    if not todo:
        return
    dataset = load(task.experiment.data, task.experiment.model.vocab_size)
    for seed in todo:
        try:
            run_one(task, seed, dataset, lambda row, seed=seed: on_log(seed, row))
        except FloatingPointError as error:
            on_log(seed, {"kind": "diverged", "message": str(error)})


def run_one(task: Task, seed: int, dataset: Any, on_log: Callable[[dict], None]) -> dict:
    """Runs one experiment to its end and writes experiment.txt and result.json."""
    from moe.train import train

    experiment = dataclasses.replace(task.experiment, seed=seed)
    directory, text = task.directory(seed), registry.expression(experiment)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "experiment.txt", text)
    trained = train(experiment, dataset, directory, text, on_log)
    result = _result(task, experiment, dataset, trained)
    _write(directory / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _result(task: Task, experiment: Any, dataset: Any, trained: Any) -> dict:
    from moe import cost
    from moe.data import ngram

    account, evaluation = cost.account(experiment), trained.evaluation
    tokens_per_step = experiment.train.batch * experiment.data.sequence_length
    return {
        "study": task.study,
        "size": task.size,
        "arm": task.arm,
        "seed": experiment.seed,
        "val_loss": evaluation.val_loss,
        "val_bits_per_byte": evaluation.val_bits_per_byte,
        "desk_loss": evaluation.desk_loss,
        "desk_tokens": dict(zip(evaluation.desks, evaluation.tokens_Y.tolist(), strict=True)),
        "params_total": account.params_total,
        "params_active": account.params_active,
        "params_by_part": account.params_by_part,
        "flops_per_token": account.flops_per_token,
        "flops_by_part": account.flops_by_part,
        "tokens": experiment.train.steps * tokens_per_step,
        "steps": experiment.train.steps,
        "router": evaluation.router(experiment.model),
        "baselines": ngram.baselines(dataset),
        "timing": {
            "wall_s": trained.wall_s,
            "compile_s": trained.compile_s,
            "step_s": trained.step_s,
            "tokens_per_s": tokens_per_step / trained.step_s,
            "peak_memory_bytes": _peak_memory(),
        },
        "environment": environment(dataset.fingerprint),
    }


def environment(data_fingerprint: str) -> dict:
    """Versions, device and commit that a result was made with."""
    import importlib.metadata

    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
        commit = found.stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        commit = "unknown"
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit,
        "data_fingerprint": data_fingerprint,
    }


def _peak_memory() -> int:
    """Peak bytes of the device where it counts them, else of this process."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _same_experiment(task: Task, seed: int) -> None:
    """Raises ValueError when the run's folder holds another experiment."""
    path = task.directory(seed) / "experiment.txt"
    if not path.exists():
        return
    asked = registry.expression(dataclasses.replace(task.experiment, seed=seed)).splitlines()
    found = path.read_text(encoding="utf-8").splitlines()
    for there, here in zip(found, asked, strict=False):
        if there != here:
            raise ValueError(
                f"{path}: holds another experiment ({there.strip()} there, {here.strip()} asked); "
                "choose another --workdir, or remove this folder"
            )
    if len(found) != len(asked):
        raise ValueError(f"{path}: holds another experiment; choose another --workdir")


def _write_study(study_name, size, arms, seeds, overrides, workdir) -> None:
    """Adds this call's arms and seeds to study.json; refuses another study or size."""
    study, path = registry.lookup("study", study_name), workdir / "study.json"
    record = {
        "study": study_name,
        "size": size,
        "question": study.question,
        "baseline": study.baseline,
        "overrides": list(overrides),
    }
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for key, value in record.items():
        if key in before and before[key] != value:
            raise ValueError(
                f"{path}: {key} is {before[key]!r} there, {value!r} asked; choose another --workdir"
            )
    known = [arm for arm, _ in study.arms if arm in arms or arm in before.get("arms", {})]
    record["arms"] = {arm: dict(study.arms)[arm] for arm in known}
    record["seeds"] = sorted({*seeds, *before.get("seeds", [])})
    workdir.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(record, indent=1) + "\n")


def _write(path: pathlib.Path, text: str) -> None:
    """Writes whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
