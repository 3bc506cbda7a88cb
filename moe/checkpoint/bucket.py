"""Checkpoints in a bucket of Google Cloud Storage, which several machines reach by one address.

A bucket renames nothing: orbax writes under the final name, and an object COMMITTED, written last,
says that a folder is whole. Credentials are those that Google's libraries find by themselves.
"""

import base64
import functools
import hashlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

from etils import epath

from moe.files import Failed, numbers, one_line
from moe.registry import Mistake

COMMITTED = "commit_success.txt"


def _told(method: Callable) -> Callable:
    """Makes every failure of the service a `Failed`."""

    @functools.wraps(method)
    def told(self, *args):
        try:
            return method(self, *args)
        except (FileNotFoundError, Failed):
            raise
        except Exception as error:
            raise Failed(f"{self}: {one_line(error)}") from error

    return told


class Bucket:
    """A folder of a bucket, gs://BUCKET/PATH; its methods are those of `Folder`."""

    kind = "md5"  # the service knows it of every object that was not put together from parts

    def __init__(self, url: str):
        if importlib.util.find_spec("gcsfs") is None:
            raise Mistake(f"{url}: needs a package: pip install -r requirements-gs.txt")
        import fsspec
        from fsspec.config import conf

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # pages, before a failure is raised
        self.url = url.rstrip("/")
        # What orbax lists must not be remembered: other processes, and we here, change it.
        conf.setdefault("gs", {})["use_listings_cache"] = False
        self._fs = fsspec.filesystem("gs")

    def __str__(self) -> str:
        return self.url

    def make(self) -> None:
        """Makes nothing, as a bucket knows no folders; raises Failed unless the bucket answers."""
        try:
            self._look()
        except FileNotFoundError:
            raise Failed(f"{self}: there is no such bucket") from None

    @_told
    def _look(self) -> None:
        self._fs.ls("/".join(self.url.split("/")[:3]), detail=False)

    @_told
    def clear(self, step: int | str = "*") -> None:
        """Removes what a kill or a failure left half written or half deleted."""
        for name in self.unfinished(step):
            self._rm(name)

    @_told
    def _rm(self, name: object) -> None:
        self._fs.rm(f"{self.url}/{name}", recursive=True)

    @_told
    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, whole or damaged, in order."""
        return [step for step in self._numbered() if self._fs.exists(self._path(step, COMMITTED))]

    @_told
    def unfinished(self, step: int | str = "*") -> list[str]:
        """The folders of a step that are being written, or were when a kill came."""
        found = {str(n) for n in self._numbered()} - {str(n) for n in self.steps()}
        return sorted(found if step == "*" else found & {str(step)})

    def _numbered(self) -> list[int]:
        try:
            found = self._fs.ls(self.url, detail=False)
        except FileNotFoundError:
            found = []
        return numbers(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def place(self, name: object) -> epath.Path:
        """The folder of that name, as orbax takes it."""
        return epath.Path(f"{self.url}/{name}")

    @_told
    def files(self, name: object) -> list[str]:
        """All files of a folder, by their paths in it."""
        return sorted(self._listed(name))

    @_told
    def digests(self, name: object, kinds: dict[str, str]) -> dict[str, str]:
        """File -> hexadecimal digest, of those files that are there; each of the kind asked."""
        found = {}
        for file, known in self._listed(name).items():
            if kinds.get(file) == self.kind and "md5Hash" in known:
                found[file] = base64.b64decode(known["md5Hash"]).hex()
            elif file in kinds:  # as of a checkpoint that was copied here
                with self._fs.open(self._path(name, file), "rb") as stream:
                    found[file] = hashlib.file_digest(stream, kinds[file]).hexdigest()
        return found

    def _listed(self, name: object) -> dict[str, dict[str, Any]]:
        """What the service knows of every file of a folder."""
        before = self._path(name, "").removeprefix("gs://")
        found = self._fs.find(f"{self.url}/{name}", detail=True)
        return {path.removeprefix(before): info for path, info in found.items()}

    @_told
    def read(self, name: object, file: str) -> str:
        """The text of a file; raises OSError when there is none."""
        return self._fs.cat_file(self._path(name, file)).decode("utf-8")

    @_told
    def write(self, name: object, file: str, text: str) -> None:
        """Writes a file."""
        self._fs.pipe_file(self._path(name, file), text.encode("utf-8"))

    @_told
    def remove(self, name: object) -> None:
        """Deletes a folder, which loses its mark first: it is there whole, or not at all."""
        if self._fs.exists(self._path(name, COMMITTED)):
            self._fs.rm_file(self._path(name, COMMITTED))
        self._rm(name)

    @_told
    def has(self, name: object) -> bool:
        """Whether something has that name."""
        return self._fs.exists(f"{self.url}/{name}")

    @_told
    def rename(self, name: object, other: str) -> None:
        """Gives a folder another name: copies it, then deletes it."""
        self._fs.mv(f"{self.url}/{name}", f"{self.url}/{other}", recursive=True)

    def _path(self, name: object, file: str) -> str:
        return "/".join([self.url, *([str(name)] if str(name) else []), file])
