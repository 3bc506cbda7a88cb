"""Where checkpoints lie: folders of files, each under a name. `Bucket` has the same methods."""

import errno
import os
import pathlib

from moe.files import digest, numbers, remove, text


class Folder:
    """A folder of this machine, or one that all processes mount."""

    kind = "sha256"  # of the digests that seal a checkpoint

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).absolute()

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        """Makes the place, unless it is there."""
        self.path.mkdir(parents=True, exist_ok=True)

    def clear(self, step: int | str = "*") -> None:
        """Removes what a kill or a failure left half written or half deleted."""
        deleted = [path.name for path in self.path.glob(f"{step}.deleted")]
        for name in (*self.unfinished(step), *deleted):
            remove(self.path / name)

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, whole or damaged, in order."""
        found = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        return numbers(found)

    def unfinished(self, step: int | str = "*") -> list[str]:
        """The folders of a step that are being written, or were when a kill came."""
        return [path.name for path in self.path.glob(f"{step}.orbax-checkpoint-tmp*")]

    def place(self, name: object) -> pathlib.Path:
        """The folder of that name, as orbax takes it."""
        return self.path / str(name)

    def files(self, name: object) -> list[str]:
        """All files of a folder, by their paths in it."""
        folder = self.path / str(name)
        found = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return [path.relative_to(folder).as_posix() for path in found]

    def digests(self, name: object, kinds: dict[str, str]) -> dict[str, str]:
        """File -> hexadecimal digest, of those files that are there; each of the kind asked."""
        found = {}
        for file, kind in kinds.items():
            if (self.path / str(name) / file).is_file():
                found[file] = digest(self.path / str(name) / file, kind)
        return found

    def read(self, name: object, file: str) -> str:
        """The text of a file; raises FileNotFoundError when there is none, else as `text`."""
        path = self.path / str(name) / file
        if not os.path.lexists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return text(path)

    def write(self, name: object, file: str, text: str) -> None:
        """Writes a file."""
        (self.path / str(name) / file).write_text(text, encoding="utf-8")

    def remove(self, name: object) -> None:
        """Deletes a folder, which loses its name first: it is there whole, or not at all."""
        gone = self.path / f"{name}.deleted"
        (self.path / str(name)).rename(gone)
        remove(gone)

    def has(self, name: object) -> bool:
        """Whether something has that name."""
        return (self.path / str(name)).exists()

    def rename(self, name: object, other: str) -> None:
        """Gives a folder another name."""
        (self.path / str(name)).rename(self.path / other)
