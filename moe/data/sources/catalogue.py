"""Data sets of the TFDS catalogue (tensorflow.org/datasets), read without TensorFlow.

What is read was prepared before in array_record files, `python -m experiments data prepare NAME`;
the preparing of most sets needs TensorFlow, the reading never does.
"""

import contextlib
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe.data.sources import contents, contract
from moe.data.sources.contract import NAME, SourceError
from moe.files import content, one_line, place
from moe.registry import no_such

TEXTS = (("text",), ("title", "description"))  # the first of which a set has all features
WHOLE = 2**36  # bytes of a set
HELD_OUT = ("validation", "test")  # the first split that a set has


@dataclass(frozen=True)
class Prepared:
    """A prepared data set: name without version, its folder, and split -> (documents, bytes)."""

    name: str
    version: str
    folder: Path
    splits: dict[str, tuple[int, int]]

    @property
    def held_out(self) -> str:
        """The split that is never trained on."""
        for split in HELD_OUT:
            if split in self.splits:
                return split
        raise SourceError(
            f"data.source=tfds:{self.name}: must have a split {' or '.join(HELD_OUT)}, has "
            f"{', '.join(self.splits) or 'none'}"
        )


def kept_in() -> Path:
    """Where TFDS keeps its data sets: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    named = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return place(named, f"TFDS_DATA_DIR={named}")


def find(name: str) -> Prepared:
    """The newest prepared version, or the one named; imports no TFDS.

    Raises SourceError, one line with the command that prepares it.
    """
    parts = NAME.fullmatch(name)
    if parts is None:
        raise SourceError(f"data.source=tfds:{name}: must be NAME, NAME/CONFIG or NAME:VERSION")
    above = kept_in() / parts["name"] / (parts["config"] or "")
    versions = sorted(above.glob("*/dataset_info.json"), key=_version)
    if parts["version"]:
        versions = [path for path in versions if path.parent.name == parts["version"]]
    if not versions:
        configs = sorted({path.parts[-3] for path in above.glob("*/*/dataset_info.json")})
        known = f"name one of its configs: {', '.join(f'{name}/{c}' for c in configs)}; or "
        raise SourceError(
            f"data.source=tfds:{name}: not prepared in {kept_in()}; {known if configs else ''}run "
            f"python -m experiments data prepare {name}, or set TFDS_DATA_DIR to where it is"
        )
    path = versions[-1]
    try:
        info = content(path)
        splits = {
            row["name"]: (sum(map(int, row["shardLengths"])), int(row["numBytes"]))
            for row in info["splits"]
        }
        formats = {info["fileFormat"], *info.get("alternativeFileFormats", ())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: is not the record of a data set ({error!r})") from error
    if "array_record" not in formats:
        raise SourceError(
            f"data.source=tfds:{name}: prepared as {', '.join(sorted(formats))} in {path.parent}: "
            f"must be array_record; move it away and run python -m experiments data prepare {name}"
        )
    return Prepared(name.partition(":")[0], path.parent.name, path.parent, splits)


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", path.parent.name))


def fingerprint(sets: list[Prepared]) -> str:
    """SHA-256 of names, versions and sizes; the text itself is in that of the tokens."""
    rows = [[one.name, one.version, sorted(one.splits.items())] for one in sets]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def key(sets: list[Prepared], memory: Path) -> str:
    """SHA-256 of names, versions and the content of all files.

    Of a set of more than WHOLE bytes each file counts by its length and its two ends. Hashes are
    remembered in the folder `memory` (`contents.digests`).
    """
    rows = []
    for one in sets:
        with os.scandir(one.folder) as entries:
            found = {e.path: contents.state(e.stat()) for e in entries if e.is_file()}
        found = dict(sorted(found.items()))
        whole = sum(state.size for state in found.values()) <= WHOLE
        name = hashlib.sha256(str(one.folder).encode()).hexdigest()[:16]
        digests = contents.digests(found, memory / f"{name}.json", whole)
        rows.append([one.name, one.version, [os.path.basename(path) for path in found], digests])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read(sets: list[Prepared]):
    """Text of the sets one after the other, a `Text` in the order of the files.

    Desks are the names of a set's feature `label`, where it has one, else its own name; several
    sets of which one has labels are told apart by names before them. Finer classes are the desks.
    """
    import tensorflow_datasets as tfds

    desks, splits = [], {split: [] for split in contract.SPLITS}
    for one in sets:
        held_out = one.held_out
        try:
            builder: Any = tfds.builder_from_directory(one.folder)
            features = dict(builder.info.features)
            sources = [builder.as_data_source(split) for split in ("train", held_out)]
        except Exception as error:  # as in corpus.Rows.chunk
            raise contract.damaged(one.folder, error) from error
        names = list(getattr(features.get("label"), "names", None) or ())
        label = "label" if names else None
        prefix = f"{one.name}/" if len(sets) > 1 else ""
        row = _reader(one, list(features), label, len(desks))
        desks += [prefix + name for name in names] or [one.name]
        for split, source in zip(contract.SPLITS, sources, strict=True):
            splits[split].append(contract.Rows(one.folder, source, range(len(source)), row))
    return contract.Text(desks, desks, splits)


def _reader(one: Prepared, features: list[str], label: str | None, first: int):
    """From an example of the set to a row, whose desk counts from `first`."""
    fields = next((fields for fields in TEXTS if set(fields) <= set(features)), None)
    if fields is None:
        wanted = " or ".join(", ".join(fields) for fields in TEXTS)
        raise SourceError(
            f"data.source=tfds:{one.name}: must have features {wanted}, has {', '.join(features)}"
        )
    plain = _plain_wiki if one.name.partition("/")[0] == "wiki40b" else str

    def row(example: dict) -> dict:
        text = "\n".join(example[field].decode("utf-8", "replace") for field in fields)
        desk = first + (int(example[label]) if label else 0)
        return {"text": plain(text), "key": "", "desk": desk, "class": desk}

    return row


def _plain_wiki(text: str) -> str:
    """wiki40b without its marks of articles, sections, paragraphs and lines."""
    text = re.sub(r"\s*_START_(ARTICLE|SECTION|PARAGRAPH)_\s*", "\n\n", text)
    return text.replace("_NEWLINE_", "\n").strip() + "\n"


def prepare(name: str) -> Path:
    """Downloads and prepares a set in array_record files where `find` looks; its folder.

    Raises SourceError, one line, for a name that TFDS does not know and for whatever fails there.
    """
    if not NAME.fullmatch(name):
        raise SourceError(f"data prepare {name}: must be NAME, NAME/CONFIG or NAME:VERSION of TFDS")
    import tensorflow_datasets as tfds

    with contextlib.suppress(ImportError):  # registered only when imported
        import tensorflow_datasets.text.c4  # noqa: F401
        import tensorflow_datasets.text.wiki40b  # noqa: F401
    silence = io.StringIO()  # TFDS prints and draws bars
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            builder = tfds.builder(name, data_dir=kept_in(), file_format="array_record")
            options = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=options)
    except tfds.core.DatasetNotFoundError as error:
        known = no_such(
            "data set",
            name.partition("/")[0].partition(":")[0],
            tfds.list_builders(with_community_datasets=False),
        )
        raise SourceError(f"data prepare {name}: {known.partition(' (valid')[0]}") from error
    except Exception as error:  # of many libraries: network, disk, TensorFlow, Beam
        if full_disk := contract.full(error):
            raise contract.no_room(full_disk, kept_in()) from error
        reason = one_line(error, 300)
        needs = "; most sets need TensorFlow to be prepared, c4 and wiki40b also apache-beam"
        raise SourceError(f"data prepare {name}: {reason}{needs}") from error
    return Path(builder.data_path)
