"""The section of the page that sets what was declared beside what was observed."""

from html import escape

from experiments.report import expected as outcomes
from experiments.report.page.markup import Html, bullets, prose, table
from experiments.results.record import Comparison

WORDS = ("Expected", "Verdict")


def expected(comparison: Comparison, answers: list[str]) -> str:
    """The rule, a table, and every answer as a sentence; nothing where nothing was declared."""
    rows = outcomes.rows(comparison)
    if not rows:
        return ""
    columns = outcomes.notes(comparison)
    heads = list(columns)
    body = [[_cell(head, row[head]) for head in heads] for row in rows]
    notes = "".join(f"<dt>{escape(h)}</dt><dd>{escape(note)}</dd>" for h, note in columns.items())
    return (
        f"<p>{prose(answers[0])} {prose(outcomes.rule(comparison))}</p>"
        + table("Expected beside observed", heads, body, words=WORDS)
        + f"<details><summary>Each in words</summary>{bullets(answers[1:])}</details>"
        + f"<details><summary>What the columns are</summary><dl>{notes}</dl></details>"
    )


def _cell(head: str, text: str) -> str:
    if head != "Verdict":
        return text
    return Html(f'<span class="verdict {escape(text)}">{escape(text)}</span>')
