"""All that a report says in sentences."""

from typing import NamedTuple

from experiments.report import tuned
from experiments.report.caveats import caveats
from experiments.report.expected import sentences
from experiments.report.findings import findings, open_runs
from experiments.report.headline import headline
from experiments.results.record import Comparison


class Told(NamedTuple):
    """Sentences, under the names that results.json has for them; answers to what was expected."""

    headline: list[str]
    answers: list[str]
    choices: list[str]
    findings: list[str]
    caveats: list[str]
    open_runs: list[str]
    problems: list[str]

    @property
    def missing(self) -> list[str]:
        """What is not in the table."""
        return self.open_runs + self.problems


def tell(comparison: Comparison) -> Told:
    """What the numbers say, and what they do not."""
    return Told(
        headline=headline(comparison),
        answers=sentences(comparison),
        choices=tuned.sentences(comparison),
        findings=findings(comparison),
        caveats=caveats(comparison),
        open_runs=open_runs(comparison),
        problems=list(comparison.problems),
    )
