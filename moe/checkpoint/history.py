"""Checkpoints: atomic, saved in the background by orbax, verified leaf by leaf when restored.

A checkpoint is a folder DIR/STEP with two items: "state", the arrays, and "record", JSON that says
whose they are, what wrote them and a checksum of every leaf; "files.json" has a hash of every file.
It is there whole or not at all. Reading one runs none of its content. DIR may be in a bucket.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax

from moe.checkpoint import places
from moe.checkpoint.checksum import checksums
from moe.checkpoint.format import (
    Damaged,
    Identity,
    items,
    open_orbax,
    read_arrays,
    read_record,
    seal,
)
from moe.devices.processes import is_first
from moe.files import Failed, one_line
from moe.params import names
from moe.registry import Mistake


class Checkpoints:
    """The checkpoints of one run: the last ones, the best ones, and that of step 0."""

    def __init__(
        self,
        directory: str | os.PathLike,
        identity: Identity,
        keep_last: int = 2,
        keep_best: int = 1,
        say: Callable[[str], None] = lambda line: None,
    ):
        """Opens or creates `directory`, and clears what a kill left half written or half deleted.

        Args:
          directory: a folder, or gs://BUCKET/PATH.
          keep_last: how many of the newest to keep.
          keep_best: how many to keep besides, of lowest held-out loss; only those that were saved
            with a finite loss compete.
          say: gets a line when something is wrong that the run survives.
        """
        self.place, self._identity, self._say = places.at(directory), identity, say
        self._keep_last, self._keep_best = keep_last, keep_best
        self.place.make()
        if is_first():
            self.place.clear()
        self._orbax = open_orbax(self._seal)
        self._loss = {step: self._saved_loss(step) for step in self.place.steps()}

    def save(self, step: int, state: Any, loss: float | None = None) -> None:
        """Starts to save the state; does nothing when this step is saved already.

        Raises FloatingPointError, and saves nothing, for a state that is not finite; Failed, one
        line, when this or the save before it could not be written.
        """
        self.wait()
        if step in self._loss:
            return
        sums, bad = checksums(state)
        if bad:
            raise FloatingPointError(
                f"{bad[0]} is not finite at step {step}: the run stops and does not save it; "
                f"{self._kept()}"
            )
        loss = loss if loss is not None and math.isfinite(loss) else None
        what = items(state, step, loss, self._identity, sums)
        self._written(step, lambda: self._orbax.save(self.place.place(step), args=what))
        self._loss[step] = loss

    def restore(self, abstract: Any) -> tuple[int, Any] | None:
        """The newest whole checkpoint, as (step, state), or None when there is none at all.

        Damaged ones above it are set aside, as STEP.damaged, each with a line.

        Args:
          abstract: the state as jax.ShapeDtypeStruct leaves, with shardings.

        Raises Mistake, one line, for checkpoints of another experiment, data, tokeniser, format
        or program, and when all are damaged; nothing is changed then.
        """
        damaged, found = {}, None
        for step in sorted(self._loss, reverse=True):
            try:
                found = step, self._whole(step, abstract)
                break
            except Damaged as error:
                damaged[step] = str(error)
        if damaged and found is None:
            reasons = "; ".join(f"{step}: {why}" for step, why in damaged.items())
            raise Mistake(
                f"{self.place}: no checkpoint can be used ({reasons}); nothing was changed; "
                "remove this folder to begin again, or choose another workdir"
            )
        for step, why in damaged.items():
            aside = self._set_aside(step)
            self._say(f"{self.place}/{step}: damaged ({why}); kept as {aside}")
        if damaged and found:
            self._say(f"{self.place}: goes on from step {found[0]}")
        return found

    def wait(self) -> None:
        """Waits until the last save is on disk, then deletes what is not to be kept."""
        if self._loss:
            self._written(max(self._loss), self._orbax.wait_until_finished)
        self._prune()

    def close(self) -> None:
        """Waits like `wait`, and ends the threads of orbax whatever happens."""
        try:
            self.wait()
        finally:
            self._orbax.close()

    def _whole(self, step: int, abstract: Any) -> Any:
        """The state of a step; raises Damaged, or Mistake for another owner."""
        record = read_record(self._orbax, self.place, step)
        key = self._identity.differs(record)
        if key:
            mine = getattr(self._identity, key)
            shown = f" ({record[key][:16]} there, {mine[:16]} here)" * (key != "experiment")
            raise Mistake(
                f"{self.place}: holds checkpoints of another {key}{shown}; "
                "compare experiment.txt, or choose another workdir"
            )
        if record["step"] != step:
            raise Damaged(f"the record is of step {record['step']}")
        here = {
            name: [list(leaf.shape), str(leaf.dtype)]
            for name, leaf in zip(names(abstract), jax.tree.leaves(abstract), strict=True)
        }
        there = {name: [leaf["shape"], leaf["dtype"]] for name, leaf in record["leaves"].items()}
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                raise Mistake(
                    f"{self.place}/{step}: {name} is {there.get(name, 'absent')} there, "
                    f"{here.get(name, 'absent')} in this program; choose another workdir"
                )
        return read_arrays(self._orbax, self.place, step, abstract, record["leaves"])

    def _written(self, step: int, act: Callable[[], None]) -> None:
        """Saves or waits; raises Failed, one line, when that fails."""
        try:
            act()
        except Exception as error:
            self._loss.pop(step, None)
            with contextlib.suppress(Exception):  # told once
                self._orbax.wait_until_finished()
            for _ in range(10):  # writers of orbax outlive its failure and make folders anew
                with contextlib.suppress(OSError):  # the place failed already; a start clears
                    self.place.clear(step)
                time.sleep(0.1)
            raise Failed(
                f"{self.place}/{step}: could not be saved ({one_line(error)}); "
                f"{self._kept()}; the same command resumes"
            ) from error

    def _seal(self) -> None:
        """Called by orbax, in its thread, when all files are written but it is not finished."""
        if is_first():
            (name,) = self.place.unfinished()
            seal(self.place, name)

    def _kept(self) -> str:
        found = self.place.steps()
        return f"checkpoint {max(found)} is kept" if found else "there is no checkpoint yet"

    def _saved_loss(self, step: int) -> float | None:
        try:
            return read_record(self._orbax, self.place, step)["loss"]
        except (Damaged, Mistake):
            return None

    def _prune(self) -> None:
        """Deletes what is neither step 0, nor among the last, nor among the best."""
        best = sorted((loss, step) for step, loss in self._loss.items() if loss is not None)
        keep = {0, *sorted(self._loss)[-self._keep_last :]}
        keep |= {step for _, step in best[: self._keep_best]}
        for step in sorted(self._loss.keys() - keep):
            del self._loss[step]
            if is_first():
                self.place.remove(step)

    def _set_aside(self, step: int) -> str:
        """Renames the folder of a step, so that the step can be saved again."""
        del self._loss[step]
        aside, n = f"{step}.damaged", 1
        while self.place.has(aside):
            n += 1
            aside = f"{step}.damaged-{n}"
        if is_first():
            self.place.rename(step, aside)
        return aside


def abstract(state: Any) -> Any:
    """The shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state
    )
