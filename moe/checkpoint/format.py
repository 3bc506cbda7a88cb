"""What a checkpoint holds on disk, and how it is read: arrays, a record, and a seal."""

import dataclasses
import json
import logging
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from moe.checkpoint.bucket import Bucket
from moe.checkpoint.checksum import checksums
from moe.checkpoint.folder import Folder
from moe.environment import versions
from moe.fields import identity
from moe.files import one_line
from moe.params import names
from moe.registry import Mistake

FORMAT = 2  # 1 had no record; raise it when a reader of the older one would be wrong
SEAL = "files.json"  # SHA-256 of every other file
_LATER = ("commit_success.txt", "_CHECKPOINT_METADATA")  # orbax writes them last, and reads neither


class Damaged(Exception):
    """A checkpoint that is not what was written; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Whose checkpoints these are; those of another are refused.

    Attributes:
      experiment: the expression that rebuilds the run; where its classes lie does not count.
      data, tokenizer: fingerprints.
    """

    experiment: str
    data: str = ""
    tokenizer: str = ""

    def differs(self, record: dict[str, Any]) -> str | None:
        """The first key in which the record of a checkpoint is of another, or None."""
        for key, mine in dataclasses.asdict(self).items():
            if identity(record[key]) != identity(mine):
                return key
        return None


def items(state: Any, step: int, loss: float | None, identity: Identity, sums: dict) -> Any:
    """What orbax saves: the state and its record."""
    record = {
        "format": FORMAT,
        "step": step,
        "loss": loss,
        **dataclasses.asdict(identity),
        "versions": versions(),
        "leaves": {
            name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "sum": sums[name]}
            for name, leaf in zip(names(state), jax.tree.leaves(state), strict=True)
        },
        "empty": [name for name in names(state, is_leaf=_empty) if name not in sums],
    }
    return ocp.args.Composite(state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(record))


def _empty(node: Any) -> bool:
    return isinstance(node, dict) and not node


def open_orbax(before_naming: Callable[[], None] | None = None) -> ocp.AsyncCheckpointer:
    """Reads and writes checkpoints; to be closed. The callback comes when all files are written."""
    _hush()
    options = ocp.options.AsyncOptions(post_finalization_callback=before_naming)
    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=options)


def _hush() -> None:
    """A failure of orbax is pages of logs, and writes that end after their loop; ours is a line."""
    logging.getLogger("absl").addFilter(_not_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_about_orbax)
    before = sys.unraisablehook
    if getattr(before, "__module__", "") != __name__:

        def hook(found):
            if not ("Event loop is closed" in str(found.exc_value) or _unread(found.object)):
                before(found)

        sys.unraisablehook = hook


def _unread(what: object) -> bool:
    """Whether this is a coroutine of orbax, left behind when another leaf could not be read."""
    code = getattr(what, "cr_code", None)
    return code is not None and "orbax" in pathlib.Path(code.co_filename).parts


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in pathlib.Path(record.pathname).parts


def _not_about_orbax(record: logging.LogRecord) -> bool:
    """Neither the message nor the traceback beside it names orbax."""
    frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
    files = [pathlib.Path(frame.f_code.co_filename) for frame, _ in frames]
    return "orbax" not in record.getMessage() and not any("orbax" in f.parts for f in files)


def seal(place: Folder | Bucket, name: object) -> None:
    """Writes what every file of a checkpoint hashes to, before the checkpoint is finished."""
    written = [file for file in place.files(name) if file.split("/")[-1] not in (*_LATER, SEAL)]
    found = place.digests(name, dict.fromkeys(written, place.kind))
    place.write(name, SEAL, json.dumps({f: _marked(d) for f, d in found.items()}, indent=0))


def _marked(digest: str) -> str:
    return f"md5:{digest}" if len(digest) == 32 else digest


def verify(place: Folder | Bucket, name: object, within: str = "") -> None:
    """Raises Damaged unless every file, or those of one item, is the one that was written."""
    try:
        sealed = json.loads(place.read(name, SEAL))
        if not isinstance(sealed, dict):
            raise Damaged(f"{SEAL} is not the file that was written")
        wanted = {file: sealed[file] for file in sealed if file.startswith(within)}
        if not wanted:
            raise Damaged(f"{SEAL} names no file")
        kinds = {f: "md5" if str(d).startswith("md5:") else "sha256" for f, d in wanted.items()}
        here = place.digests(name, kinds)
        for file, digest in wanted.items():
            if file not in here:
                raise Damaged(f"{file} is missing")
            if _marked(here[file]) != digest:
                raise Damaged(f"{file} is not the file that was written")
    except (OSError, ValueError, TypeError) as error:
        raise Damaged(f"{SEAL} cannot be used, {one_line(error)}") from error


def read_record(orbax: ocp.AsyncCheckpointer, place: Folder | Bucket, step: int) -> dict:
    """The record of a checkpoint; raises Damaged, or Mistake for another format."""
    if place.has(f"{step}/experiment") and not place.has(f"{step}/record"):
        raise Mistake(_another_format(f"{place}/{step}", 1))
    verify(place, step, "record/")
    try:
        wanted = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = orbax.restore(place.place(step), args=wanted)["record"]
    except Exception as error:
        raise Damaged(f"record: {one_line(error)}") from error
    if record["format"] != FORMAT:
        raise Mistake(_another_format(f"{place}/{step}", record["format"]))
    return record


def _another_format(path: str, found: int) -> str:
    return (
        f"{path}: format={found}: this version reads format {FORMAT}; finish the run with the "
        "version that began it, or choose another workdir"
    )


def read_arrays(
    orbax: ocp.AsyncCheckpointer,
    place: Folder | Bucket,
    step: int,
    wanted: Any,
    leaves: dict,
) -> Any:
    """Restores the wanted leaves and verifies them; raises Damaged in every process or in none.

    Args:
      leaves: what the record says of all that are there.
    """
    restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    partial = len(jax.tree.leaves(wanted)) < len(leaves)
    items = ocp.args.PyTreeRestore(wanted, restore_args, partial_restore=partial)
    why, found = "", None
    try:
        verify(place, step)
        found = orbax.restore(place.place(step), args=ocp.args.Composite(state=items))["state"]
    except Damaged as error:
        why = str(error)
    except Exception as error:
        why = one_line(error)
    if jax.process_count() > 1:
        failed = multihost_utils.process_allgather(bool(why)).any()
        why = why or ("another process could not read it" if failed else "")
    if why:
        raise Damaged(why)
    sums, _ = checksums(found)
    for name, found_sum in sums.items():
        if leaves[name]["sum"] != found_sum:
            raise Damaged(f"the checksum of {name} is wrong")
    return found
