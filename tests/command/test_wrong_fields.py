"""Fields of a MoE layer that cannot be: each is one line with the field, the value and the rule."""

import pytest

STUDY = "dense_topk_hash"

# What is wrong: the fields that are set on top2, and the line that must come back.
WRONG_FIELDS = {
    "fewer experts than k": (
        "model.moe.router=olmoe model.moe.num_experts=4",
        "model.moe.router.k=8: must be in [1, num_experts=4]",
    ),
    "a second second expert": (
        "model.moe.router=gshard model.moe.router.k=3",
        "model.moe.router.k=3: must be 2 for gshard",
    ),
    "groups that do not divide": (
        "model.moe.router=deepseek_v2 model.moe.num_experts=12",
        "model.moe.router.groups=8: must divide num_experts=12",
    ),
    "more groups kept than there are": (
        "model.moe.router.groups=4 model.moe.router.groups_kept=5",
        "model.moe.router.groups_kept=5: must be in [1, groups=4]",
    ),
    "no group kept": (
        "model.moe.router.groups=4 model.moe.router.groups_kept=0",
        "model.moe.router.groups_kept=0: must be in [1, groups=4]",
    ),
    "k beyond the groups kept": (
        "model.moe.router.groups=8 model.moe.router.k=3",
        "model.moe.router.k=3: 1 groups of 2 experts hold fewer",
    ),
    "experts that pick tokens": (
        "model.moe.router=expert_choice",
        "model.moe.router=ExpertChoice: sees later tokens, so the loss of a language model is too",
    ),
    "the next token as key": ("model.moe.router=hash_oracle", "model.moe.router=Hash: sees later "),
    "a non-causal layer": (
        "model.layout=first model.layout.router_there=soft",
        "model.layout.router_there=Soft: sees later tokens",
    ),
    "table of tokens with another key": (
        "model.moe.router=hash_clustered model.moe.router.key=previous",
        "model.moe.router.table=ClusteredTable: groups token ids, so it needs key=token",
    ),
    "slots of a dispatcher below 0": (
        "model.moe.dispatch=einsum model.moe.dispatch.capacity_factor=-1",
        "model.moe.dispatch.capacity_factor=-1.0: must be a number > 0",
    ),
    "slots of a router below 0": (
        "allow_noncausal=true model.moe.router=expert_choice model.moe.router.capacity_factor=-1",
        "model.moe.router.capacity_factor=-1.0: must be a number > 0",
    ),
    "router misspelt": (
        "model.moe.router=sinkhron",
        "model.moe.router=sinkhron: no such router; did you mean 'sinkhorn'? (valid: base, ",
    ),
    "score misspelt": (
        "model.moe.router.score=sigmiod",
        "model.moe.router.score=sigmiod: no such score; did you mean 'sigmoid'? (valid: sigmoid, ",
    ),
    "noise misspelt": (
        "model.moe.router.noise=gumble",
        "model.moe.router.noise=gumble: no such noise; did you mean 'gumbel'? (valid: fixed, ",
    ),
    "key misspelt": (
        "model.moe.router=hash_random model.moe.router.key=bigram",
        "model.moe.router.key=bigram: no such key; did you mean 'ngram'? (valid: next, ngram, ",
    ),
    "label misspelt": (
        "model.moe.router=supervised data.label=wrod",
        "data.label=wrod: no such value; did you mean 'word'? (valid: class, desk, ",
    ),
    "loss weight at its old place": (
        "model.moe.router.load_balance=0.1",
        "model.moe.router.load_balance=0.1: no such field",
    ),
    "the softmax of one logit": (
        "model.moe.router.order=choose_first model.moe.router.k=1",
        "model.moe.router.order=choose_first: a softmax over k=1 logit is always 1 and gives the ",
    ),
    "load loss without noise": (
        "model.moe.router.losses.load=0.1",
        "model.moe.router.losses.load=0.1: needs noise with a deviation (valid: noise=fixed, ",
    ),
    "loss weight below 0": (
        "model.moe.router.losses.load_balance=-0.1",
        "model.moe.router.losses.load_balance=-0.1: must be a number >= 0",
    ),
    "guidance below 0": (
        "model.moe.router=supervised model.moe.router.losses.guidance=-1",
        "model.moe.router.losses.guidance=-1.0: must be a number >= 0",
    ),
    "more experts than a label has": (  # 8 // 5 = 1
        "model.moe.router=labelled model.moe.num_experts=8 model.moe.router.k=2",
        "model.moe.router.k=2: must be at most 1, the experts that each of 5 labels has of ",
    ),
    "a layout of more layers": (
        "model.layout=first model.layout.layers=9",
        "model.layout.layers=9: must be in [1, 2 MoE layers]",
    ),
    "a layout of no layers": (
        "model.layout=last model.layout.layers=0",
        "model.layout.layers=0: must be in [1, 2 MoE layers]",
    ),
    "a layout of impossible routers": (
        "model.layout=first model.layout.router_there.k=99",
        "model.layout.router_there.k=99: must be in [1, num_experts=16]",
    ),
    "a layout without MoE": (
        "model.layout=first model.moe=none model.moe_layers=",
        "model.layout: must be none when model.moe is none",
    ),
    "null experts of no kind": (
        "model.moe.null=null model.moe.null.zero=0 model.moe.null.copy=0 model.moe.null.constant=0",
        "model.moe.null: has no expert; set model.moe.null=none for none",
    ),
    "a shared network of no width": (
        "model.moe.shared=ffn model.moe.shared.ffn.width=0",
        "model.moe.shared.ffn.width=0: must be >= 1",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FIELDS)
def test_every_wrong_field_is_one_line(wrong, mistaken):
    fields, line = WRONG_FIELDS[wrong]
    sets = " ".join(f"--set={field}" for field in fields.split())
    mistaken(f"show {STUDY}/top2 {sets}", line)
