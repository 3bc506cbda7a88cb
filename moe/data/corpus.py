"""The labelled documents as a TFDS dataset in array_record files; needs no TensorFlow.

Once prepared, `tfds.data_source("desk_corpus", split="train", data_dir=...)` reads it too.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from moe.data import documents as texts
from moe.data.documents import Document, held_out, stable_hash
from moe.data.sources import SourceError

SPLITS = ("train", "held_out")


class DeskCorpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Text with a desk and a finer class; whole groups of documents are held out.

    Not registered, so that `tfds.data_source` reads the files and asks for no documents.
    """

    VERSION = tfds.core.Version(texts.VERSION)
    RELEASE_NOTES = {texts.VERSION: "Five desks: drama, scripture, geography, code, languages."}

    def __init__(self, *, documents: list[Document], data_dir: Path):
        keys = held_out(documents)
        self.rows = {
            "train": [d for d in documents if d.key not in keys],
            "held_out": [d for d in documents if d.key in keys],
        }
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
        rows = ((s, d.key, d.desk, d.label, d.text) for s in SPLITS for d in self.rows[s])
        return tfds.core.DatasetInfo(
            builder=self,
            description="Text of five kinds, for experiments on what experts specialise in.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict({"fingerprint": fingerprint(rows)}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for document in self.rows[split]:
            row = {"text": document.text, "desk": document.desk, "class": document.label}
            yield document.key, {**row, "key": document.key}


def read(folder: Path, expected: str) -> tuple[list[str], list[str], dict[str, list[dict]]]:
    """Names of the desks and classes, and for each split its rows in a fixed, shuffled order.

    A row has `text`, `key`, and the indices `desk` and `class`. Raises SourceError when the
    fingerprint of what was read is not the expected one.
    """
    try:
        builder = tfds.builder_from_directory(folder)
        desks, classes = (builder.info.features[name].names for name in ("desk", "class"))
        splits = {}
        for split in SPLITS:
            rows = [_row(example) for example in builder.as_data_source(split)]
            splits[split] = sorted(rows, key=lambda row: stable_hash(row["key"]))
        found = fingerprint(
            (split, row["key"], desks[row["desk"]], classes[row["class"]], row["text"])
            for split in SPLITS
            for row in splits[split]
        )
    except Exception as error:  # array_record and protobuf raise errors of many types
        found = f"{type(error).__name__}: {error}".splitlines()[0]
    if found != expected:
        raise SourceError(f"{folder}: damaged ({found}); delete this folder and start again")
    return desks, classes, splits


def _row(example: dict) -> dict:
    text, key = example["text"].decode(), example["key"].decode()
    return {"text": text, "key": key, "desk": int(example["desk"]), "class": int(example["class"])}


def fingerprint(rows: Iterable[tuple[str, str, str, str, str]]) -> str:
    """SHA-256 of (split, key, desk, class, text) of every document, in the order of the keys."""
    total = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row[1]):
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
