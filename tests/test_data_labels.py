"""Labels of tokens: frequency bands and word classes."""

import numpy as np
import pytest

from moe.data import labels
from moe.data.data import BANDS, LABELS, WORD_CLASSES


def test_bands_hold_equal_shares_of_the_text_from_frequent_to_rare():
    generator = np.random.default_rng(0)
    count_V = generator.permutation(np.round(1e5 / np.arange(10, 2010)).astype(int))
    band_V = labels.frequency_band(count_V)
    mass = np.bincount(band_V, weights=count_V, minlength=BANDS) / count_V.sum()
    np.testing.assert_allclose(mass, 1 / BANDS, atol=0.01)
    assert count_V[band_V == 0].min() >= count_V[band_V == 1].max()


def test_bands_by_hand():
    # Shares 1/2, 1/4, 1/8, 1/8: their middles 1/4, 5/8, 13/16, 15/16 of 8 bands: 2, 5, 6, 7.
    np.testing.assert_array_equal(labels.frequency_band(np.array([2, 8, 4, 2])), [6, 2, 5, 7])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "end"),
        ("\n  ", "space"),
        (" --", "mark"),
        ("(", "mark"),
        (" 1984", "number"),
        ("7th", "number"),
        (" the", "function"),
        ("The", "function"),
        (" house", "word"),
        (" House", "capital"),
        ("ing", "inside"),
        ("he", "inside"),  # without a space it continues a word
    ],
)
def test_word_classes(text, name):
    assert labels.word_class(text) == name


def test_labels_of_ids():
    count_V, texts = np.array([4, 1, 1]), [" the", "ing", ""]
    found = labels.of_ids("word", count_V, texts)
    assert [WORD_CLASSES[y] for y in found] == ["function", "inside", "end"]
    assert labels.of_ids("desk", count_V, texts) is None
    assert labels.of_ids("frequency", count_V, []).max() < LABELS["frequency"]
    assert LABELS["word"] == len(WORD_CLASSES)
