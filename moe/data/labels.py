"""Human labels of tokens, for routers that are guided by one: of the document, or of the word.

Frequency bands and word classes are functions of the token id; desks and classes belong to the
document. A word class is what its letters show, with a short list of function words: a coarse
part of speech that needs no tagger.
"""

import numpy as np

from moe.data.data import BANDS, WORD_CLASSES

_FUNCTION = frozenset(
    "a an the this that these those i me my we us our you your thou thee thy ye he him his she her "
    "it its they them their who whom whose which what and or but nor so for yet if then than as "
    "because though while when where of in on at by to from with without into unto upon over under "
    "after before between through against among about is am are was were be been being do does did "
    "have has had having will would shall should can could may might must not no all any some each "
    "every such there here up out off down".split()
)


def of_ids(label: str, count_V: np.ndarray, texts: list[str]) -> np.ndarray | None:
    """label_V (int32) where the label is a function of the id, else None.

    Args:
      label: "frequency" or "word"; others are the document's.
      count_V: occurrences in the training text, for bands of equal mass.
      texts: what each id spells; "" for the end of a document.
    """
    if label == "frequency":
        return frequency_band(count_V)
    if label == "word":
        return np.array([WORD_CLASSES.index(word_class(text)) for text in texts], np.int32)
    return None


def frequency_band(count_V: np.ndarray) -> np.ndarray:
    """Band 0 to BANDS - 1 from frequent to rare; each holds about as many tokens of the text.

    An id belongs to the band in which the middle of its share of the text lies.
    """
    order = np.argsort(-count_V, kind="stable")
    mass = np.cumsum(count_V[order]) - count_V[order] / 2
    band_V = np.empty(len(count_V), np.int32)
    band_V[order] = np.minimum(mass * BANDS / max(1, count_V.sum()), BANDS - 1).astype(np.int32)
    return band_V


def word_class(text: str) -> str:
    """One of WORD_CLASSES; "inside" continues a word, since nothing separates it from the left."""
    if text == "":
        return "end"
    word = text.strip()
    if word == "":
        return "space"
    if not any(c.isalnum() for c in word):
        return "mark"
    if word[0].isdigit():
        return "number"
    if word.lower() in _FUNCTION and (text[0].isspace() or word[0].isupper()):
        return "function"
    if word[0].isupper():
        return "capital"
    return "word" if text[0].isspace() else "inside"
