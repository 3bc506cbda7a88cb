"""What the page holds: several traces of one text as one record of compact numbers."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.explorer import packed
from experiments.explorer.counted import MOST, Read
from experiments.explorer.finding import Finding
from experiments.explorer.given import Given
from experiments.explorer.pairs import slots
from experiments.explorer.passages import Passage, spread
from moe.analysis.trace import LayerTrace, Trace
from moe.registry import Mistake

SCHEMA = 1
GATES = 254  # steps of a gate
ENOUGH = 20  # passages for which an expert's table gives way
RUN_KEYS = ("study", "arm", "seed", "step")


def text(counted: Read, limit: int) -> tuple[str, int]:
    """The payload as JSON of at most `limit` bytes, and how many tokens it has.

    As many passages as fit, with shorter tables where those are few; raises Mistake where not
    even one does.
    """
    for most in (MOST, MOST // 2, MOST // 4, 0):
        made, chosen = _fitting(counted, limit, most)
        if chosen and (not most or len(chosen) >= min(ENOUGH, len(counted.found))):
            return made, sum(passage.stop - passage.start for passage in chosen)
    raise Mistake(
        f"the explorer: {len(counted.traces)} runs do not fit into {limit:,} bytes; name fewer"
    )


def _fitting(counted: Read, limit: int, most: int) -> tuple[str, list[Passage]]:
    """As many passages as fit, found from the sizes of one and of some; none may do."""

    def build(count: int) -> tuple[str, list[Passage]]:
        chosen = spread(counted.found, count, counted.finding.passage)
        return _json(payload(counted, chosen, most)), chosen

    one, some = build(1), build(ENOUGH)
    if len(one[0]) > limit:
        return "", []
    each = (len(some[0]) - len(one[0])) / max(1, len(some[1]) - 1)
    count = min(len(counted.found), 1 + int((limit - len(one[0])) / max(each, 1)))
    made, chosen = build(count)
    while len(made) > limit:
        count = min(count - 1, int(count * limit / len(made)))
        made, chosen = build(max(count, 1))
    return made, chosen


def _json(content: dict[str, Any]) -> str:
    """JSON in ASCII that stays text inside a script element, whatever it says."""
    made = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def payload(counted: Read, chosen: Sequence[Passage], most: int) -> dict[str, Any]:
    """The record that the page reads, of the chosen passages.

    Args:
      counted: of the whole text.
      chosen: passages in order.
      most: ids of an expert's table.
    """
    first = counted.traces[0]
    at_n = np.concatenate([np.arange(p.start, p.stop) for p in chosen])
    tops = [one.top_EM[:, :most].reshape(-1) for by in counted.given for one in by.values()]
    used = np.unique(np.concatenate([first.id_T[at_n], first.target_T[at_n], *tops]))
    used = used[used >= 0]
    local_V = np.full(len(first.about.vocabulary) + 1, len(used))  # the last for -1
    local_V[used] = np.arange(len(used))
    count_V = np.bincount(first.id_T, minlength=len(first.about.vocabulary))
    finding = counted.finding
    return {
        "schema": SCHEMA,
        "finding": finding.sentence,
        "start": _start(finding, chosen),
        "tokens": first.tokens,
        "without": counted.without,
        "depths": counted.depths,
        "desks": first.about.desks,
        "classes": first.about.classes,
        "desk_tokens": np.bincount(first.desk_T + 1, minlength=len(first.about.desks) + 1)[
            1:
        ].tolist(),
        "vocabulary": [first.about.vocabulary[i] for i in used],
        "count": packed.whole(count_V[used]),
        "text": _tokens(first, at_n, local_V),
        "passages": [
            {
                "size": p.stop - p.start,
                "desk": p.desk,
                "window": int(p.start // first.length),
                "position": int(first.position_T[p.start]),
            }
            for p in chosen
        ],
        "runs": [
            _run(trace, at_n, [_top(by[layer.layer], local_V, most) for layer in trace.layers])
            | {"label": counted.names[r], "slots": _slots(counted, r)}
            for r, (trace, by) in enumerate(zip(counted.traces, counted.given, strict=True))
        ],
        "pairs": _pairs(counted),
    }


def _start(finding: Finding, chosen: Sequence[Passage]) -> dict[str, Any]:
    return {
        "a": finding.runs[0],
        "b": finding.runs[1],
        "depth": finding.depth,
        "passage": chosen.index(finding.passage),
        "token": finding.token,
        "expert": finding.expert,
        "mode": finding.mode,
    }


def _tokens(trace: Trace, at_n: np.ndarray, local_V: np.ndarray) -> dict[str, Any]:
    """Ids by place in the page's vocabulary; one past its end, or a label's, is none."""
    desks, classes = len(trace.about.desks), len(trace.about.classes)
    return {
        "id": packed.whole(local_V[trace.id_T[at_n]]),
        "target": packed.whole(local_V[trace.target_T[at_n]]),
        "desk": packed.whole(np.where(trace.desk_T < 0, desks, trace.desk_T)[at_n]),
        "class": packed.whole(np.where(trace.class_T < 0, classes, trace.class_T)[at_n]),
        "document": packed.whole(trace.document_T[at_n]),
    }


def _run(trace: Trace, at_n: np.ndarray, tables: list[dict[str, Any]]) -> dict[str, Any]:
    known = np.isfinite(trace.loss_T)
    return {key: getattr(trace.about, key) for key in RUN_KEYS} | {
        "mean": float(trace.loss_T[known].mean()) if known.any() else None,
        "loss": packed.real(trace.loss_T[at_n]),
        "layers": [
            _layer(layer, at_n) | table for layer, table in zip(trace.layers, tables, strict=True)
        ],
    }


def _layer(layer: LayerTrace, at_n: np.ndarray) -> dict[str, Any]:
    expert_nK, kept_nK = layer.expert_TK[at_n], layer.kept_TK[at_n]
    lost = ~kept_nK & (expert_nK < layer.num_experts)
    return {
        "depth": layer.layer,
        "experts": layer.num_experts,
        "router": layer.router,
        "choices": layer.expert_TK.shape[1],
        "expert": packed.whole(expert_nK),
        "gate": packed.real(layer.gate_TK[at_n], GATES),
        "margin": packed.real(layer.margin_T[at_n]),
        "lost": packed.flags(lost) if lost.any() else None,
    }


def _top(one: Given, local_V: np.ndarray, most: int) -> dict[str, Any]:
    return {
        "share": packed.real(one.share_E),
        "desk_share": packed.real(one.share_YE),
        "most": min(most, one.top_EM.shape[1]),
        "top": packed.whole(local_V[one.top_EM[:, :most]]),
        "had": packed.whole(one.had_EM[:, :most]),
    }


def _slots(counted: Read, run: int) -> list[dict[str, Any]]:
    """The colour of each expert of a run: layer by layer after the one below it."""
    found: list[np.ndarray] = []
    before: LayerTrace | None = None
    for layer in counted.traces[run].layers:
        if before is None:
            found.append(np.arange(layer.num_experts))
        else:
            found.append(slots(before, found[-1], layer))
        before = layer
    return [packed.whole(slot_E) for slot_E in found]


def _pairs(counted: Read) -> dict[str, Any]:
    """By "i,j" and depth: partners (the number of experts is none), agreement and its null."""
    return {
        f"{i},{j}": {
            str(depth): {
                "partner": packed.whole(np.where(one.partner_E < 0, 65535, one.partner_E)),
                "agreement": one.agreement,
                "null": one.null,
            }
            for depth, one in by_depth.items()
        }
        for (i, j), by_depth in counted.pairs.items()
    }
