"""Checkpoints: atomic, saved in the background by orbax, verified leaf by leaf when restored.

A checkpoint is a folder DIR/STEP with two items: "state", the arrays, and "record", JSON that says
whose they are, what wrote them and a checksum of every leaf; "files.json" has a hash of every file.
It appears whole under its name or not at all. Reading one runs none of its content.
"""

import dataclasses
import functools
import math
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax

from moe.checkpoint_format import (
    Damaged,
    Identity,
    items,
    one_line,
    open_orbax,
    read_arrays,
    read_record,
    seal,
    steps,
)
from moe.checksum import checksums, names
from moe.mesh import is_first


class Checkpoints:
    """The checkpoints of one run: the last ones, the best ones, and that of step 0."""

    def __init__(
        self,
        directory: pathlib.Path,
        identity: Identity,
        keep_last: int = 2,
        keep_best: int = 1,
        say: Callable[[str], None] = lambda line: None,
    ):
        """Opens or creates `directory`, and clears what a kill left half written or half deleted.

        Args:
          keep_last: how many of the newest to keep.
          keep_best: how many to keep besides, of lowest held-out loss; only those that were saved
            with a finite loss compete.
          say: gets a line when something is wrong that the run survives.
        """
        self._directory, self._identity, self._say = directory.absolute(), identity, say
        self._keep_last, self._keep_best = keep_last, keep_best
        self._directory.mkdir(parents=True, exist_ok=True)
        if is_first():
            for left in self._directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
            for left in self._directory.glob("*.deleted"):
                shutil.rmtree(left, ignore_errors=True)
        self._orbax = open_orbax(self._seal)
        self._loss = {step: self._saved_loss(step) for step in steps(self._directory)}

    def save(self, step: int, state: Any, loss: float | None = None) -> None:
        """Starts to save the state; does nothing when this step is saved already.

        Raises FloatingPointError, and saves nothing, for a state that is not finite; OSError, one
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
        self._written(step, lambda: self._orbax.save(self._directory / str(step), args=what))
        self._loss[step] = loss

    def restore(self, abstract: Any) -> tuple[int, Any] | None:
        """The newest whole checkpoint, as (step, state), or None when there is none at all.

        Damaged ones above it are set aside, as STEP.damaged, each with a line.

        Args:
          abstract: the state as jax.ShapeDtypeStruct leaves, with shardings.

        Raises ValueError, one line, for checkpoints of another experiment, data, tokeniser, format
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
            raise ValueError(
                f"{self._directory}: no checkpoint can be used ({reasons}); nothing was changed; "
                "remove this folder to begin again, or choose another workdir"
            )
        for step, why in damaged.items():
            aside = self._set_aside(step)
            self._say(f"{self._directory / str(step)}: damaged ({why}); kept as {aside.name}")
        if damaged:
            self._say(f"{self._directory}: goes on from step {found[0]}")
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
        """The state of a step; raises Damaged, or ValueError for another owner."""
        path = self._directory / str(step)
        record = read_record(self._orbax, path)
        for key, mine in dataclasses.asdict(self._identity).items():
            if record[key] != mine:
                shown = f" ({record[key][:16]} there, {mine[:16]} here)" * (key != "experiment")
                raise ValueError(
                    f"{self._directory}: holds checkpoints of another {key}{shown}; "
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
                raise ValueError(
                    f"{path}: {name} is {there.get(name, 'absent')} there, "
                    f"{here.get(name, 'absent')} in this program; choose another workdir"
                )
        return read_arrays(self._orbax, path, abstract, record["leaves"])

    def _written(self, step: int, act: Callable[[], None]) -> None:
        """Saves or waits; raises OSError, one line, when that fails."""
        try:
            act()
        except Exception as error:
            self._loss.pop(step, None)
            for _ in range(10):  # writers of orbax outlive its failure and make folders anew
                for left in self._directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(left, ignore_errors=True)
                time.sleep(0.1)
            raise OSError(
                f"{self._directory / str(step)}: could not be saved ({one_line(error)}); "
                f"{self._kept()}; the same command resumes"
            ) from error

    def _seal(self) -> None:
        """Called by orbax, in its thread, when all files are written and none has its name yet."""
        if is_first():
            (path,) = self._directory.glob("*.orbax-checkpoint-tmp*")
            seal(path)

    def _kept(self) -> str:
        found = steps(self._directory)
        return f"checkpoint {max(found)} is kept" if found else "there is no checkpoint yet"

    def _saved_loss(self, step: int) -> float | None:
        try:
            return read_record(self._orbax, self._directory / str(step))["loss"]
        except (Damaged, ValueError):
            return None

    def _prune(self) -> None:
        """Deletes what is neither step 0, nor among the last, nor among the best."""
        best = sorted((loss, step) for step, loss in self._loss.items() if loss is not None)
        keep = {0, *sorted(self._loss)[-self._keep_last :]}
        keep |= {step for _, step in best[: self._keep_best]}
        for step in sorted(self._loss.keys() - keep):
            del self._loss[step]
            if is_first():
                gone = self._directory / f"{step}.deleted"
                (self._directory / str(step)).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _set_aside(self, step: int) -> pathlib.Path:
        """Renames the folder of a step, so that the step can be saved again."""
        del self._loss[step]
        path, n = self._directory / str(step), 1
        aside = path.with_name(f"{step}.damaged")
        while aside.exists():
            n += 1
            aside = path.with_name(f"{step}.damaged-{n}")
        if is_first():
            path.rename(aside)
        return aside


def restore_params(directory: pathlib.Path, step: int | str | None = None) -> Any:
    """The parameters alone, verified, on one device; for analysis.

    Args:
      directory: of the checkpoints, RUN/checkpoints.
      step: a step, "best" for the lowest held-out loss, None for the newest.

    Raises ValueError, one line, when there is no such checkpoint or it is damaged.
    """
    directory = pathlib.Path(directory).absolute()
    found = steps(directory) if directory.is_dir() else []
    orbax = open_orbax()
    try:
        if step == "best":
            losses = [(read_record(orbax, directory / str(s))["loss"], s) for s in found]
            known = [(loss, s) for loss, s in losses if loss is not None]
            step = min(known)[1] if known else "best"
        elif step is None and found:
            step = found[-1]
        if step not in found:
            shown = ", ".join(map(str, found)) or "none"
            raise ValueError(f"{directory}: step={step}: no such checkpoint (valid: {shown})")
        path = directory / str(step)
        record = read_record(orbax, path)
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        params: dict = {}
        for name in (*record["leaves"], *record["empty"]):
            if name.startswith("params/"):
                *parents, last = name.split("/")[1:]
                place = functools.reduce(
                    lambda node, key: node.setdefault(key, {}), parents, params
                )
                place[last] = {}
                if name in record["leaves"]:
                    leaf = record["leaves"][name]
                    place[last] = jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"], sharding=here)
        wanted = {"params": params}
        return read_arrays(orbax, path, wanted, record["leaves"], partial=True)["params"]
    except Damaged as error:
        raise ValueError(f"{directory}: damaged ({error}); name another step") from error
    finally:
        orbax.close()


def abstract(state: Any) -> Any:
    """The shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state
    )
