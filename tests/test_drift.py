"""Load of a hash table on the text it was built on, and drift from there."""

import numpy as np

from moe.analysis import drift
from moe.data.counts import Corpus
from moe.routers.parts.keys import Token


def test_report_by_hand():
    # Ids 0 and 1 go to expert 0, id 2 to expert 1: load 2 + 2 = 4 and 4 where it was built.
    corpus = Corpus(np.array([2, 2, 4]), np.array([0, 0, 1, 1, 2, 2, 2, 2]))
    found = drift.report(Token(), np.array([[0], [0], [1]]), corpus, np.array([9.0, 3.0]))
    assert found["build_max_violation"] == 0
    # 3/4 and 1/4: the busiest is 1.5 times the mean; 1/4 of the assignments have moved.
    np.testing.assert_allclose(found["held_out_max_violation"], 0.5)
    np.testing.assert_allclose(found["drift"], 0.25)


def test_table_load_counts_every_choice():
    load_E = drift.table_load(np.array([[0, 1], [2, 1]]), np.array([3, 5]), 4)
    np.testing.assert_array_equal(load_E, [3, 8, 5, 0])
