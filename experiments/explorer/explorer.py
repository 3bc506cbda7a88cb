"""The page routing.html: several traces of one text, in one file that loads nothing."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from experiments.explorer import counted, payload
from experiments.explorer.counted import Read
from experiments.explorer.samples import samples
from experiments.figures import palette
from experiments.results import routing
from experiments.text import listing
from moe import files
from moe.analysis.trace import About, Trace

BYTES = 2_000_000  # of the page, at most
RUNS = 12  # on one page
ASSETS = Path(__file__).parent / "page"
STYLES = ("page.css", "reader.css")
SCRIPTS = ("data.js", "state.js", "elements.js", "text.js", "selected.js", "keys.js", "main.js")
METHODS = (
    "Both panes show the same tokens. The bar under a token has the colours of the experts that "
    "it chose, as wide as their gates; the tint is that of the expert it preferred. A token "
    "that no expert served is struck through; ▯ is a part of a character.",
    "A number stands for an expert, 12 colours for numbers, dashed from the thirteenth on. In A a "
    "colour goes from layer to layer with the tokens, in B an expert has the colour of its "
    "partner in A.",
    "Partners are found one to one, as the assignment with the most tokens in common (Hungarian "
    "method). Some agreement comes from that alone, so beside it stands what shuffled choices "
    "give, mean of five.",
    "Shares and tables are counted over all tokens of the trace. An expert's tokens are ranked by "
    "how far their number is above the expert's share of all tokens, in standard deviations of a "
    "binomial. Contexts are those of the passages in this page.",
    "Loss is in nats, of the token that follows. Margin is by how much the router preferred the "
    "last expert chosen over the best one not chosen; a table of ids has none.",
)


def write(path: Path, traces: Sequence[Trace]) -> int:
    """Writes the page and returns how many tokens it shows; raises Mistake as `html` does.

    Where it has the name that a study's report looks for, routing.json is written beside it.
    """
    read = counted.read(traces)
    made, tokens = html(read)
    files.write(path, made)
    if path.name == routing.PAGE:
        routing.write(path.parent, samples(read))
    return tokens


def choose(abouts: Sequence[About]) -> list[int]:
    """Which of several runs are on the page: RUNS of them, of each arm as many, the first ones."""
    turn: dict[tuple[str, str], int] = {}
    ranked = []
    for i, about in enumerate(abouts):
        arm = about.study, about.arm
        turn[arm] = turn.get(arm, 0) + 1
        ranked.append((turn[arm], i))
    return sorted(i for _, i in sorted(ranked)[:RUNS])


def html(read: Read) -> tuple[str, int]:
    """The page, at most BYTES long, and how many tokens it shows; all text is escaped.

    Raises Mistake where the traces are of different texts, have no experts or do not fit.
    """
    room = BYTES - len(_page(read, "", read.found[-1].stop).encode())
    made, tokens = payload.text(read, room)
    return _page(read, made, tokens), tokens


def _page(read: Read, made: str, tokens: int) -> str:
    arms = dict.fromkeys(trace.about.arm or trace.about.label for trace in read.traces)
    title = f"Routing of {listing(list(arms))}"
    kind = f"{title}: {tokens:,} of {read.traces[0].tokens:,} traced tokens"
    if read.without:
        kind += f"; without experts: {listing(list(read.without))}"
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        kind=escape(kind),
        finding=escape(read.finding.sentence),
        methods="".join(f"<p>{escape(text)}</p>" for text in METHODS),
        style=palette.theme() + palette.series() + "".join(map(_asset, STYLES)),
        script="".join(map(_asset, SCRIPTS)),
        payload=made,
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")
