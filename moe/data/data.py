"""Which text a batch is made of: the fields of an experiment's `data`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from moe.data.sources.contract import Folder, Packages, Tfds, parse
from moe.fields import AtLeast, Within
from moe.registry import Mistake

DESKS = ("drama", "scripture", "geography", "code", "languages")
PINNED = {"packages": DESKS, "library": (*DESKS, "dictionary", "mathematics", "services")}
BANDS = 8
SEED = Annotated[int, Within(0, 2**31, "[)")]  # of batches and parameters, as jax.random.key takes

WORD_CLASSES = ("end", "space", "mark", "number", "function", "capital", "word", "inside")


# How many labels there are of each kind; desks and finer classes are those of the text.
LABELS = {"frequency": BANDS, "word": len(WORD_CLASSES)}


@dataclass(frozen=True)
class Data:
    """What a batch is made of; the vocabulary size is the model's.

    Attributes:
      source: "packages", the pinned corpus of five desks; "library", the larger one of eight;
        "folder:PATH", text files in PATH/DOMAIN; "tfds:NAME", data sets of the TFDS catalogue
        joined by +, as "tfds:wiki40b/en+wiki40b/de" (`moe.data.sources`).
      max_documents: of each split of each data set, at most; none is all.
      tokenizer: trained byte pairs, or the bytes themselves.
      sequence_length: tokens of a window.
      held_out_windows: of each desk.
      label: what `Batch.label_BL` says of a token: its document's desk or finer class, its
        frequency band, or its word class (`moe.data.labels`).
    """

    tokenizer: Literal["bpe", "bytes"] = "bpe"
    sequence_length: Annotated[int, AtLeast(1)] = 128
    held_out_windows: Annotated[int, Within(1, 2**20)] = 64
    label: Literal["desk", "class", "frequency", "word"] = "desk"
    source: str = "packages"
    max_documents: Annotated[int, AtLeast(1)] | None = None

    @property
    def text(self) -> Packages | Folder | Tfds:
        """What `source` names."""
        return parse(self.source)

    @property
    def labels(self) -> int | None:
        """How many labels there are; none where only the text can tell."""
        text = self.text
        if self.label == "desk" and isinstance(text, Packages):
            return len(PINNED[text.name])
        return LABELS.get(self.label)

    def check(self, path: str, vocab_size: int) -> None:
        """Raises Mistake, one line that starts with `path` or with model.vocab_size."""
        parse(self.source, f"{path}.source")
        low, high = (258, 65536) if self.tokenizer == "bpe" else (257, 257)
        if not isinstance(vocab_size, int) or not low <= vocab_size <= high:
            rule = f"in [{low}, {high}]" if low < high else f"{low}, each byte and the end,"
            raise Mistake(
                f"model.vocab_size={vocab_size}: must be {rule} with {path}.tokenizer="
                f"{self.tokenizer}"
            )
