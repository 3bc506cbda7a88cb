"""Any text on any path gives a valid experiment or a mistake in one line, and nothing else."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments.command.run import seeds
from experiments.runner.mistakes import is_mistake, line
from experiments.runner.request import Request
from experiments.select import resolve
from moe import fields, registry

STUDY = "dense_topk_hash"
ARMS = ("dense", "top2", "hash_balanced")
PATHS = sorted(
    {path for arm in ARMS for path in fields.fields(resolve(STUDY, (arm,), "tiny", ())[arm])}
)
NAMES = sorted({name for kind in registry.HOMES for name in registry.names(kind)})
TEXTS = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["none", "true", "false", "()", "0,1", *NAMES]),
    st.lists(st.integers(-3, 70), max_size=4).map(lambda items: ",".join(map(str, items))),
)
EVERY = settings(derandomize=True, deadline=None, max_examples=150)


def answer(arm, assignments):
    """None, or the line of the mistake."""
    try:
        experiment = resolve(STUDY, (arm,), "tiny", assignments)[arm]
    except ValueError as error:
        assert is_mistake(error), repr(error)
        return line(error)
    assert experiment.validate() is experiment
    assert hash(experiment) == hash(experiment)  # a static argument of jit
    assert fields.expression(experiment)
    return None


@EVERY
@given(st.sampled_from(ARMS), st.sampled_from(PATHS), TEXTS)
@example("top2", "model.unroll", "99999999999999999999")
@example("top2", "model.attention.rope_base", "inf")
@example("top2", "train.steps", "\x00")
def test_any_text_on_any_field(arm, path, text):
    found = answer(arm, [f"{path}={text}"])
    assert found is None or "\n" not in found and found


@EVERY
@given(st.sampled_from(ARMS), st.text(max_size=30), st.text(max_size=10))
def test_any_path(arm, path, text):
    found = answer(arm, [f"{path}={text}"])
    assert found and (path in PATHS or "=" in path or "has no fields" in found or "such" in found
                      or "must be PATH=VALUE" in found)  # fmt: skip


@EVERY
@given(st.sampled_from(ARMS), st.lists(st.tuples(st.sampled_from(PATHS), TEXTS), max_size=4))
def test_several_at_once(arm, assignments):
    answer(arm, [f"{path}={text}" for path, text in assignments])


@EVERY
@given(st.lists(st.text(max_size=6), max_size=4))
def test_any_seeds(texts):
    try:
        found = Request(STUDY, "/tmp", ["dense"], seeds=seeds(texts))
    except ValueError as error:
        assert is_mistake(error) and line(error).startswith("--seeds=")
    else:
        assert [int(text) for text in texts] == list(found.seeds) and max(found.seeds) < 2**32
