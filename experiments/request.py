"""From the words of a command to checked experiments: names, sizes, seeds, overrides, folders."""

import importlib.util
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moe import fields, registry
from moe.checkpoint import places
from moe.registry import Mistake

_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^/\s#?*\[\]]+)+/?")


class Request(NamedTuple):
    """The checked arguments of `experiments.run.run`."""

    study: str
    arms: tuple[str, ...]
    size: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    workdir: pathlib.Path


def parse_name(name: str) -> tuple[str, tuple[str, ...] | None]:
    """Splits STUDY or STUDY/ARM into (study, None) or (study, (arm,)); the study exists."""
    study, slash, arm = name.partition("/")
    registry.summary("study", study)
    return study, (arm,) if slash else None


def known_size(size: str) -> None:
    """Raises Mistake unless some config has this size."""
    if size not in registry.names("size"):
        raise Mistake(f"--size={size}: {registry.no_such('size', size, registry.names('size'))}")


def resolve(study_name: str, arms: Iterable[str] | None, size: str, overrides: Sequence[str]):
    """Arm -> validated Experiment, each override applied to every arm that has the field.

    Raises Mistake for unknown names, an override that no arm has, and what validate() finds.
    """
    study = registry.lookup("study", study_name)
    known = dict(study.arms)
    arms = tuple(known) if arms is None else tuple(arms)
    if not arms:
        raise Mistake(f"--arms=: must name some of {', '.join(known)}")
    for arm in arms:
        if arm not in known:
            raise Mistake(f"{study_name}/{arm}: {registry.no_such('arm', arm, known)}")
        if arms.count(arm) > 1:
            raise Mistake(f"--arms={','.join(arms)}: names {arm} twice")
    if size not in study.sizes:
        raise Mistake(f"--size={size}: {registry.no_such('size', size, study.sizes)}")
    experiments = {arm: study.build(arm, size) for arm in arms}
    for assignment in overrides:
        experiments = _overridden(experiments, assignment)
    for arm, experiment in experiments.items():
        try:
            experiment.validate()
        except Mistake as error:
            place = f" (arm {arm})" if len(arms) > 1 else ""
            raise Mistake(f"{error}{place}") from error
    return experiments


def _overridden(experiments: dict, assignment: str) -> dict:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise Mistake(f"--set {assignment}: must be PATH=VALUE, such as train.steps=200")
    changed, missing = {}, []
    for arm, experiment in experiments.items():
        try:
            changed[arm] = fields.override(experiment, path, text)
        except fields.MissingField as error:
            missing.append(error)
    if not changed:
        # An arm that has the parent knows the nearest name; one without it can only say so.
        raise max(missing, key=lambda error: "no such field" in str(error))
    return experiments | changed


def request(
    study_name: str,
    arms: Sequence[str] | None,
    size: str,
    seeds: Sequence[str] | None,
    overrides: Sequence[str],
    workdir: str | None,
) -> Request:
    """Checks everything that a run is asked for, before anything compiles or is written."""
    if not workdir:
        raise Mistake(f"--workdir: is missing; name a folder, as --workdir=runs/{study_name}")
    if "://" in workdir:
        raise Mistake(
            f"--workdir={workdir}: must be a folder, which locks and appends need; "
            "a bucket takes the checkpoints, by --checkpoints=gs://BUCKET/PATH"
        )
    _check_place("workdir", workdir)
    for assignment in overrides:
        if assignment.startswith("seed="):
            raise Mistake(f"--set {assignment}: a run takes its seeds from --seeds")
    chosen = resolve(study_name, arms, size, overrides)
    numbers = registry.lookup("study", study_name).seeds if seeds is None else _seeds(seeds)
    return Request(
        study_name, tuple(chosen), size, numbers, tuple(overrides), pathlib.Path(workdir)
    )


def checkpoints(given: str | None) -> str | None:
    """The place that --checkpoints names; raises Mistake or OSError unless it answers."""
    if given is None:
        return None
    if "://" not in given and given:
        _check_place("checkpoints", given)
        return str(pathlib.Path(given).absolute())
    if not _BUCKET.fullmatch(given):
        raise Mistake(f"--checkpoints={given}: must be a folder or gs://BUCKET/PATH")

    places.at(given).make()
    return given.rstrip("/")


def _check_place(flag: str, given: str) -> None:
    if "\0" in given:
        raise Mistake(f"--{flag}={given!r}: is no path, it has a null character")
    place = pathlib.Path(given)
    try:
        there = [folder for folder in [place, *place.absolute().parents] if folder.exists()]
    except OSError as error:
        raise Mistake(f"--{flag}={given}: is no path here ({error.strerror})") from error
    if not there[0].is_dir():
        raise Mistake(f"--{flag}={given}: {there[0]} is a file, not a folder")
    if not os.access(there[0], os.W_OK):
        raise Mistake(f"--{flag}={given}: {there[0]} cannot be written to")


def _seeds(texts: Sequence[str]) -> tuple[int, ...]:
    given = f"--seeds={','.join(texts)}"
    for text in texts:
        if not (text.isascii() and text.isdigit()):
            raise Mistake(f"{given}: must be whole numbers >= 0 separated by commas")
    seeds = tuple(int(text) for text in texts)
    if not seeds:
        raise Mistake(f"{given}: must be whole numbers >= 0 separated by commas")
    if max(seeds) >= 2**32:
        raise Mistake(f"{given}: must be below 2**32")
    if len(set(seeds)) < len(seeds):
        raise Mistake(f"{given}: names a seed twice")
    return seeds


def watch(profile: str | None, wandb: str | None, asked: Request) -> dict:
    """What is recorded besides: the arguments profile and wandb of `experiments.run.run`."""
    if wandb is not None and (not wandb or set(wandb) & set("/\\#?%:")):
        raise Mistake(f"--wandb={wandb}: must be the name of a project, without / \\ # ? % :")
    if wandb and importlib.util.find_spec("wandb") is None:
        raise Mistake(f"--wandb={wandb}: needs a package that is missing; pip install wandb")
    if profile is None:
        return {"profile": None, "wandb": wandb}
    parts = profile.split(":")
    steps = [int(part) for part in parts if part.isascii() and part.isdigit()]
    chosen = resolve(asked.study, asked.arms, asked.size, asked.overrides)
    last = min(experiment.train.steps for experiment in chosen.values())
    if len(parts) != 2 or len(steps) != 2 or not 1 <= steps[0] <= steps[1] <= last:
        raise Mistake(
            f"--profile={profile}: must be FIRST:LAST with 1 <= FIRST <= LAST <= train.steps={last}"
        )
    return {"profile": tuple(steps), "wandb": wandb}
