"""Mixture-of-experts language models in JAX: routers, dispatch, experts, training, analysis."""
