"""Optimizers and learning-rate schedules."""

from moe.registry import register

register(
    "schedule", "wsd", "moe.optimizer.schedules:WarmupStableDecay", "warm-up, plateau, linear decay"
)
register(
    "schedule", "cosine", "moe.optimizer.schedules:WarmupCosine", "warm-up, then half a cosine"
)
