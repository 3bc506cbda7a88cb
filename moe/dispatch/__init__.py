"""Every way for tokens to travel to experts and back. To add one: its file, and a line here."""

from moe.registry import register

register("dispatch", "oracle", "moe.dispatch.oracle:Oracle", "all experts on all tokens, slow")
register("dispatch", "einsum", "moe.dispatch.einsum:Einsum", "one-hot masks, capacity, groups")
register("dispatch", "gather", "moe.dispatch.gather:Gather", "slots of indices, capacity")
register("dispatch", "ragged", "moe.dispatch.ragged:Ragged", "sorted rows in blocks, dropless")
register("dispatch", "ring", "moe.dispatch.ragged:Ragged", "ragged, by what it does on a mesh")
register("dispatch", "all_to_all", "moe.dispatch.all_to_all:AllToAll", "rows to experts' devices")
_RAGGED = "moe.dispatch.ragged_all_to_all:RaggedAllToAll"
register("dispatch", "ragged_all_to_all", _RAGGED, "rows to experts' devices, no room per pair")
register("dispatch", "auto", "moe.dispatch.auto:Auto", "picks a dropless one by platform and mesh")

register("overflow", "drop", "moe.dispatch.overflow:Drop", "what has no room is not served")
register("overflow", "exact", "moe.dispatch.overflow:Exact", "what has no room takes a slower path")

register("priority", "choice_major", "moe.order:ChoiceMajor", "first choices before second ones")
register("priority", "token_major", "moe.order:TokenMajor", "tokens in order, causal")
