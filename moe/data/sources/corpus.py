"""The labelled documents as a TFDS dataset in array_record files; needs no TensorFlow.

Once prepared, `tfds.data_source("desk_corpus", split="train", data_dir=...)` reads it too.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from moe.data.sources import desks
from moe.data.sources.contract import SPLITS, Rows, SourceError, Text, damaged
from moe.data.sources.documents import Document, held_out, stable_hash
from moe.data.sources.folder import Piece


class DeskCorpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Text with a desk and a finer class; whole groups of documents are held out.

    Not registered, so that `tfds.data_source` reads the files and asks for no documents.
    """

    VERSION = tfds.core.Version(desks.VERSION)
    RELEASE_NOTES = {desks.VERSION: "Text, desk, class and key."}

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
                    f"is left for split {split}; add text that is not there yet"
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


def read(folder: Path, expected: str) -> Text:
    """The prepared corpus, each split in a fixed, shuffled order.

    Raises SourceError when the fingerprint of what was read is not the expected one.
    """
    try:
        builder: Any = tfds.builder_from_directory(folder)
        desks, classes = (builder.info.features[name].names for name in ("desk", "class"))
        sources = {split: builder.as_data_source(split) for split in SPLITS}
    except Exception as error:  # as in Rows.chunk
        raise damaged(folder, error) from error
    splits, found = {}, []
    for split, source in sources.items():
        keys = [row["key"] for row in Rows(folder, source, range(len(source)), _row)]
        order = sorted(range(len(keys)), key=lambda i, keys=keys: stable_hash(keys[i]))
        splits[split] = [Rows(folder, source, order, _row)]
        found += [(key, split, i) for i, key in enumerate(keys)]
    now = fingerprint(
        (split, key, desks[row["desk"]], classes[row["class"]], row["text"])
        for key, split, i in sorted(found)
        for row in Rows(folder, sources[split], [i], _row)
    )
    if now != expected:
        raise damaged(folder, now)
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
