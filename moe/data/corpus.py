"""The labelled documents as a TFDS dataset in array_record files; needs no TensorFlow.

Once prepared, `tfds.data_source("desk_corpus", split="train", data_dir=...)` reads it too.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from moe.data import documents as texts
from moe.data.documents import Document, held_out, stable_hash
from moe.data.folder import Piece
from moe.data.sources import SourceError

SPLITS = ("train", "held_out")
CHUNK = 256  # documents read at once


class DeskCorpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Text with a desk and a finer class; whole groups of documents are held out.

    Not registered, so that `tfds.data_source` reads the files and asks for no documents.
    """

    VERSION = tfds.core.Version(texts.VERSION)
    RELEASE_NOTES = {texts.VERSION: "Text, desk, class and key."}

    def __init__(self, *, documents: Sequence[Document | Piece], data_dir: Path):
        keys = held_out(documents)
        self.rows = {
            "train": [d for d in documents if d.key not in keys],
            "held_out": [d for d in documents if d.key in keys],
        }
        for split, rows in self.rows.items():
            if not rows:
                raise SourceError(
                    f"corpus: too little text, {sum(d.size for d in documents)} bytes: no document "
                    f"is left for split {split}; add text"
                )
        self.documents = documents
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        desks = list(dict.fromkeys(document.desk for document in self.documents))
        classes = list(dict.fromkeys(document.label for document in self.documents))
        features = {
            "text": tfds.features.Text(),
            "desk": tfds.features.ClassLabel(names=desks),
            "class": tfds.features.ClassLabel(names=classes),
            "key": tfds.features.Text(),
        }
        rows = sorted(((s, d) for s in SPLITS for d in self.rows[s]), key=lambda row: row[1].key)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Labelled text, for experiments on what experts specialise in.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(
                {"fingerprint": fingerprint((s, d.key, d.desk, d.label, d.text) for s, d in rows)}
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for document in self.rows[split]:
            row = {"text": document.text, "desk": document.desk, "class": document.label}
            yield document.key, {**row, "key": document.key}


@dataclass(frozen=True)
class Rows:
    """Documents in a fixed order, read from the disk when they are asked for.

    Attributes:
      where: the folder that an error names.
      source: what `as_data_source` gives.
      order: the places in it to read.
      row: from an example to {text, key, desk, class}, desk and class by index.
    """

    where: Path
    source: Sequence[dict]
    order: Sequence[int]
    row: Callable[[dict], dict]

    def chunks(self) -> int:
        """How many calls of `chunk` read everything."""
        return -(-len(self.order) // CHUNK)

    def chunk(self, number: int) -> list[dict]:
        """Rows from number * CHUNK on."""
        places = [int(i) for i in self.order[number * CHUNK : (number + 1) * CHUNK]]
        try:
            return [self.row(example) for example in self.source.__getitems__(places)]
        except Exception as error:  # array_record and protobuf raise errors of many types
            raise damaged(self.where, error) from error

    def __iter__(self) -> Iterator[dict]:
        for number in range(self.chunks()):
            yield from self.chunk(number)


def damaged(folder: Path, error: object) -> SourceError:
    """The one line about files that cannot be read or are not what they were."""
    if isinstance(error, Exception):
        error = f"{type(error).__name__}: {error}".splitlines()[0]
    return SourceError(f"{folder}: damaged ({error}); delete this folder and start again")


@dataclass(frozen=True)
class Text:
    """Labelled text that is ready to be tokenised; split name -> its parts, one after the other."""

    desks: list[str]
    classes: list[str]
    splits: dict[str, list[Rows]]


def read(folder: Path, expected: str) -> Text:
    """The prepared corpus, each split in a fixed, shuffled order.

    Raises SourceError when the fingerprint of what was read is not the expected one.
    """
    try:
        builder = tfds.builder_from_directory(folder)
        desks, classes = (builder.info.features[name].names for name in ("desk", "class"))
        sources = {split: builder.as_data_source(split) for split in SPLITS}
    except Exception as error:  # as in Rows.chunk
        raise damaged(folder, error) from error
    splits, places = {}, []
    for split, source in sources.items():
        keys = [row["key"] for row in Rows(folder, source, range(len(source)), _row)]
        order = sorted(range(len(keys)), key=lambda i, keys=keys: stable_hash(keys[i]))
        splits[split] = [Rows(folder, source, order, _row)]
        places += [(key, split, i) for i, key in enumerate(keys)]
    found = fingerprint(
        (split, key, desks[row["desk"]], classes[row["class"]], row["text"])
        for key, split, place in sorted(places)
        for row in Rows(folder, sources[split], [place], _row)
    )
    if found != expected:
        raise damaged(folder, found)
    return Text(desks, classes, splits)


def _row(example: dict) -> dict:
    text, key = example["text"].decode(), example["key"].decode()
    return {"text": text, "key": key, "desk": int(example["desk"]), "class": int(example["class"])}


def fingerprint(rows: Iterable[tuple[str, str, str, str, str]]) -> str:
    """SHA-256 of (split, key, desk, class, text) of every document, in the order of the keys."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
