"""Hash layers: keys, tables and gates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.data.counts import Corpus
from moe.fields import check_fields
from moe.routers import hash as hashing
from moe.routers.hash import BALANCED, BIGRAM, Hash
from moe.routers.parts import clusters
from moe.routers.parts.clusters import cooccurrence
from moe.routers.parts.gates import ScalarGate, ScoreGate
from moe.routers.parts.keys import Next, NGram, Position, Previous, Token
from moe.routers.parts.tables import ClusteredTable, DispersedTable, RandomTable

D, E, V = 8, 4, 40
IDS = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], jnp.int32)


def corpus(V=V, S=4000, seed=0):
    generator = np.random.default_rng(seed)
    token_S = np.minimum(generator.zipf(1.3, S) - 1, V - 1)
    return Corpus(np.bincount(token_S, minlength=V), token_S)


def table(router, corpus, seed=0, E=E):
    V = len(corpus.count_V)
    params = router.init(jax.random.key(0), D, E, V)
    return np.asarray(router.fit(params, E, corpus, seed)["state"]["expert_VK"])


def route(router, x_TD, id_BL, E=E):
    params = router.init(jax.random.key(0), D, E, V)
    return router(params, x_TD, router.keys(id_BL, None).reshape(-1), E, None).plan


def violation(load_E):
    return load_E.max() / load_E.mean() - 1


def test_keys_by_hand():
    np.testing.assert_array_equal(Token()(IDS), IDS)
    np.testing.assert_array_equal(Previous()(IDS), [[0, 4, 2, 5, 2], [0, 10, 3, 7, 6]])
    np.testing.assert_array_equal(Next()(IDS), [[2, 5, 2, 6, 0], [3, 7, 6, 4, 0]])
    np.testing.assert_array_equal(Position(longest=3)(IDS), [[0, 1, 2, 0, 1]] * 2)
    assert [key.rows(V) for key in (Token(), Previous(), Next(), Position(7), NGram(2, 99))] == [
        V, V + 1, V + 1, 7, 99,
    ]  # fmt: skip


def test_ngrams_see_their_context_and_nothing_else():
    key = NGram(n=2, buckets=2**20)
    rows = np.asarray(key(jnp.array([[1, 2, 3, 2, 3, 9], [7, 7, 3, 2, 3, 8]], jnp.int32)))
    assert rows[0, 2] == rows[0, 4] == rows[1, 4]  # (2, 3) wherever it stands
    assert len({*rows[0, :4].tolist(), rows[0, 5], rows[1, 2]}) == 6  # every other bigram
    single = np.asarray(NGram(n=1, buckets=2**20)(jnp.array([[1, 2, 1]], jnp.int32)))[0]
    assert single[0] == single[2] != single[1]
    salted = NGram(n=2, buckets=2**20, salt=1)(jnp.array([[1, 2]], jnp.int32))
    assert np.all(np.asarray(salted) != rows[0, :2])


def test_buckets_are_used_evenly():
    pairs = np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1).reshape(-1, 2)
    rows = np.asarray(NGram(n=2, buckets=64)(jnp.asarray(pairs, jnp.int32)))[:, 1]
    count = np.bincount(rows, minlength=64)  # 4096 balls in 64 bins: 64 +- 8
    assert count.min() > 30 and count.max() < 100


def test_counts_of_keys_are_those_of_the_text():
    text = Corpus(np.bincount([5, 6, 5, 6, 7], minlength=V), np.array([5, 6, 5, 6, 7]))
    count = Previous().count(text)
    assert [count[0], count[5 + 1], count[6 + 1], count.sum()] == [1, 2, 2, 5]
    assert NGram(2, 16).count(text).sum() == 5
    np.testing.assert_array_equal(Token().count(text), text.count_V)


def test_constant_gates_ignore_the_hidden_state():
    one, other = (jax.random.normal(jax.random.key(s), (10, D)) for s in (0, 1))
    for router in (Hash(k=2), BALANCED, BIGRAM):
        plans = [route(router, x_TD, IDS) for x_TD in (one, other)]
        jax.tree.map(np.testing.assert_array_equal, *plans)


def test_learned_gates_by_hand():
    params = {"w_DE": jnp.log(jnp.array([[3.0, 1.0, 1.0]])), "state": {}}
    x_TD, expert_TK = jnp.ones((1, 1)), jnp.array([[0, 2]])
    # 2 sigmoid(ln 3) / 2 = 3/4 and 2 sigmoid(0) / 2 = 1/2.
    np.testing.assert_allclose(ScalarGate()(params, x_TD, expert_TK), [[3 / 4, 1 / 2]], rtol=1e-6)
    # Softmax (3, 1, 1)/5, renormalised over experts 0 and 2: 3/4 and 1/4.
    np.testing.assert_allclose(ScoreGate()(params, x_TD, expert_TK), [[3 / 4, 1 / 4]], rtol=1e-6)
    # At k = 1 it stays 3/5.
    np.testing.assert_allclose(ScoreGate()(params, x_TD, expert_TK[:, :1]), [[3 / 5]], rtol=1e-6)


def test_balanced_tables_are_even_over_the_corpus_and_random_ones_are_not():
    text = corpus(V=2000, S=100_000)
    count_V = np.minimum(text.count_V, text.count_V.sum() // 8)  # no id is above 1/8 of all
    text = Corpus(count_V, text.token_S)
    loads = [
        np.bincount(table(router, text)[:, 0], weights=count_V, minlength=E)
        for router in (BALANCED, Hash())
    ]
    assert violation(loads[0]) < 0.001 and violation(loads[1]) > 0.02


def test_balanced_ngram_table_is_even_over_the_bigrams_of_the_corpus():
    text = corpus(S=20_000)
    router = dataclasses.replace(BIGRAM, key=NGram(n=2, buckets=512))
    count = router.key.count(text)
    load_E = np.bincount(table(router, text)[:, 0], weights=count, minlength=E)
    assert violation(load_E) < 0.01


def test_balanced_table_by_hand():
    # Counts 5, 4, 3, 2 over two experts: 5 -> a, 4 -> b, 3 -> b (4 < 5), 2 -> a (5 < 7): 7 and 7.
    text = Corpus(np.array([3, 5, 2, 4]), np.zeros(14, int))
    found = table(BALANCED, text, E=2)[:, 0]
    assert found[1] == found[2] != found[3] == found[0]


def test_tables_differ_between_seeds_and_repeat_for_one():
    text = Corpus(np.ones(V), np.arange(V))
    one, again, other = (table(BALANCED, text, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def families():
    """A text of four families of ten ids; an id is followed by one of the next family's."""
    generator = np.random.default_rng(0)
    family_S = np.arange(20_000) % 4
    token_S = family_S * 10 + generator.integers(0, 10, 20_000)
    return Corpus(np.bincount(token_S, minlength=V), token_S)


def test_clusters_are_ids_with_the_same_company_and_dispersion_parts_them():
    text, family_V = families(), np.arange(V) // 10
    clustered = table(Hash(table=ClusteredTable()), text)[:, 0]
    for family in range(4):
        assert len(set(clustered[family_V == family])) == 1
    assert len(set(clustered)) == 4
    dispersed = table(Hash(table=DispersedTable()), text)[:, 0]
    for family in range(4):  # ten ids over four experts: two or three each
        assert set(np.bincount(dispersed[family_V == family], minlength=4)) == {2, 3}
    load_E = np.bincount(dispersed, weights=text.count_V, minlength=4)
    assert violation(load_E) < 0.15


def test_cooccurrence_is_closer_within_a_family():
    vector_VA = cooccurrence(families(), width=4)
    cos_VV = vector_VA @ vector_VA.T
    same = np.arange(V)[:, None] // 10 == np.arange(V)[None] // 10
    assert cos_VV[same].min() > 0.9 > 0.5 > cos_VV[~same].max()


def test_clusters_of_an_embedding_from_a_file(tmp_path):
    path = tmp_path / "embedding.npy"
    np.save(path, np.eye(4)[np.arange(V) % 4] + 0.01)
    router = Hash(table=ClusteredTable(embedding=str(path)))
    router.check("r", E)
    found = table(router, corpus(), seed=3)[:, 0]
    assert all(len(set(found[np.arange(V) % 4 == y])) == 1 for y in range(4))
    np.save(path, np.zeros((V - 1, 4)))
    with pytest.raises(ValueError, match=r"has shape \(39, 4\), must be \(vocab_size=40, any\)$"):
        table(router, corpus())
    np.save(path, np.full((V, 4), np.nan))
    with pytest.raises(ValueError, match=r"^table.embedding=.*embedding.npy: must be finite$"):
        table(router, corpus())


def embedded(tmp_path, vector_VA, **fields):
    """A router that clusters the rows, and a text with every id once."""
    path = tmp_path / "embedding.npy"
    np.save(path, vector_VA)
    text = Corpus(np.ones(len(vector_VA)), np.arange(len(vector_VA)))
    return Hash(table=ClusteredTable(embedding=str(path)), **fields), text


def test_planted_clusters_are_found_and_numbered_by_their_lowest_id(tmp_path):
    # Of 20 seeds, a single start of k-means++ finds all 16 clusters for 3, the best of 8 for all.
    family_V = np.arange(320) % 16
    noise_VA = np.random.default_rng(0).standard_normal((320, 16))
    router, text = embedded(tmp_path, np.eye(16)[family_V] + 0.12 * noise_VA)
    for seed in range(20):
        np.testing.assert_array_equal(table(router, text, seed, E=16)[:, 0], family_V)


def test_clusters_do_not_hang_on_last_bits_signs_or_turns(tmp_path):
    # Eight families at right angles and room for five: all ids of a family that holds no centroid
    # are as near to one centroid as to another.
    generator = np.random.default_rng(0)
    family_VA = np.kron(np.eye(8), np.ones((1, 3)))[np.arange(80) % 8]
    vector_VA = family_VA * generator.random((80, 24))
    router, text = embedded(tmp_path, vector_VA, k=2)
    found = [table(router, text, seed, E=5) for seed in range(20)]
    for _ in range(3):
        turn_AA = np.linalg.qr(generator.standard_normal((24, 24)))[0]
        turned_VA = (vector_VA @ turn_AA) * (1 + 1e-12 * generator.standard_normal((80, 24)))
        router, text = embedded(tmp_path, turned_VA, k=2)
        for seed, expected in enumerate(found):
            np.testing.assert_array_equal(table(router, text, seed, E=5), expected)


@pytest.mark.parametrize(("turn", "winner"), [(1e-8, 0), (1e-2, 1)])
def test_a_start_must_be_better_by_more_than_rounding(monkeypatch, turn, winner):
    # Corners of a square: left and right halves are as good as upper and lower ones. The upper two
    # corners turned towards each other, upper and lower are better, by about 2 * turn.
    angle_V = np.pi / 4 * np.array([1, 3, 5, 7]) + turn * np.array([1, -1, 0, 0])
    starts = [np.array([[1.0, 0], [-1, 0]]), np.array([[0, 1.0], [0, -1]])]
    start = iter(starts * clusters.STARTS)
    monkeypatch.setattr(clusters, "_seeds", lambda *args: next(start))
    found = clusters.kmeans(np.stack([np.cos(angle_V), np.sin(angle_V)], axis=1), 2, None)
    np.testing.assert_allclose(found, starts[winner] * np.sqrt(0.5), atol=2 * turn)


def test_more_experts_than_distinct_ids_and_ids_that_nothing_is_known_of(tmp_path):
    # Three directions and zero for five experts: clusters 0, 1, 2 in the order of their lowest ids;
    # then the empty experts 3 and 4. Of five ids with k = 4 experts 0 to 3 have all, 4 has none: an
    # id of zeros begins there.
    vector_VA = np.array([[0, 2], [0, 0], [1, 0], [0, 1], [3, 3], [2, 0]])
    router, text = embedded(tmp_path, vector_VA, k=4)
    found = table(router, text, E=5)
    assert found[:, 0].tolist() == [0, 4, 1, 0, 2, 1]
    assert set(found[[0, 2, 3, 4, 5], 3].tolist()) == {3} and len(set(found[1].tolist())) == 4
    router, text = embedded(tmp_path, np.zeros((6, 2)), k=2)  # of no id anything is known
    np.testing.assert_array_equal(np.bincount(table(router, text).ravel()), [3] * 4)  # 6 * 2 / 4


def test_cooccurrence_does_not_cut_through_equal_singular_values():
    # Six families of two ids in a ring; each id is followed by both of the next family equally
    # often. So the two rows of a family are equal, those of two families share no context, and
    # all six singular values are equal: three of them would tell some families apart, not all.
    family_S, lap_S = np.arange(24 * 5 + 1) % 6, np.arange(24 * 5 + 1) // 6
    token_S = 2 * family_S + np.where(family_S % 2, lap_S, lap_S // 2) % 2
    expected_VV = np.kron(np.eye(6), np.ones((2, 2)))
    for width in (3, 6, 20):
        vector_VA = cooccurrence(Corpus(np.bincount(token_S), token_S), width)
        np.testing.assert_allclose(vector_VA @ vector_VA.T, expected_VV, atol=1e-6)


def test_k_experts_of_a_row_differ():
    for name in ("RANDOM", "BALANCED", "CLUSTERED", "DISPERSED", "BIGRAM"):
        found = table(dataclasses.replace(getattr(hashing, name), k=3), corpus())
        assert found.shape[1] == 3 and all(len(set(row)) == 3 for row in found.tolist()), name


def test_a_table_for_another_vocabulary_is_refused():
    params = BALANCED.init(jax.random.key(0), D, E, V)
    line = (
        "^model.vocab_size: the corpus has 3 ids and needs a hash table of 3 rows, this one has 40$"
    )
    with pytest.raises(ValueError, match=line):
        BALANCED.fit(params, E, Corpus(np.ones(3), np.arange(3)), 0)


@pytest.mark.parametrize(
    ("router", "line"),
    [
        (Hash(key=NGram(n=0)), "r.key.n=0: must be >= 1"),
        (Hash(key=NGram(buckets=0)), r"r.key.buckets=0: must be in \[1, 2\^31\)"),
        (Hash(key=NGram(salt=-1)), r"r.key.salt=-1: must be in \[0, 2\^32\)"),
        (Hash(key=Position(0)), "r.key.longest=0: must be >= 1"),
        (Hash(table=ClusteredTable(width=0)), "r.table.width=0: must be >= 1"),
        (Hash(table=ClusteredTable("no.npy")), "r.table.embedding=no.npy: no such file"),
        (
            Hash(key=Previous(), table=DispersedTable()),
            "r.table=DispersedTable: groups token ids, so it needs key=token",
        ),
    ],
)
def test_impossible_hashes_are_one_line(router, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        check_fields(router, "r")
        router.check("r", E)


def test_a_random_table_is_that_of_init():
    expert_VK = np.arange(6).reshape(6, 1)
    assert RandomTable().fit(expert_VK, 6, np.ones(6), corpus(), 0) is expert_VK
