"""What a study declares before its first step is sealed, and nothing of it changes afterwards."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest

from experiments.results.declaration import Declaration
from experiments.studies.contract import Contrast, Decision, Expectation, Study
from moe import files, registry
from moe.registry import Mistake

BEFORE = pathlib.Path(__file__).parents[1] / "golden" / "before_rooms"
STUDY = "dense_topk_hash"


@pytest.fixture
def asked():
    return Declaration.of(STUDY, "tiny", ["dense", "top1"], [0, 1, 2], [])


def changed(asked, field, n, **changes):
    records = list(getattr(asked, field))
    records[n] = dataclasses.replace(records[n], **changes)
    return dataclasses.replace(asked, **{field: tuple(records)})


CHANGES = {
    "direction": (
        lambda asked: changed(asked, "expectations", 0, direction="higher"),
        "expectations of top1 (1).direction is 'lower' there, 'higher' asked",
    ),
    "size": (
        lambda asked: changed(asked, "contrasts", 1, size=-0.5),
        "contrasts of hash_balanced (2).size is -0.021 there, -0.5 asked",
    ),
    "one less": (
        lambda asked: dataclasses.replace(asked, contrasts=asked.contrasts[:1]),
        "contrasts is a list of 11 there, a list of 1 asked",
    ),
    "margin": (
        lambda asked: dataclasses.replace(asked, margin=0.1),
        "margin is 0.03 there, 0.1 asked",
    ),
    "alpha": (
        lambda asked: dataclasses.replace(asked, decision=Decision(alpha=0.1)),
        "decision.alpha is 0.05 there, 0.1 asked",
    ),
    "looks": (
        lambda asked: asked.until((3, 5), (0, 1, 2, 3, 4)),
        "decision.looks is [] there, [3, 5] asked",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused_in_one_line_and_leaves_the_file(change, asked, tmp_path):
    asked.write(tmp_path)
    before = (tmp_path / "study.json").read_bytes()
    other, line = CHANGES[change][0](asked), CHANGES[change][1]
    with pytest.raises(Mistake) as error:
        other.write(tmp_path)
    assert str(error.value) == f"{tmp_path}/study.json: {line}; choose another --workdir"
    assert (tmp_path / "study.json").read_bytes() == before


def test_seeds_and_arms_may_come_and_the_declaration_stays(asked, tmp_path):
    asked.write(tmp_path)
    first = json.loads((tmp_path / "study.json").read_text())
    Declaration.of(STUDY, "tiny", ["top2"], [7], []).write(tmp_path)
    then = json.loads((tmp_path / "study.json").read_text())
    assert then["seeds"] == [0, 1, 2, 7] and "top2" in then["arms"]
    assert then["declared"] == first["declared"] and then["planned"] == [0, 1, 2]
    assert Declaration.read(tmp_path).planned == (0, 1, 2)


def test_the_seeds_of_looks_are_declared_with_them(asked, tmp_path):
    """Which seeds come next is settled before anybody sees the first."""
    asked.until((3, 5), (0, 1, 2, 3, 4)).write(tmp_path)
    with pytest.raises(Mistake, match=r"planned is \[0, 1, 2, 3, 4\] there, \[0, 1, 2, 8, 9\] as"):
        asked.until((3, 5), (0, 1, 2, 8, 9)).write(tmp_path)
    assert Declaration.read(tmp_path).decision.looks == (3, 5)


def test_no_digit_and_no_word_of_it_changes_without_a_word(asked, tmp_path):
    asked.write(tmp_path)
    path = tmp_path / "study.json"
    text, silent = path.read_text(), []
    places = [match.start() for match in re.finditer(r"[0-9a-z]", text)]
    assert len(places) > 1500
    for place in places[::11]:
        letter = "7" if text[place] != "7" else "8"
        path.write_text(text[:place] + letter + text[place + 1 :])
        for use in (Declaration.read, asked.write):
            try:
                use(tmp_path)
            except Mistake as error:
                assert "\n" not in str(error) and str(path) in str(error)
            else:
                silent.append(text[place - 30 : place + 10])
    assert silent == []


def test_a_seal_that_is_gone_is_told(asked, tmp_path):
    asked.write(tmp_path)
    content = json.loads((tmp_path / "study.json").read_text())
    del content["seal"]
    (tmp_path / "study.json").write_text(json.dumps(content))
    line = r"study\.json: is damaged \(.*its seal does not fit.*\); repair or remove it"
    with pytest.raises(Mistake, match=line):
        Declaration.read(tmp_path)
    with pytest.raises(Mistake, match=line):
        asked.write(tmp_path)


def test_a_seal_over_another_declaration_is_told(asked, tmp_path):
    """The hash of what was declared is held against it, whoever sealed the file."""
    content = asked.content() | {"margin": 0.5}
    (tmp_path / "study.json").write_text(files.sealed(content))
    with pytest.raises(Mistake, match="the hash of its declaration does not fit"):
        Declaration.read(tmp_path)


def test_a_study_of_before_stays_undeclared_and_goes_on(tmp_path):
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    there = Declaration.read(tmp_path)
    assert not there.beforehand and there.expectations == () and there.planned == ()
    more = Declaration.of(STUDY, "tiny", ["top1"], [2], there.overrides)
    with pytest.raises(Mistake, match="--until-decided=5: .* has runs that no declaration came be"):
        more.until((3, 5), (0, 1, 2, 3, 4)).write(tmp_path)
    more.write(tmp_path)
    now = Declaration.read(tmp_path)
    assert not now.beforehand and now.seeds == (0, 1, 2) and "top1" in now.arms


def test_nothing_is_declared_of_runs_that_are_there_already(asked, tmp_path):
    """Whoever removes study.json gets no declaration that knows what came out."""
    asked.write(tmp_path)
    (tmp_path / "dense" / "seed0").mkdir(parents=True)
    (tmp_path / "dense" / "seed0" / "metrics.jsonl").write_text("")
    (tmp_path / "study.json").unlink()
    changed(asked, "expectations", 0, direction="higher").write(tmp_path)
    assert not Declaration.read(tmp_path).beforehand


LIKE = Contrast("x", "X", "top1", "top2", "as good", direction="equal")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"metric": "accuracy"}, "metric=accuracy: must be one of val_loss"),
        ({"margin": 0.0}, "margin=0.0: must be above 0, in nats"),
        ({"margin": float("nan")}, "margin=nan: must be above 0, in nats"),
        ({"contrasts": (LIKE,), "margin": None}, "top1: direction=equal: needs the margin of the"),
        (
            {"contrasts": (dataclasses.replace(LIKE, direction="less"),)},
            "top1: direction=less: must be one of lower, higher, equal",
        ),
        ({"contrasts": (dataclasses.replace(LIKE, size=0.04),)}, "top1: size=0.04: must be equal"),
        ({"expectations": (Expectation("top1", "lower", 0.1),)}, "top1: size=0.1: must be lower"),
        ({"expectations": (Expectation("dense", "lower"),)}, "expectations=dense: must name each"),
        ({"expectations": (Expectation("top9", "lower"),)}, "expectations=top9: must be one of"),
        ({"decision": Decision(looks=(4, 8))}, r"decision.looks=\(4, 8\): must begin at the 3 se"),
    ],
)
def test_a_study_declares_only_what_it_can_be_held_to(fields, line):
    study: Study = registry.lookup("study", STUDY)
    with pytest.raises(Mistake, match=f"^{line}"):
        dataclasses.replace(study, **fields)
