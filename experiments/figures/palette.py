"""Colours, markers and type of the figures: Okabe and Ito (2008), safe for colour-blind readers."""

INK, MUTED, RULE, PAPER = "#1b1b1c", "#6c6c6d", "#d8d8d9", "#fefefd"
THEME = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "none"}
# Arms that the studies know: blues learn, oranges hash.
KNOWN = {
    "dense_total": ("#8a8f98", "s"),
    "top1": ("#0072b2", "^"),
    "top2": ("#56b4e9", "v"),
    "hash_random": ("#d55e00", "D"),
    "hash_balanced": ("#e69f00", "P"),
}
SPARE = ("#009e73", "#cc79a7", "#8c6d31", "#7a5195", "#5b8c2a", "#b5446e", "#3f6f8f", "#a6761d")
SPARE_MARKERS = "Xp*h<>dH"
SETTINGS = {
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.unicode_minus": True,
}


def style(record: dict, arm: str) -> tuple[str, str]:
    """Colour and marker of an arm, the same in every figure."""
    if arm == record["baseline"]:
        return INK, "o"
    if arm in KNOWN:
        return KNOWN[arm]
    others = [name for name in record["arm_order"] if name not in KNOWN]
    index = others.index(arm)
    return SPARE[index % len(SPARE)], SPARE_MARKERS[index % len(SPARE_MARKERS)]
