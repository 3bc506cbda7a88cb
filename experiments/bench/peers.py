"""Others' layers on torch, to be timed beside ours where they are installed."""

from collections.abc import Callable


def mixtral(one, plan, dtype: str = "float32") -> dict[str, tuple[Callable, Callable, int | None]]:
    """Its experts for a `bench.cases.Shape` under our plan, in eager and grouped form.

    On the GPU where torch has one, else on the CPU; nothing where it is missing. Of each: forward,
    forward and backward, and the bytes that the latter allocates at most, None on the CPU.
    """
    try:
        import torch
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except ImportError:
        return {}
    import numpy as np

    place = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
    kind = place | {"dtype": getattr(torch, dtype)}
    index_TK = torch.tensor(np.asarray(plan.expert_TK), dtype=torch.int64, **place)
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
        with torch.device("meta"):
            experts = MixtralSparseMoeBlock(config).experts
        experts = experts.to(kind["dtype"]).to_empty(**place)
        for parameter in experts.parameters():
            torch.nn.init.normal_(parameter, std=one.D**-0.5)
        x = torch.randn(one.T, one.D, requires_grad=True, **kind)
        gate_TK = torch.tensor(np.asarray(plan.gate_TK), requires_grad=True, **place)
        found[f"hf {form}"] = _calls(torch, experts, (x, index_TK, gate_TK))
    return found


def lucidrains(one, dtype: str = "float32") -> dict[str, tuple[Callable, Callable, int | None]]:
    """The layer of the package mixture-of-experts, which knows k = 2 only: its own router, capacity
    factor 1.25, experts of two matrices. As `mixtral`, on the CPU.
    """
    try:
        import torch
        from mixture_of_experts import MoE
    except ImportError:
        return {}
    if one.k != 2:
        return {}
    torch.manual_seed(0)
    layer = MoE(one.D, one.E, one.F, second_policy_train="all").to(getattr(torch, dtype))
    x = torch.randn(1, one.T, one.D, requires_grad=True, dtype=getattr(torch, dtype))

    def forward():
        with torch.no_grad():
            layer(x)

    def both():
        layer.zero_grad()
        layer(x)[0].float().square().sum().backward()

    return {"lucidrains": (forward, both, None)}


def _calls(torch, experts, inputs: tuple) -> tuple[Callable, Callable, int | None]:
    on_gpu = inputs[0].is_cuda

    def finish():
        if on_gpu:
            torch.cuda.synchronize()

    def forward():
        with torch.no_grad():
            experts(*inputs)
        finish()

    def both():
        for tensor in (inputs[0], inputs[2], *experts.parameters()):
            tensor.grad = None
        experts(*inputs).float().square().sum().backward()
        finish()

    if not on_gpu:
        return forward, both, None
    both()  # chooses kernels and what they work in
    for tensor in (inputs[0], inputs[2], *experts.parameters()):
        tensor.grad = None
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    both()
    return forward, both, torch.cuda.max_memory_allocated() - held
