"""Reads a study directory: study.json, and result.json and metrics.jsonl of every run in it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from experiments.results import folder, tuning
from experiments.results.declaration import Declaration
from experiments.results.result import Result, finite
from moe import files
from moe.registry import Mistake

FINISHED, DIVERGED, UNFINISHED = "finished", "diverged", "unfinished"
SAME_IN_AN_ARM = ("params_total", "params_active", "flops_per_token", "tokens", "steps")


@dataclass(frozen=True)
class Point:
    """A line of metrics.jsonl: a loss after so many tokens, in nats, auxiliary terms excluded."""

    tokens: int
    nats: float | None
    learning_rate: float | None = None


@dataclass(frozen=True)
class Run:
    """One arm at one seed; `result` is None unless the run ended, curves are step -> point."""

    arm: str
    seed: int
    status: str
    result: Result | None
    train: dict[int, Point] = field(default_factory=dict)
    evaluation: dict[int, Point] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """What a study directory holds; `problems` has a line for each file that could not be used."""

    declared: Declaration
    runs: tuple[Run, ...]
    problems: tuple[str, ...]
    tuned: tuple[tuning.Choice, ...] = ()
    shorter: tuple["Runs", ...] = ()  # the same arms trained for less

    def finished(self, arm: str) -> dict[int, Result]:
        """Results of the finished runs of an arm, by seed in order."""
        return {r.seed: r.result for r in self.runs if r.arm == arm and r.status == FINISHED}

    def seeds(self, arm: str, status: str) -> tuple[int, ...]:
        """Seeds of an arm with that status, in order."""
        return tuple(run.seed for run in self.runs if run.arm == arm and run.status == status)


def read(directory: str | Path) -> Runs:
    """Reads every run; raises Mistake for an unusable study.json or when no run has ended.

    A result of another study, size or data fingerprint, or of another model or length than the
    first seed of its arm, is left out and named in `problems`.
    """
    directory = Path(directory)
    declared = Declaration.read(directory)
    problems: list[str] = []
    runs = [
        _run(directory, arm, seed, declared, problems)
        for arm in _arms(directory, declared)
        for seed in _seeds(directory / arm)
    ]
    runs = _comparable(runs, problems)
    if not any(run.status in (FINISHED, DIVERGED) for run in runs):
        started = f"{len(runs)} started" if runs else "none started"
        first = f"; {problems[0]}" if problems else ""
        raise Mistake(f"{directory}: no finished run ({started}){first}")
    tuned, shorter = _tuned(directory, problems), _shorter(directory, problems)
    return Runs(declared, tuple(runs), tuple(problems), tuned, shorter)


def _shorter(directory: Path, problems: list[str]) -> tuple[Runs, ...]:
    """The shorter lengths that have a finished run."""
    found = []
    for path in sorted(directory.glob(f"{folder.LENGTHS}/*/study.json")):
        try:
            found.append(read(path.parent))
            name = path.parent.relative_to(directory)
            problems += [f"{name.as_posix()}/{line}" for line in found[-1].problems]
        except Mistake as error:
            problems.append(f"{error}; left out")
    return tuple(found)


def _tuned(directory: Path, problems: list[str]) -> tuple[tuning.Choice, ...]:
    try:
        return tuple(tuning.read(directory))
    except Mistake as error:
        problems.append(f"{error}; left out")
        return ()


def _arms(directory: Path, declared: Declaration) -> list[str]:
    """The baseline, the arms of study.json in its order, then other directories with runs."""
    known = sorted(declared.arms, key=lambda arm: arm != declared.baseline)
    found = sorted(path.parent.name for path in directory.glob("*/seed*") if path.is_dir())
    return list(dict.fromkeys([*known, *found]))


def _seeds(arm: Path) -> list[int]:
    matches = [re.fullmatch(r"seed(\d+)", path.name) for path in arm.glob("seed*")]
    return sorted(int(match[1]) for match in matches if match)


def _run(directory: Path, arm: str, seed: int, declared: Declaration, problems: list[str]) -> Run:
    place, told = Path(arm, f"seed{seed}"), len(problems)
    train, evaluation = _metrics(directory, place / folder.METRICS, problems)
    sound, result = len(problems) == told, None
    path = place / folder.RESULT
    if os.path.lexists(directory / path):
        expected = {"study": declared.study, "size": declared.size, "arm": arm, "seed": seed}
        try:
            result = Result.read(directory / path, expected)
            _agree(result, evaluation)
        except Mistake as error:
            result = None
            problems.append(f"{path.as_posix()}: {error}; left out")
    if sound and result is not None and result.finite and result.steps not in evaluation:
        metrics = (place / folder.METRICS).as_posix()
        problems.append(f"{metrics}: has no evaluation of the last step, {result.steps}")
    stopped = (directory / place / folder.DIVERGED).exists()
    status = DIVERGED if stopped and result is None else _status(result, train)
    return Run(arm, seed, status, result, train, evaluation)


def _agree(result: Result, evaluation: dict[int, Point]) -> None:
    """Raises Mistake when the curve ends in another loss than the result, which is finite."""
    last = evaluation.get(result.steps)
    if last is not None and result.finite and last.nats != result.val_loss:
        raise Mistake(
            f"val_loss={result.val_loss} where {folder.METRICS} has {last.nats} for the last step"
        )


def _status(result: Result | None, train: dict[int, Point]) -> str:
    if result is not None:
        return FINISHED if result.finite else DIVERGED
    if train and not finite(train[max(train)].nats):
        return DIVERGED
    return UNFINISHED


def _metrics(directory: Path, path: Path, problems: list[str]) -> tuple[dict, dict]:
    """Train and eval points by step; a resumed run may repeat a step, and the last one counts."""
    curves: dict[str, dict[int, Point]] = {"train": {}, "eval": {}}
    if not os.path.lexists(directory / path):
        return {}, {}
    try:
        text = files.text(directory / path)
    except files.Unreadable as error:
        problems.append(f"{path.as_posix()}: {error.why}; curve left out")
        return {}, {}
    bad = []
    for line in files.lines(text):
        try:
            row = line.record or {}
            curves[row["kind"]][int(row["step"])] = _point(row)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            bad.append(line.number)
    if bad:
        problems.append(f"{path.as_posix()}: {files.broken(bad)}")
    return curves["train"], curves["eval"]


def _point(line: dict) -> Point:
    """The loss without auxiliary terms where it is given; older lines have the whole loss alone."""
    nats = line.get("val_loss", line.get("nats", line.get("loss")))
    return Point(int(line["tokens"]), nats, line.get("learning_rate"))


def _comparable(runs: list[Run], problems: list[str]) -> list[Run]:
    """Demotes finished runs that must not be averaged or compared with the rest."""
    first: dict[str, Result] = {}
    fingerprint = None
    kept = []
    for run in runs:
        if run.status != FINISHED:
            kept.append(run)
            continue
        reference = first.setdefault(run.arm, run.result)
        reason = [
            f"{key}={getattr(run.result, key)} where its first finished seed has "
            f"{getattr(reference, key)}"
            for key in SAME_IN_AN_ARM
            if getattr(run.result, key) != getattr(reference, key)
        ]
        data = run.result.environment.get("data_fingerprint")
        fingerprint = fingerprint or data
        if data != fingerprint:
            reason = [f"data_fingerprint={data} where the first run has {fingerprint}"]
        if reason:
            name = f"{run.arm}/seed{run.seed}/{folder.RESULT}"
            problems.append(f"{name}: {reason[0]}; left out")
            run = Run(run.arm, run.seed, UNFINISHED, None)
        kept.append(run)
    return kept
