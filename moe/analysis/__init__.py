"""Measurements of routing, as pure functions over counts and traces."""

from moe.registry import register

_OF = "moe.analysis"

register("metric", "information", f"{_OF}.information:Information", "what labels tell of experts")
register("metric", "clusters", f"{_OF}.clusters:Clusters", "clusters of inputs against classes")
register("metric", "vocabulary", f"{_OF}.vocabulary:Vocabulary", "experts of ids", "2409.02060")
register("metric", "domains", f"{_OF}.domains:Domains", "experts of desks", "2409.02060")
register("metric", "coactivation", f"{_OF}.coactivation:CoActivation", "pairs", "2409.02060")
register("metric", "repeat", f"{_OF}.repeat:Repeat", "the expert of the token before", "2401.04088")
register("metric", "drops", f"{_OF}.drops:Drops", "who is dropped, and its loss", "2402.01739")
register("metric", "geometry", f"{_OF}.geometry:Geometry", "margins, cones, borders, cohesion")

register("comparison", "saturation", f"{_OF}.saturation:Saturation", "settled", "2409.02060")
register("comparison", "matching", f"{_OF}.matching:Matching", "which expert is which")
