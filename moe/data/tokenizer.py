"""Byte-level BPE (Sennrich et al., arXiv:1508.07909, over bytes) trained here, and plain bytes.

The last id, vocab_size - 1, ends a document; no text encodes to it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from moe.files import words
from moe.registry import Mistake

RUN = 1000  # characters without a break between words
AT_ONCE = 2**22  # characters that are encoded at once
_SEALED = re.compile(r'(?P<json>.*), "seal": "(?P<seal>[^"]*)"}', re.DOTALL)
_RUN = re.compile(rf"\S{{{RUN},}}|\s{{{RUN},}}")


class Tokenizer:
    """Text to ids and back, without loss for any Unicode text.

    Attributes:
      vocab_size: number of ids, the end of a document included.
      end: the id after each document, vocab_size - 1.
      byte_V: int64, bytes of each id's text; 0 for the end.
      json: what rebuilds it (`from_json`).
      fingerprint: SHA-256 of json.
      sealed: json with the fingerprint as its last field; what `read` checks.
    """

    def __init__(self, text: str):
        self.json = text
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if text == BYTES:
            self._bpe = None
            self._pieces = [bytes([value]) for value in range(256)]
        else:
            self._bpe = tokenizers.Tokenizer.from_str(text)
            vocabulary = self._bpe.get_vocab()
            value = {character: byte for byte, character in enumerate(_characters())}
            self._pieces = [
                bytes(value[character] for character in piece)
                for piece in sorted(vocabulary, key=vocabulary.__getitem__)
            ]
        self.end = len(self._pieces)
        self.vocab_size = self.end + 1
        self.byte_V = np.array([len(piece) for piece in self._pieces] + [0], np.int64)

    @property
    def sealed(self) -> str:
        """What a run saves."""
        return f'{self.json.removesuffix("}")}, "seal": "{self.fingerprint}"}}'

    def encode(self, text: str) -> np.ndarray:
        """Ids of the text, uint16; no end of document."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, on all cores."""
        if self._bpe is None:
            return [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]
        parts = [_parts(text) for text in texts]
        ids = _encoded(self._bpe, [part for one in parts for part in one])
        return [np.concatenate([next(ids) for _ in one]) for one in parts]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; ends are left out, bytes that are no UTF-8 become U+FFFD."""
        pieces = [*self._pieces, b""]
        return b"".join(pieces[int(i)] for i in ids).decode("utf-8", "replace")


def _encoded(bpe: tokenizers.Tokenizer, parts: list[str]) -> Iterator[np.ndarray]:
    """Ids of each part; some at once, since what the library returns is large."""
    start, size = 0, 0
    for stop, part in enumerate(parts, 1):
        size += len(part)
        if size >= AT_ONCE or stop == len(parts):
            for encoding in bpe.encode_batch_fast(parts[start:stop]):
                yield np.array(encoding.ids, np.uint16)
            start, size = stop, 0


def read(path: Path) -> Tokenizer:
    """The tokeniser that a run saved as tokenizer.json; raises Mistake with one line.

    Its seal is checked where there is one; older runs have none.
    """
    try:
        text = path.read_text("utf-8")
        whole = _SEALED.fullmatch(text)
        coder = Tokenizer(whole["json"] + "}" if whole else text)
    except OSError as error:
        raise Mistake(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # the library raises bare Exceptions
        raise Mistake(f"{path}: is not a tokeniser ({words(error)})") from error
    if whole and whole["seal"] != coder.fingerprint:
        raise Mistake(
            f"{path}: is not the file that was written, its seal does not fit; copy that of "
            "another run of the study, which is the same"
        )
    return coder


BYTES = json.dumps({"type": "bytes"})


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE with vocab_size - 1 pieces and the end; the same for the same texts.

    Raises Mistake when the texts have too few repeated pieces for that size.
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    bpe.train_from_iterator((part for text in texts for part in _parts(text)), trainer)
    tokenizer = Tokenizer(bpe.to_str())
    if tokenizer.vocab_size != vocab_size:
        raise Mistake(
            f"model.vocab_size={vocab_size}: must be at most {tokenizer.vocab_size}, "
            "all that the training text gives"
        )
    return tokenizer


def _parts(text: str) -> list[str]:
    """The text cut inside longer runs without a break, over which byte pairs take quadratic time.

    The pieces of a run are encoded by themselves, so that nothing is lost.
    """
    if len(text) < RUN:
        return [text]
    cuts = [at for run in _RUN.finditer(text) for at in range(run.start(), run.end(), RUN)]
    edges = [0, *(cut for cut in cuts if cut), len(text)]
    return [text[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]


def _characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
