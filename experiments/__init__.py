"""Why: studies that compare arms, the command that runs them, and their reports."""

from moe.registry import register

register(
    "study",
    "dense_topk_hash",
    "experiments.dense_topk_hash:STUDY",
    "dense, top-k and hash routing at equal active FLOPs",
)
