"""A few tokens of every expert, for the page of a study."""

from collections.abc import Iterable

from experiments.explorer.counted import Read
from experiments.results.routing import Routing, Sample

TOKENS = 8  # of an expert


def samples(read: Read) -> Routing:
    """Every expert in the last MoE layer of the first run of each arm; whole characters only."""
    firsts = {}
    for run, trace in enumerate(read.traces):
        firsts.setdefault((trace.about.study, trace.about.arm), run)
    rows = [row for run in firsts.values() for row in _rows(read, run)]
    return Routing(read.finding.sentence, read.traces[0].tokens, tuple(rows))


def _rows(read: Read, run: int) -> list[Sample]:
    trace, depth = read.traces[run], read.traces[run].layers[-1].layer
    had = read.given[run][depth]
    return [
        Sample(
            run=read.names[run],
            layer=depth,
            expert=e,
            share=float(had.share_E[e]),
            tokens=tuple(_whole(trace.about.vocabulary[i] for i in had.top_EM[e] if i >= 0)),
        )
        for e in range(len(had.share_E))
    ]


def _whole(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if "\ufffd" not in text][:TOKENS]
