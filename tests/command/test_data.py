"""`data prepare`: what it prints and refuses."""

import pytest

MISTAKES = {  # what is wrong: the words, and the line that must come back
    "data of no action": ("data show x", "data show: no such action (valid: prepare)"),
    "data of no name": ("data prepare", "data prepare: must be 'data prepare NAME', has 1 word"),
    "data of a wrong name": ("data prepare a+b", "data prepare a+b: must be NAME, NAME/CONFIG or "),
    "data with a flag": (
        "data prepare lm1b --size=tiny",
        "--size: is no flag of data (valid: none)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, mistaken):
    mistaken(*MISTAKES[mistake])


def test_data_prepare_prints_the_folder(call, monkeypatch):
    from moe.data.sources import catalogue

    monkeypatch.setattr(catalogue, "prepare", lambda name: f"/place/{name}")
    assert call("data", "prepare", "lm1b") == (0, "prepared: /place/lm1b\n", "")
