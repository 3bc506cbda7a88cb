"""study.json: what a study declared, what was asked of it, and what is to be said of its arms."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.results import folder
from experiments.studies.contract import (
    Caveat,
    Contrast,
    Decision,
    Expectation,
    Scale,
    Study,
)
from experiments.studies.plan import Grid, Lengths, Tuning
from moe import files, registry
from moe.registry import Mistake

FILE = "study.json"
_ASKED = ("study", "size", "question", "baseline", "arms", "seeds")  # in every file
_ALLOWS = "train.max_epochs="  # what a run may do is no part of what it is
_SAME = ("study", "size", "question", "baseline", "overrides")  # in all runs of one folder
# The same once declared; all but the first were not, in older files.
_HELD = ("contrasts", "expectations", "metric", "decision", "margin", "tuning", "lengths")
_BEFOREHAND = (*_HELD[1:], "planned")  # only where it was written before the first step
_DIGEST = "declared"  # the key of the hash of all that was declared


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A study as its folder holds it.

    Attributes:
      arms: name -> one line, of those that were asked for.
      contrasts, scales, caveats, colour_order, expectations, metric, decision, margin, tuning,
        lengths: of the whole study, see `experiments.studies.contract`.
      planned: the seeds that were named before the first step, in the order of their looks.
      beforehand: whether it was written before the first step, so that a report is held to it.
    """

    study: str
    size: str
    question: str
    baseline: str
    overrides: tuple[str, ...]
    arms: Mapping[str, str]
    seeds: tuple[int, ...]
    contrasts: tuple[Contrast, ...] = ()
    scales: tuple[Scale, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    colour_order: tuple[str, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    metric: str = "val_loss"
    decision: Decision = Decision()
    margin: float | None = None
    tuning: Tuning | None = None
    lengths: Lengths | None = None
    planned: tuple[int, ...] = ()
    beforehand: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        size: str,
        arms: Iterable[str],
        seeds: Iterable[int],
        overrides: Iterable[str],
    ) -> "Declaration":
        """What a registered study declares, and which arms and seeds of it are asked for."""
        study, asked = registry.lookup("study", name), set(arms)
        return cls(
            study=name,
            size=size,
            question=study.question,
            baseline=study.baseline,
            overrides=tuple(o for o in overrides if not o.startswith(_ALLOWS)),
            arms={arm: line for arm, line in study.arms if arm in asked},
            seeds=tuple(sorted(set(seeds))),
            **_told(study),
            expectations=study.expectations,
            metric=study.metric,
            decision=study.decision,
            margin=study.margin,
            tuning=study.tuning and study.tuning.at(size, overrides),
            lengths=study.lengths and study.lengths.at(size),
            planned=tuple(seeds),
            beforehand=True,
        )

    def until(self, looks: tuple[int, ...], planned: tuple[int, ...]) -> "Declaration":
        """The same, with seeds that are added until all is decided: see `Decision`."""
        decision = dataclasses.replace(self.decision, looks=looks)
        return dataclasses.replace(self, decision=decision, planned=planned)

    @classmethod
    def read(cls, directory: Path) -> "Declaration":
        """Of the folder of a study; raises Mistake, one line, for a file that cannot be used.

        What a file of an older version does not say is that of the registered study.
        """
        path = directory / FILE
        content = files.content(path)
        try:
            content = _opened(content)
        except Mistake as error:
            raise Mistake(f"{path}: is damaged ({error}); repair or remove it") from None
        missing = [key for key in _ASKED if not isinstance(content, dict) or key not in content]
        if missing:
            raise Mistake(f"{path}: key {missing[0]!r} is missing; not written by a study run")
        if wrong := _wrong(content):
            raise Mistake(f"{path}: {wrong}")
        told = {}
        shown = set(_READ) - set(_BEFOREHAND) <= set(content)
        if not shown and content["study"] in registry.names("study"):
            told = _told(registry.lookup("study", content["study"]))
        try:
            told |= {key: read(content[key]) for key, read in _READ.items() if key in content}
            return cls(
                **{key: content[key] for key in _ASKED if key != "seeds"},
                seeds=tuple(content["seeds"]),
                overrides=tuple(content.get("overrides", ())),
                beforehand=_DIGEST in content,
                **told,
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise Mistake(f"{path}: not as a study run writes it ({error})") from None

    def write(self, directory: Path) -> None:
        """Adds its arms and seeds to what is there; raises Mistake for another declaration."""
        files.write(directory / FILE, files.sealed(self.joined(directory), indent=1) + "\n")

    def joined(self, directory: Path) -> dict[str, Any]:
        """What the file holds with this added; raises as `write`, and writes nothing.

        Where runs lie already that no declaration came before, none is made of what they show.
        """
        path = directory / FILE
        before, content = _there(path), self.content()
        held, late = _DIGEST in before, _DIGEST not in before and _begun(directory)
        looks = ("planned",) if self.decision.looks else ()
        for key in (*_SAME, *(_HELD + looks if held else ())):
            if key in before and before[key] != content[key]:
                raise Mistake(
                    f"{path}: {_differ(key, before[key], content[key])}; choose another --workdir"
                )
        if late and self.decision.looks:
            raise Mistake(
                f"--until-decided={self.decision.looks[-1]}: {directory} has runs that no "
                "declaration came before, and may have been looked at; choose another --workdir"
            )
        arms = {*self.arms, *before.get("arms", {})}
        lines = dict(registry.lookup("study", self.study).arms)
        content["arms"] = {arm: line for arm, line in lines.items() if arm in arms}
        content["seeds"] = sorted({*self.seeds, *before.get("seeds", [])})
        content["planned"] = before.get("planned", content["planned"])
        if late:
            return {k: v for k, v in content.items() if k not in (*_BEFOREHAND, _DIGEST)}
        return content | {_DIGEST: _digest(content)}

    def content(self) -> dict[str, Any]:
        """As the file holds it, without its seal."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for key in ("overrides", "seeds", "colour_order", "planned"):
            content[key] = list(content[key])
        for key in ("contrasts", "scales", "caveats", "expectations"):
            content[key] = [_listed(dataclasses.asdict(one)) for one in content[key]]
        content |= {"arms": dict(self.arms), "decision": _listed(dataclasses.asdict(self.decision))}
        for key in ("tuning", "lengths"):
            part = getattr(self, key)
            content[key] = json.loads(json.dumps(part and dataclasses.asdict(part)))
        if content.pop("beforehand"):
            return content | {_DIGEST: _digest(content)}
        return {key: value for key, value in content.items() if key not in _BEFOREHAND}


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of all that was declared; arms and seeds may be asked for later."""
    held = {key: content[key] for key in (*_SAME, *_HELD, "planned") if key in content}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _opened(content: Any) -> Any:
    """What the file says; raises Mistake where a seal or the hash of the declaration is broken."""
    if not isinstance(content, dict) or not {files.SEAL, _DIGEST} & set(content):
        return content  # older ones have neither
    said = files.opened(content)
    if said.get(_DIGEST, _digest(said)) != _digest(said):
        raise Mistake("the hash of its declaration does not fit")
    return said


def _begun(directory: Path) -> bool:
    """Whether a run has left anything of its steps there."""
    names = (folder.METRICS, folder.RESULT, folder.DIVERGED)
    return any(next(directory.glob(f"*/seed*/{name}"), None) for name in names)


def _differ(where: str, there: Any, asked: Any) -> str:
    """The first place in which two values of JSON differ, and what each says there."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in (*there, *asked):
            if there.get(key) != asked.get(key):
                return _differ(f"{where}.{key}", there.get(key), asked.get(key))
    if isinstance(there, list) and isinstance(asked, list) and len(there) == len(asked):
        for n, (one, other) in enumerate(zip(there, asked, strict=True)):
            if one != other and isinstance(one, dict):
                return _differ(f"{where} of {one.get('arm')} ({n + 1})", one, other)
    return f"{where} is {_briefly(there)} there, {_briefly(asked)} asked"


def _briefly(value: Any) -> str:
    """A value in a line; of a list of records only their number."""
    records = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    return f"a list of {len(value)}" if records else repr(value)


def _told(study: Study) -> dict[str, tuple]:
    return {
        "contrasts": study.contrasts,
        "scales": study.scales,
        "caveats": study.caveats,
        "colour_order": study.colour_order,
    }


def _listed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in record.items()}


def _records(kind: type) -> Any:
    """Reads a list of records of a kind."""

    def read(content: Sequence[dict]) -> tuple:
        return tuple(
            kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in one.items()})
            for one in content
        )

    return read


_READ = {
    "contrasts": _records(Contrast),
    "scales": _records(Scale),
    "caveats": _records(Caveat),
    "colour_order": tuple,
    "expectations": _records(Expectation),
    "metric": str,
    "decision": lambda content: _records(Decision)([content])[0],
    "margin": lambda content: content,
    "tuning": lambda content: (
        content and Tuning(**content | {"grids": _records(Grid)(content["grids"])})
    ),
    "lengths": lambda content: content and _records(Lengths)([content])[0],
    "planned": tuple,
}


def _there(path: Path) -> dict[str, Any]:
    """What a run finds; raises Mistake, one line, when that is of no use."""
    if not os.path.lexists(path):
        return {}
    try:
        found = _opened(files.content(path))
        wrong = _wrong(found)
    except files.Unreadable as error:
        wrong, found = error.why, {}
    except (Mistake, TypeError, KeyError) as error:
        wrong, found = files.one_line(error), {}
    if wrong:
        raise Mistake(f"{path}: is damaged ({wrong}); repair or remove it")
    return found


def _wrong(content: Mapping[str, Any]) -> str:
    """What is wrong with arms, which are names of folders, or seeds; "" where nothing is."""
    arms, seeds = content["arms"], content["seeds"]
    if not isinstance(arms, dict) or not all(isinstance(line, str) for line in arms.values()):
        return "arms must map names to one line, seeds must be a list"
    odd = [arm for arm in arms if {arm} & {"", ".", ".."} or set(arm) & set("/\0") or arm[200:]]
    if odd:
        return f"arms has {odd[0][:40]!r}, which is no name of a folder"
    if not isinstance(seeds, list):
        return "arms must map names to one line, seeds must be a list"
    if not all(type(seed) is int and seed >= 0 for seed in seeds):
        return "seeds must be whole numbers >= 0"
    return ""
