"""study.json: what a study declared, what was asked of it, and what is to be said of its arms."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.studies.contract import Caveat, Contrast, Scale, Study
from moe import files, registry
from moe.registry import Mistake

FILE = "study.json"
_ASKED = ("study", "size", "question", "baseline", "arms", "seeds")  # in every file
_ALLOWS = "train.max_epochs="  # what a run may do is no part of what it is
_SAME = ("study", "size", "question", "baseline", "overrides")  # in all runs of one folder


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A study as its folder holds it.

    Attributes:
      arms: name -> one line, of those that were asked for.
      contrasts, scales, caveats, colour_order: of the whole study, see
        `experiments.studies.contract`.
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
        )

    @classmethod
    def read(cls, directory: Path) -> "Declaration":
        """Of the folder of a study; raises Mistake, one line, for a file that cannot be used.

        What a file of an older version does not say is that of the registered study.
        """
        path = directory / FILE
        content = files.content(path)
        missing = [key for key in _ASKED if not isinstance(content, dict) or key not in content]
        if missing:
            raise Mistake(f"{path}: key {missing[0]!r} is missing; not written by a study run")
        if wrong := _wrong(content):
            raise Mistake(f"{path}: {wrong}")
        told = {}
        if not set(_READ) <= set(content) and content["study"] in registry.names("study"):
            told = _told(registry.lookup("study", content["study"]))
        try:
            told |= {key: read(content[key]) for key, read in _READ.items() if key in content}
            return cls(
                **{key: content[key] for key in _ASKED if key != "seeds"},
                seeds=tuple(content["seeds"]),
                overrides=tuple(content.get("overrides", ())),
                **told,
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise Mistake(f"{path}: not as a study run writes it ({error})") from None

    def write(self, directory: Path) -> None:
        """Adds its arms and seeds to what is there; raises Mistake for another study or size."""
        files.write(directory / FILE, files.strict(self.joined(directory), indent=1) + "\n")

    def joined(self, directory: Path) -> dict[str, Any]:
        """What the file holds with this added; raises as `write`, and writes nothing."""
        path = directory / FILE
        before, content = _there(path), self.content()
        for key in _SAME:
            if key in before and before[key] != content[key]:
                raise Mistake(
                    f"{path}: {key} is {before[key]!r} there, {content[key]!r} asked; "
                    "choose another --workdir"
                )
        arms = {*self.arms, *before.get("arms", {})}
        lines = dict(registry.lookup("study", self.study).arms)
        content["arms"] = {arm: line for arm, line in lines.items() if arm in arms}
        content["seeds"] = sorted({*self.seeds, *before.get("seeds", [])})
        return content

    def content(self) -> dict[str, Any]:
        """As the file holds it."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for key in ("overrides", "seeds", "colour_order"):
            content[key] = list(content[key])
        for key in ("contrasts", "scales", "caveats"):
            content[key] = [_listed(dataclasses.asdict(one)) for one in content[key]]
        return content | {"arms": dict(self.arms)}


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
}


def _there(path: Path) -> dict[str, Any]:
    """What a run finds; raises Mistake, one line, when that is of no use."""
    if not os.path.lexists(path):
        return {}
    try:
        found = files.content(path)
        wrong = _wrong(found)
    except files.Unreadable as error:
        wrong, found = error.why, {}
    except (TypeError, KeyError) as error:
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
