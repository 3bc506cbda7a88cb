"""Every study. To add one: its file, and a line here."""

from moe.registry import register

register(
    "study",
    "dense_topk_hash",
    "experiments.studies.dense_topk_hash:STUDY",
    "dense, top-k and hash routing at equal active FLOPs",
)
