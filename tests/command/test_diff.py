"""`diff`: the fields in which two arms, or their records, differ."""

import pytest

from moe import fields, registry

STUDY = "dense_topk_hash"

MISTAKES = {  # what is wrong: the words, and the line that must come back
    "two words too many": ("diff a b c d", "diff a b c d: must be 'diff A B', has 4 words"),
    "half a diff": ("diff a", "diff a: must be 'diff A B', has 1 word"),
    "diff of a whole study": (
        f"diff {STUDY} {STUDY}/top1",
        f"diff {STUDY}: must be STUDY/ARM or the folder of a run",
    ),
    "diff of another folder": (
        f"diff {STUDY}/top1 {{tmp}}/empty",
        "diff {tmp}/empty: has no experiment.txt; name a folder ARM/seedN of a run",
    ),
    "diff of a broken record": (
        f"diff {STUDY}/top1 {{tmp}}/broken",
        "{tmp}/broken/experiment.txt: is not the record of an experiment (",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_diff_of_two_arms_and_of_their_records(call, tmp_path):
    code, of_arms, err = call("diff", f"{STUDY}/top1", f"{STUDY}/top2")
    assert (code, err) == (0, "")
    rows = [line.split() for line in of_arms.splitlines()]
    assert rows[0] == ["field", f"{STUDY}/top1", f"{STUDY}/top2"]
    assert ["model.moe.router.k", "1", "2"] in rows
    assert not any(row[0] == "train.steps" for row in rows)
    study = registry.lookup("study", STUDY)
    for arm in ("top1", "top2"):
        (tmp_path / arm).mkdir()
        record = fields.expression(study.build(arm, "tiny"))
        (tmp_path / arm / "experiment.txt").write_text(record)
        assert call("diff", str(tmp_path / arm), f"{STUDY}/{arm}")[1] == "no field differs\n"
    _, of_records, _ = call("diff", str(tmp_path / "top1"), str(tmp_path / "top2"))
    assert [line.split() for line in of_records.splitlines()[1:]] == rows[1:]
