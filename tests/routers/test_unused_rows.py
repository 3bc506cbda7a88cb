"""What hash tables do with rows that the training text does not use."""

import dataclasses

import numpy as np
import pytest

from moe.data.counts import Corpus
from moe.routers import hash as hashing
from moe.routers.hash import BALANCED
from moe.routers.parts.keys import NGram
from tests.routers.test_hash_routers import E, V, table


@pytest.mark.parametrize("name", ["BALANCED", "BIGRAM", "CLUSTERED", "DISPERSED"])
def test_rows_that_the_text_does_not_use_are_spread(name):
    # Ids 8 to 39 of 40 are not in the text: 32 over 4 experts are 8 each. Of 512 buckets of bigrams
    # some share an even number of the rest; at most one more or less.
    generator = np.random.default_rng(0)
    token_S = generator.integers(0, 8, 3000)
    text = Corpus(np.bincount(token_S, minlength=V), token_S)
    router = getattr(hashing, name)
    if name == "BIGRAM":
        router = dataclasses.replace(router, key=NGram(n=2, buckets=512))
    for k in (1, 2):
        found = table(dataclasses.replace(router, k=k), text)
        unused = router.key.count(text) == 0
        rows = np.bincount(found[unused].ravel(), minlength=E)
        assert unused.sum() >= 32 and rows.max() - rows.min() <= 1, rows


def test_the_least_loaded_experts_get_what_is_not_used_first():
    # Counts 5, 3, 2 give loads 5, 3, 2, 0 to four experts in that order; then six rows of no use go
    # to the last, the third, the second, the first, the last and the third.
    text = Corpus(np.array([5, 3, 2, 0, 0, 0, 0, 0, 0]), np.zeros(10, int))
    found = table(BALANCED, text)[:, 0]
    loaded = found[:3].tolist()
    (empty,) = set(range(4)) - set(loaded)
    rows = np.bincount(found[3:], minlength=4)
    assert [rows[e] for e in (empty, *reversed(loaded))] == [2, 2, 1, 1]
