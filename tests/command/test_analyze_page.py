"""The page that `analyze` writes of what it traced: where, of which runs, and when not."""

import dataclasses

import pytest

from experiments.runner import traced
from experiments.runner.traced import Place, common_folder
from moe.analysis import trace
from tests.fakes import spoken

TRACES = {
    "learned/seed0": spoken.learned(),
    "learned/seed1": spoken.learned(1),
    "hashed/seed0": spoken.hashed(),
}


def place(folder):
    return Place(str(folder / "checkpoints"), "newest", folder, "words", folder.parent.name)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A study whose traces are there already; what is asked for is "traced" by naming them."""
    (tmp_path / "study.json").write_text("{}")
    for name, one in TRACES.items():
        (tmp_path / name).mkdir(parents=True)
        trace.write(tmp_path / name / "trace.parquet", [one])

    def places(word, step):
        return [place(tmp_path / name) for name in TRACES if (tmp_path / name).match(f"*/{word}")]

    def trace_all(found, asked, say):
        return {one.name: one for one in found}

    monkeypatch.setattr(traced, "places", places)
    monkeypatch.setattr(traced, "trace_all", trace_all)
    return tmp_path


def test_two_runs_have_their_page_in_the_folder_of_the_study(runs, call):
    code, out, err = call("analyze", "learned/*", "hashed/*")
    assert (code, err) == (0, "")
    assert out == f"page: {runs / 'routing.html'}: runs: 3, tokens: {spoken.HAS}\n"
    text = (runs / "routing.html").read_text("utf-8")
    assert "learned seed 0 and hashed seed 0" in text and (runs / "routing.json").exists()


def test_one_run_has_a_page_where_one_is_asked_for(runs, call):
    assert call("analyze", "hashed/*") == (0, "", "")
    page = runs / "own.html"
    out = call("analyze", "hashed/*", f"--page={page}")[1]
    assert out == f"page: {page}: runs: 1, tokens: {spoken.HAS}\n"
    assert [path.name for path in runs.glob("*.html")] == ["own.html"]
    none = runs / "none" / "own.html"
    line = f"error: --page={none}: there is no folder {none.parent}\n"
    assert call("analyze", "hashed/*", f"--page={none}") == (2, "", line)


def test_runs_of_two_texts_have_no_page(runs, call):
    other = dataclasses.replace(spoken.hashed(), id_T=(spoken.hashed().id_T + 1) % 32)
    trace.write(runs / "hashed/seed0/trace.parquet", [other])
    why = (
        "words/hashed seed 0: is not traced over the text of words/learned seed 0; analyze both on "
        "one text, tokeniser and sequence length\n"
    )
    assert call("analyze", "*/seed0") == (0, f"no page: {why}", "")
    assert call("analyze", "*/seed0", f"--page={runs / 'own.html'}") == (2, "", f"error: {why}")
    assert not list(runs.glob("*.html"))


def test_runs_that_no_study_holds_have_it_in_the_nearest_folder(tmp_path):
    found = [place(tmp_path / name) for name in ("a/x/seed0", "a/y/seed0", "b/x/seed0")]
    assert common_folder(found) == tmp_path
    assert common_folder(found[:2]) == tmp_path / "a"
