"""Mixture-of-experts language models in JAX: routers, dispatch, experts, training, analysis."""

__version__ = "0.1.0"
