"""What a run is asked for, checked before anything compiles or is written."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from experiments.select import resolve
from experiments.studies.contract import Decision
from moe import files, registry
from moe.checkpoint import places
from moe.data.data import SEED
from moe.fields import check_value
from moe.registry import Mistake

if TYPE_CHECKING:  # it imports JAX
    from moe.devices.mesh import Mesh

_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^/\s#?*\[\]]+)+/?")
MEMORY = ("check", "ignore")
SEEDS = f"must be whole numbers {get_args(SEED)[1].rule(int)} separated by commas"


@dataclasses.dataclass(frozen=True)
class Request:
    """A study, which of its arms and seeds, and how they are run.

    Attributes:
      study: its name.
      workdir: the folder that gets everything; what is there is gone on with.
      arms: names; None is all of the study.
      size: one of the study's.
      seeds: None is the study's own.
      overrides: "PATH=VALUE", applied to every arm that has the field.
      jobs: processes at the same time, each on a core of its own; 0 is one per core on CPU, and
        none (the arms one after the other in this process) with an accelerator.
      mesh: trains every arm over its devices, one after the other; as text, "data:2,expert:4" or
        "auto", its devices are made where they can be. None is one device. It changes no result,
        and runs resume on any other mesh.
      processes: how many were joined before the run; None if a cluster knows.
      profile: "FIRST:LAST", steps of a profile of every run, in its folder.
      wandb: the project of Weights & Biases that gets the metrics too.
      memory: "check" refuses, by formula, what the memory cannot hold; "ignore" tries it.
      checkpoints: a folder, or gs://BUCKET/PATH, that gets the checkpoints, as ARM/seedN, and a
        copy of the metrics; None is each run's own folder.
      looks: numbers of seeds at which it is asked whether all is decided, declared before the first
        step; one is that of the seeds, and `further` asks for the next. () is the study's own.
      experiments: arm -> experiment of seed 0, resolved from what stands above.

    Raises Mistake, one line, for whatever cannot be, and OSError for a bucket that does not answer.
    """

    study: str
    workdir: str | os.PathLike | None
    arms: Sequence[str] | None = None
    size: str = "tiny"
    seeds: Sequence[int] | None = None
    overrides: Sequence[str] = ()
    jobs: int = 0
    mesh: Mesh | str | None = None
    processes: int | None = 1
    profile: str | None = None
    wandb: str | None = None
    checkpoints: str | None = None
    memory: str = "check"
    looks: Sequence[int] = ()
    experiments: dict[str, Any] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        self._check_workdir()
        for assignment in self.overrides:
            if assignment.startswith("seed="):
                raise Mistake(f"--set {assignment}: a run takes its seeds from --seeds")
        experiments = resolve(self.study, self.arms, self.size, self.overrides)
        seeds = registry.lookup("study", self.study).seeds if self.seeds is None else self.seeds
        self._be("experiments", experiments)
        self._be("arms", tuple(experiments))
        self._be("seeds", _checked_seeds(seeds))
        self._check_looks()
        self._be("overrides", tuple(self.overrides))
        self._check_wandb()
        if self.memory not in MEMORY:
            raise Mistake(f"--memory={self.memory}: must be {' or '.join(MEMORY)}")
        self.profiled()
        self._be("checkpoints", _checked_checkpoints(self.checkpoints))
        if isinstance(self.mesh, str) and self.mesh != "auto":
            from moe.devices.mesh import choose

            choose(self.mesh, experiments, None)

    def _be(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def provided(self) -> Mesh | None:
        """The mesh, its devices there; comes before the first use of a device."""
        if isinstance(self.mesh, str):
            from moe.devices.mesh import provide

            return provide(self.mesh, self.experiments, self.processes)
        return self.mesh

    def profiled(self) -> tuple[int, int] | None:
        """The first and the last step of the profile."""
        if self.profile is None:
            return None
        parts = self.profile.split(":")
        steps = [step for step in map(whole, parts) if step is not None]
        last = min(experiment.train.steps for experiment in self.experiments.values())
        if len(parts) != 2 or len(steps) != 2 or not 1 <= steps[0] <= steps[1] <= last:
            raise Mistake(
                f"--profile={self.profile}: must be FIRST:LAST with 1 <= FIRST <= LAST <= "
                f"train.steps={last}"
            )
        return steps[0], steps[1]

    @property
    def planned(self) -> tuple[int, ...]:
        """The seeds in the order in which looks take them: those asked for, then larger ones."""
        more = max(self.looks, default=0) - len(self.seeds)
        first = max(self.seeds) + 1
        return (*self.seeds, *range(first, first + more))

    def further(self) -> Request | None:
        """The same up to the next look; None at the last."""
        later = [n for n in self.looks if n > len(self.seeds)]
        return dataclasses.replace(self, seeds=self.planned[: later[0]]) if later else None

    def _check_looks(self) -> None:
        """Raises Mistake for looks that do not rise, or at which nothing could be decided."""
        study, arms = registry.lookup("study", self.study), set(self.arms)
        looks = Decision(looks=tuple(self.looks)).looks or study.decision.looks
        self._be("looks", looks)
        if not looks:
            return
        if len(self.seeds) not in looks:
            raise Mistake(f"looks={looks}: must have the number of seeds, {len(self.seeds)}")
        _checked_seeds(self.planned)
        pairs = [(one.arm, one.against) for one in study.contrasts]
        pairs += [(one.arm, study.baseline) for one in study.expectations]
        if not any(set(pair) <= arms for pair in pairs):
            raise Mistake(
                f"--until-decided={looks[-1]}: nothing is expected of {', '.join(self.arms)} "
                "beside each other, so nothing can be decided"
            )

    def _check_workdir(self) -> None:
        given = os.fspath(self.workdir or "")
        if not given:
            raise Mistake(f"--workdir: is missing; name a folder, as --workdir=runs/{self.study}")
        if "://" in given:
            raise Mistake(
                f"--workdir={given}: must be a folder, which locks and appends need; "
                "a bucket takes the checkpoints, by --checkpoints=gs://BUCKET/PATH"
            )
        self._be("workdir", _folder("workdir", given))

    def _check_wandb(self) -> None:
        project = self.wandb
        if project is not None and (not project or set(project) & set("/\\#?%:")):
            raise Mistake(f"--wandb={project}: must be the name of a project, without / \\ # ? % :")
        if project and importlib.util.find_spec("wandb") is None:
            raise Mistake(f"--wandb={project}: needs a package that is missing; pip install wandb")


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    given = f"--seeds={','.join(map(str, seeds))}"
    if not seeds:
        raise Mistake(f"{given}: {SEEDS}")
    try:
        for seed in seeds:
            check_value(SEED, seed, given)
    except Mistake:
        raise Mistake(f"{given}: {SEEDS}") from None
    if len(set(seeds)) < len(seeds):
        raise Mistake(f"{given}: names a seed twice")
    return tuple(seeds)


def _checked_checkpoints(given: str | None) -> str | None:
    """The place of all checkpoints, which answers."""
    if given is None:
        return None
    if "://" not in given and given:
        return str(_folder("checkpoints", given).absolute())
    if not _BUCKET.fullmatch(given):
        raise Mistake(f"--checkpoints={given}: must be a folder or gs://BUCKET/PATH")
    places.at(given).make()
    return given.rstrip("/")


def _folder(flag: str, given: str) -> pathlib.Path:
    """The folder that the flag names, there or to be made."""
    folder = files.place(given, f"--{flag}={given}")
    try:
        there = [above for above in [folder, *folder.absolute().parents] if os.path.lexists(above)]
    except OSError as error:
        raise Mistake(f"--{flag}={given}: is no path here ({error.strerror})") from error
    if not there[0].is_dir():
        kind = "is no folder" if there[0].is_symlink() else "is a file, not a folder"
        raise Mistake(f"--{flag}={given}: {there[0]} {kind}")
    if not os.access(there[0], os.W_OK):
        raise Mistake(f"--{flag}={given}: {there[0]} cannot be written to")
    return folder


def whole(text: str) -> int | None:
    """The number that up to 18 ASCII digits spell; None for another text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
