"""Names are text wherever they are shown: no markup, no formula, nothing a terminal acts on."""

import json

import pytest

from experiments.report.page.markup import Drawing, table
from experiments.report.report import report
from experiments.report.report import table as terminal
from experiments.text import printable
from tests.fakes.study import DESKS, Page, edit, write_study

ARMS = ("dense", "<svg onload=x>", "$\\frac$", "red\x1b[31m")
FORMULA = "cost$^"  # which mathtext cannot read


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    from tests.fakes import study as fake

    gaps = {arm: (-0.1, -0.11, -0.09) for arm in ARMS[1:]}
    with pytest.MonkeyPatch.context() as patch:
        for arm, gap in gaps.items():
            patch.setitem(fake.GAPS, arm, gap)
            patch.setitem(fake.LINES, arm, "an arm")
        directory = write_study(tmp_path_factory.mktemp("named"), arms=ARMS)
    for path in directory.glob("*/seed*/result.json"):
        found = json.loads(path.read_text())
        desks = {key: found[key] for key in ("desk_loss", "desk_tokens")}
        renamed = {
            key: {FORMULA if desk == DESKS[0] else desk: one for desk, one in value.items()}
            for key, value in desks.items()
        }
        edit(path, **renamed)
    report(directory)
    return directory


def test_names_with_dollar_signs_are_drawn_as_they_are(study):
    drawn = (study / "figures" / "loss_by_desk.svg").read_text()
    assert FORMULA in drawn and "$\\frac$" in drawn


def test_a_name_that_looks_like_a_drawing_is_escaped(study):
    page = Page((study / "report.html").read_text())
    assert "<svg onload=x>" in page.text
    assert "onload" not in (study / "report.html").read_text().replace("&lt;svg onload", "")
    cells = table("caption", ["a", "b", "c"], [["x", "<svg>", Drawing("<svg/>")]])
    assert "<td>&lt;svg&gt;</td>" in cells and "<td><svg/></td>" in cells


def test_nothing_that_a_terminal_acts_on_is_printed(study):
    text = terminal(study)
    assert "red\\x1b[31m" in text and "\x1b" not in text
    assert printable("a\tb\u202ec\n\u00e9") == "a\\tb\\u202ec\n\u00e9"
