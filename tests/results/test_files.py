"""study.json and result.json: records that write and read themselves, and read those of before."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest

from experiments.results import declaration
from experiments.results.declaration import Declaration
from experiments.results.result import Result, finite
from experiments.studies.contract import Scale
from moe import files, registry
from moe.registry import Mistake

BEFORE = pathlib.Path(__file__).parents[1] / "golden" / "before_rooms"
RESULT = BEFORE / "top2" / "seed0" / "result.json"


@pytest.fixture
def asked():
    return Declaration.of("dense_topk_hash", "tiny", ["top1", "dense"], [2, 0], ["train.steps=4"])


def test_a_result_of_before_is_read_and_written_to_the_byte_but_for_a_seal(tmp_path):
    expected = {"study": "dense_topk_hash", "size": "tiny", "arm": "top2", "seed": 0}
    result = Result.read(RESULT, expected)
    assert result.finite and result.router.num_experts == 16
    result.write(tmp_path)
    text, seal = (tmp_path / "result.json").read_text().split(',\n "seal": ')
    assert text + "\n}\n" == RESULT.read_text() and re.fullmatch(r'"[0-9a-f]{64}"\n}\n', seal)
    assert Result.read(tmp_path / "result.json", expected) == result


def test_a_study_of_before_has_what_the_registered_one_declares(tmp_path):
    shutil.copy(BEFORE / "study.json", tmp_path)
    found, study = Declaration.read(tmp_path), registry.lookup("study", "dense_topk_hash")
    assert (found.contrasts, found.scales, found.caveats) == (
        study.contrasts,
        study.scales,
        study.caveats,
    )
    assert found.colour_order == study.colour_order
    assert found.seeds == (0, 1) and found.overrides[0] == "train.steps=20"


def test_a_study_that_is_not_registered_declares_nothing(tmp_path):
    content = json.loads((BEFORE / "study.json").read_text()) | {"study": "gone"}
    (tmp_path / "study.json").write_text(json.dumps(content))
    found = Declaration.read(tmp_path)
    assert found.contrasts == found.scales == found.caveats == found.colour_order == ()


def test_a_declaration_is_read_as_it_was_written(asked, tmp_path):
    asked.write(tmp_path)
    assert Declaration.read(tmp_path) == asked
    assert list(asked.arms) == ["dense", "top1"] and asked.seeds == (0, 2)


def test_what_is_asked_later_is_added(asked, tmp_path):
    asked.write(tmp_path)
    Declaration.of("dense_topk_hash", "tiny", ["top2"], [1], ["train.steps=4"]).write(tmp_path)
    found = Declaration.read(tmp_path)
    assert list(found.arms) == ["dense", "top1", "top2"] and found.seeds == (0, 1, 2)


def test_other_settings_are_refused(asked, tmp_path):
    asked.write(tmp_path)
    with pytest.raises(Mistake, match=r"overrides is \['train.steps=4'\] there, \[\] asked"):
        dataclasses.replace(asked, overrides=()).write(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"arms": 3, "seeds": []}', '{"arms": {}}', '{"arms": {}, "seeds": [NaN]}'),
        *('{"arms": {}, "seeds": ["0"]}', '{"arms": {}, "seeds": [-1]}', "[" * 100_000, "\xff"),
        *('{"arms": {"../x": ""}, "seeds": []}', '{"arms": {"a": 3}, "seeds": []}'),
    ],
)
def test_a_damaged_file_stops_a_run_in_one_line(asked, tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(Mistake, match=r"study\.json: is damaged .*; repair or remove it") as error:
        asked.write(tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "study.json").read_text() == text


@pytest.mark.parametrize(
    "damage",
    [{"contrasts": 3}, {"scales": [{"name": "x"}]}, {"caveats": ["text"]}, {"contrasts": [{}]}],
)
def test_a_damaged_declaration_is_one_line(asked, tmp_path, damage):
    content = asked.content() | damage
    content["declared"] = declaration._digest(content)
    (tmp_path / "study.json").write_text(files.sealed(content))
    with pytest.raises(Mistake, match=r"study\.json: not as a study run writes it"):
        Declaration.read(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b", "a" * 300])
def test_arms_are_names_of_folders(name, asked, tmp_path):
    content = asked.content() | {"arms": {name: "a line"}}
    (tmp_path / "study.json").write_text(files.sealed(content))
    with pytest.raises(Mistake, match="which is no name of a folder"):
        Declaration.read(tmp_path)


def test_a_result_is_strict_json(tmp_path):
    """A run that took no step has no median; NaN, which no other reader takes, was written."""
    expected = {"study": "dense_topk_hash", "size": "tiny", "arm": "top2", "seed": 0}
    timing = {"step_s": float("nan"), "goodput": 0.5}
    dataclasses.replace(Result.read(RESULT, expected), timing=timing).write(tmp_path)
    assert "NaN" not in (tmp_path / "result.json").read_text()
    assert Result.read(tmp_path / "result.json", expected).timing == {
        "step_s": None,
        "goodput": 0.5,
    }


def test_a_number_that_no_float_holds_is_not_finite():
    assert finite(10**300) and not finite(10**400) and not finite(float("nan")) and not finite("1")


def test_a_result_of_another_run_is_refused():
    with pytest.raises(Mistake, match="arm='top2' where 'top1' belongs"):
        Result.read(RESULT, {"arm": "top1"})


def test_a_study_names_only_arms_that_it_has():
    study = registry.lookup("study", "dense_topk_hash")
    with pytest.raises(Mistake, match="baseline=sparse: must be one of the arms"):
        dataclasses.replace(study, baseline="sparse")
    with pytest.raises(Mistake, match="scales=x: must be one of the arms"):
        dataclasses.replace(study, scales=(Scale("way", "Way", "dense", "x"),))
    with pytest.raises(Mistake, match="contrasts=difference_to_learned: has hash_random twice"):
        dataclasses.replace(study, contrasts=study.contrasts[:1] * 2)
