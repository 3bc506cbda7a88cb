"""Reads a study directory: study.json, and result.json and metrics.jsonl of every run in it."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from moe.registry import Mistake

FINISHED, DIVERGED, UNFINISHED = "finished", "diverged", "unfinished"

STUDY_KEYS = ("study", "size", "question", "baseline", "arms", "seeds")
NUMBERS = "val_bits_per_byte params_total params_active flops_per_token tokens steps seed".split()
ROUTER_LISTS = ("load_entropy", "max_violation", "drop_rate", "dead_experts", "load")
SAME_IN_AN_ARM = ("params_total", "params_active", "flops_per_token", "tokens", "steps")


@dataclass(frozen=True)
class Run:
    """One arm at one seed; `result` is None unless the run ended, curves are step -> line."""

    arm: str
    seed: int
    status: str
    result: dict | None
    train: dict[int, dict] = field(default_factory=dict)
    evaluation: dict[int, dict] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """What a study directory holds; `problems` has a line for each file that could not be used."""

    study: dict
    runs: tuple[Run, ...]
    problems: tuple[str, ...]

    def finished(self, arm: str) -> dict[int, dict]:
        """Results of the finished runs of an arm, by seed in order."""
        return {r.seed: r.result for r in self.runs if r.arm == arm and r.status == FINISHED}

    def seeds(self, arm: str, status: str) -> list[int]:
        """Seeds of an arm with that status, in order."""
        return [run.seed for run in self.runs if run.arm == arm and run.status == status]


def read(directory: str | Path) -> Runs:
    """Reads every run; raises Mistake for an unusable study.json or when no run has finished.

    A result of another study, size or data fingerprint, or of another model or length than the
    first seed of its arm, is left out and named in `problems`.
    """
    directory = Path(directory)
    study = _study(directory)
    problems: list[str] = []
    runs = [
        _run(directory, arm, seed, study, problems)
        for arm in _arms(directory, study)
        for seed in _seeds(directory / arm)
    ]
    runs = _comparable(runs, study, problems)
    if not any(run.status == FINISHED for run in runs):
        started = f"{len(runs)} started" if runs else "none started"
        first = f"; {problems[0]}" if problems else ""
        raise Mistake(f"{directory}: no finished run ({started}){first}")
    return Runs(study, tuple(runs), tuple(problems))


def _study(directory: Path) -> dict:
    path = directory / "study.json"
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}; not a study directory") from None
    except ValueError as error:
        raise Mistake(f"{path}: not JSON ({error})") from None
    missing = [key for key in STUDY_KEYS if not isinstance(study, dict) or key not in study]
    if missing:
        raise Mistake(f"{path}: key {missing[0]!r} is missing; not written by a study run")
    if not isinstance(study["arms"], dict) or not isinstance(study["seeds"], list):
        raise Mistake(f"{path}: arms must map names to one line, seeds must be a list")
    return study


def _arms(directory: Path, study: dict) -> list[str]:
    """The baseline, the arms of study.json in its order, then other directories with runs."""
    known = sorted(study["arms"], key=lambda arm: arm != study["baseline"])
    found = sorted(path.parent.name for path in directory.glob("*/seed*") if path.is_dir())
    return list(dict.fromkeys([*known, *found]))


def _seeds(arm: Path) -> list[int]:
    matches = [re.fullmatch(r"seed(\d+)", path.name) for path in arm.glob("seed*")]
    return sorted(int(match[1]) for match in matches if match)


def _run(directory: Path, arm: str, seed: int, study: dict, problems: list[str]) -> Run:
    folder = Path(arm, f"seed{seed}")
    train, evaluation = _metrics(directory, folder / "metrics.jsonl", problems)
    result = None
    path = folder / "result.json"
    if (directory / path).exists():
        expected = {"study": study["study"], "size": study["size"], "arm": arm, "seed": seed}
        try:
            result = _result(directory / path, expected)
        except Mistake as error:
            problems.append(f"{path.as_posix()}: {error}; left out")
    stopped = (directory / folder / "diverged.txt").exists()
    status = DIVERGED if stopped and result is None else _status(result, train)
    return Run(arm, seed, status, result, train, evaluation)


def _status(result: dict | None, train: dict[int, dict]) -> str:
    if result is not None:
        losses = [result["val_loss"], *result["desk_loss"].values()]
        return FINISHED if all(finite(loss) for loss in losses) else DIVERGED
    if train and not finite(nats(train[max(train)])):
        return DIVERGED
    return UNFINISHED


def nats(line: dict) -> float | None:
    """Training cross-entropy of a metrics line, without auxiliary terms where it is given."""
    return line.get("nats", line.get("loss"))


def finite(value: object) -> bool:
    """True for a finite number; JSON null, NaN and Infinity are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _result(path: Path, expected: dict) -> dict:
    """The checked content of one result.json; raises Mistake that says what is wrong in it."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise Mistake(f"not JSON ({error})") from None
    if not isinstance(result, dict):
        raise Mistake("not a JSON object")
    for key in ("val_loss", "desk_loss", *NUMBERS, *expected):
        if key not in result:
            raise Mistake(f"key {key!r} is missing")
    for key, value in expected.items():
        if result[key] != value:
            raise Mistake(f"{key}={result[key]!r} where {value!r} belongs")
    diverged = not finite(result["val_loss"])
    for key in NUMBERS:
        if not finite(result[key]) and not (diverged and key == "val_bits_per_byte"):
            raise Mistake(f"{key}={result[key]!r} is not a finite number")
    for key in ("desk_loss", "flops_by_part", "params_by_part", "timing", "environment"):
        if not isinstance(result.setdefault(key, {}), dict):
            raise Mistake(f"{key} is not an object")
    _check_router(result.setdefault("router", None))
    return result


def _check_router(router: object) -> None:
    if router is None:
        return
    try:
        layers, experts = len(router["layers"]), router["num_experts"]
        lists = [router[key] for key in ROUTER_LISTS] + list(router["desk_load"].values())
        loads = [load for rows in lists[4:] for load in rows]
        numbers = [n for row in [*lists[:4], *loads] for n in row]
    except (KeyError, TypeError, AttributeError) as error:
        raise Mistake(f"router is not as the results format has it ({error})") from None
    if any(len(rows) != layers for rows in lists) or any(len(load) != experts for load in loads):
        raise Mistake(f"router lists do not fit {layers} layers of {experts} experts")
    if not all(finite(number) for number in numbers):
        raise Mistake("router has a value that is not a finite number")


def _metrics(directory: Path, path: Path, problems: list[str]) -> tuple[dict, dict]:
    """Train and eval lines by step; a resumed run may repeat a step, and the last one counts."""
    curves: dict[str, dict[int, dict]] = {"train": {}, "eval": {}}
    try:
        lines = (directory / path).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.as_posix()}: cannot be read ({error}); curve left out")
        return {}, {}
    bad = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            curves[line["kind"]][int(line["step"])] = line | {"tokens": int(line["tokens"])}
        except (ValueError, TypeError, KeyError):
            if number < len(lines):  # the last line of a killed run may be cut short
                bad.append(number)
    if bad:
        what = f"line {bad[0]} is not a metrics line; {len(bad)} left out"
        problems.append(f"{path.as_posix()}: {what}")
    return curves["train"], curves["eval"]


def _comparable(runs: list[Run], study: dict, problems: list[str]) -> list[Run]:
    """Demotes finished runs that must not be averaged or compared with the rest."""
    first: dict[str, dict] = {}
    fingerprint = None
    kept = []
    for run in runs:
        if run.status != FINISHED:
            kept.append(run)
            continue
        reference = first.setdefault(run.arm, run.result)
        reason = [
            f"{key}={run.result[key]} where its first finished seed has {reference[key]}"
            for key in SAME_IN_AN_ARM
            if run.result[key] != reference[key]
        ]
        data = run.result["environment"].get("data_fingerprint")
        fingerprint = fingerprint or data
        if data != fingerprint:
            reason = [f"data_fingerprint={data} where the first run has {fingerprint}"]
        if reason:
            name = f"{run.arm}/seed{run.seed}/result.json"
            problems.append(f"{name}: {reason[0]}; left out")
            run = Run(run.arm, run.seed, UNFINISHED, None)
        kept.append(run)
    return kept
