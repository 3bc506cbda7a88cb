"""Routing traces of runs: their checkpoints run over a text, and a file for each comes out."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from experiments.results import recorded
from experiments.results.declaration import FILE, Declaration
from experiments.results.folder import ELSEWHERE
from moe import files
from moe.registry import Mistake

NAME = "trace"  # of the file in the folder of a run
_RUN = re.compile(r"seed(\d+)")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be traced.

    Attributes:
      step: of the checkpoint: a number, "best" or "newest".
      text: a file or a folder; None is the held-out text of the run.
      tokens: at most so many; None is all.
      out: the file, for one run.
      metrics: whether all metrics of the trace are written beside it.
    """

    step: str = "newest"
    text: pathlib.Path | None = None
    tokens: int | None = None
    out: pathlib.Path | None = None
    metrics: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
    """A checkpoint of a run.

    Attributes:
      checkpoints: the folder of all, or gs://BUCKET/PATH.
      step: as `Asked` has it.
      folder: where its trace goes.
      study, arm: "" where no folder says.
    """

    checkpoints: str
    step: str
    folder: pathlib.Path
    study: str
    arm: str

    @property
    def name(self) -> pathlib.Path:
        """The file of its trace, where no other is named."""
        return self.folder / f"{NAME}{'' if self.step == 'newest' else '-' + self.step}.parquet"

    def restored(self) -> tuple[Any, dict[str, Any]]:
        """The parameters and the record; raises Mistake, one line, where there are none."""
        from moe.checkpoint.restore import restore

        step = {"newest": None, "best": "best"}.get(self.step, self.step)
        return restore(self.checkpoints, int(step) if str(step).isdecimal() else step)


def places(word: str, step: str) -> list[Place]:
    """The checkpoints that a word means: one, that of a run, or those of all runs of a study.

    Raises Mistake, one line, for a folder that is none of the three.
    """
    folder = files.place(word, f"analyze {word}")
    if not folder.is_dir():
        state = "is a file" if folder.is_file() else "does not exist"
        raise Mistake(f"analyze {word}: {state}; it takes the folder of a run or of a checkpoint")
    folder = folder.absolute()
    if folder.name.isdecimal() and (folder / "record").is_dir():
        if step != "newest":
            raise Mistake(f"--step={step}: {word} is one checkpoint already")
        run = folder.parent.parent
        place = _of_run(run, folder.name) if (run / "experiment.txt").exists() else None
        return [place or Place(str(folder.parent), folder.name, folder.parent, "", "")]
    if (folder / "experiment.txt").exists():
        return [_of_run(folder, step)]
    found = sorted(folder.glob("*/seed*/experiment.txt"), key=lambda path: _order(path.parent))
    if not found:
        raise Mistake(
            f"analyze {word}: holds no run; it takes a folder with experiment.txt, one with "
            "ARM/seedN of a study, or a checkpoint"
        )
    return [_of_run(path.parent, step) for path in found]


def _order(run: pathlib.Path) -> tuple[str, int]:
    seed = _RUN.fullmatch(run.name)
    return run.parent.name, int(seed[1]) if seed else -1


def _of_run(run: pathlib.Path, step: str) -> Place:
    """The checkpoint of a run's folder DIR/ARM/seedN."""
    study, arm, at = "", run.parent.name, str(run / "checkpoints")
    if (run.parent.parent / FILE).exists():
        study = Declaration.read(run.parent.parent).study
    if (run / ELSEWHERE).exists():
        at = f"{files.text(run / ELSEWHERE).strip()}/{arm}/{run.name}"
    return Place(at, step, run, study, arm)


def trace_all(
    found: list[Place], asked: Asked, say: Callable[[str], None]
) -> dict[pathlib.Path, Place]:
    """Writes a trace of each and says so; of several, those that have no routing are left out.

    Returns what was written, with the place that each is of.
    Raises Mistake, one line, when there is one alone and it cannot be traced, or none can.
    """
    if asked.out is not None and len(found) > 1:
        raise Mistake(f"--out={asked.out}: takes one run, {len(found)} are named")
    texts: dict[Any, Any] = {}
    written: dict[pathlib.Path, Place] = {}
    for place in found:
        path = asked.out or place.name
        try:
            say(_trace(place, asked, path, texts))
            written[path] = place
        except Mistake as error:
            if len(found) == 1:
                raise
            say(f"{place.folder}: left out: {error}")
    if not written:
        raise Mistake(f"analyze: none of {len(found)} runs could be traced")
    return written


def common_folder(found: Iterable[Place]) -> pathlib.Path:
    """That of the study which all are of, or else the nearest one that holds all runs."""
    folders = [place.folder for place in found]
    above = {folder.parent.parent for folder in folders}
    if len(above) == 1 and (study := above.pop() / FILE).exists():
        return study.parent
    return pathlib.Path(os.path.commonpath(folders))


def _trace(place: Place, asked: Asked, path: pathlib.Path, texts: dict[Any, Any]) -> str:
    """Writes one trace and says what it holds; `texts` keeps data sets for the next one."""
    from moe.analysis import trace
    from moe.data.windows import open_text
    from moe.training import tracing

    subject = _subject(place, texts)
    if asked.text is None:
        pieces = tracing.of_held_out(subject, asked.tokens)
    else:
        text = open_text(asked.text, subject.dataset)
        pieces = tracing.of_text(subject, text, asked.tokens)
    counted = _Counted()
    about = trace.write(path, counted(pieces))
    if asked.metrics:
        from moe.analysis.summary import summary

        record = json.dumps(summary(trace.read(path)), allow_nan=False)
        files.write(path.with_name(path.stem.replace(NAME, "metrics", 1) + ".json"), record)
    mean = counted.nats / counted.tokens
    return (
        f"trace: {path}: {about.label}, step {about.step}: {counted.tokens:,} tokens, "
        f"{counted.layers} MoE layers, {mean:.4f} nats per token"
    )


def _subject(place: Place, texts: dict[Any, Any]) -> Any:
    """The model of a checkpoint and its text; raises Mistake where the text is another by now."""
    from moe.analysis.trace import About
    from moe.data.loader import load
    from moe.model import watch
    from moe.training import tracing

    params, record = place.restored()
    text = record["experiment"]
    experiment = recorded.experiment(text, f"{place.checkpoints}/{record['step']}: experiment")
    watch.check(experiment.model)
    key = experiment.data, experiment.model.vocab_size
    if key not in texts:
        texts[key] = load(*key)
    dataset = texts[key]
    fingerprints = {"data": dataset.fingerprint, "tokenizer": dataset.tokenizer_fingerprint}
    for name, found in fingerprints.items():
        if record[name] != found:
            raise Mistake(
                f"{place.checkpoints}/{record['step']}: {name}={record[name][:12]}: must be "
                f"{found[:12]}, the fingerprint that data.source={experiment.data.source} has now"
            )
    of = f"{place.study}/{place.arm}".strip("/") or place.folder.name
    about = About(
        label=f"{of} seed {experiment.seed}",
        study=place.study,
        arm=place.arm,
        seed=experiment.seed,
        step=record["step"],
        experiment=text,
        vocabulary=(),
        desks=(),
        classes=(),
        parameters=tracing.fingerprint(params),
        num_layers=experiment.model.num_layers,
    )
    return tracing.Subject(experiment, params, dataset, about)


class _Counted:
    """Passes the pieces of a trace on, and counts."""

    tokens, nats, layers = 0, 0.0, 0

    def __call__(self, pieces: Iterator[Any]) -> Iterator[Any]:
        for piece in pieces:
            self.tokens += piece.tokens
            self.nats += float(piece.loss_T.sum(dtype="float64"))
            self.layers = len(piece.layers)
            yield piece


def validate(path: pathlib.Path, place: Place | None = None) -> str:
    """Checks a trace, and that it is of the model of a place; says what it is.

    Raises Mistake, one line, at what is wrong.
    """
    from moe.analysis import trace
    from moe.training import tracing

    about = trace.validate(path)
    if place is not None:
        params, record = place.restored()
        mine = tracing.fingerprint(params)
        if about.parameters != mine:
            raise Mistake(
                f"{path}: is of another model, {about.label} step {about.step} with "
                f"parameters={about.parameters[:12]}: must be {mine[:12]}, those of "
                f"{place.checkpoints}/{record['step']}"
            )
    return f"{path}: sound: {about.label}, step {about.step}"
