"""Hugging Face's MoE block on torch, to be timed beside ours where both are installed."""

from collections.abc import Callable


def mixtral(one) -> dict[str, tuple[Callable, Callable]]:
    """Its block for a `bench_layer.Shape`, in eager and grouped form; nothing where it is missing.

    The two calls of each are forward, and forward and backward.
    """
    try:
        import torch
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except ImportError:
        return {}
    found = {}
    for form in ("eager", "grouped_mm"):
        config = MixtralConfig(
            hidden_size=one.D,
            intermediate_size=one.F,
            num_local_experts=one.E,
            num_experts_per_tok=one.k,
        )
        config._experts_implementation = form
        torch.manual_seed(0)
        block = MixtralSparseMoeBlock(config)
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=one.D**-0.5)
        x = torch.randn(1, one.T, one.D, requires_grad=True)

        def forward(block=block, x=x):
            with torch.no_grad():
                return block(x)

        def both(block=block, x=x):
            block.zero_grad()
            y = block(x)
            (y[0] if isinstance(y, tuple) else y).square().sum().backward()

        found[f"hf {form}"] = forward, both
    return found
