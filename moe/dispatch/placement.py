"""Which device holds which expert: hot experts several times, devices with equal loads.

The greedy algorithm that DeepSeek-V3 serves with (arXiv 2412.19437, section 3.4; its open code is
known as EPLB): experts are packed on nodes by groups, then copied, then the copies packed on the
devices of a node.
"""

import numpy as np

from moe.registry import Mistake


def pack(weight_X: np.ndarray, packs: int) -> tuple[np.ndarray, np.ndarray]:
    """Distributes items over packs of equally many: the heaviest first, to the lightest pack.

    Returns the pack of each item and its place there. Ties go to the lowest index.
    """
    size = len(weight_X) // packs
    pack_X, place_X = np.zeros((2, len(weight_X)), np.int64)
    weight, count = np.zeros(packs), np.zeros(packs, np.int64)
    for item in np.argsort(-weight_X, kind="stable"):
        chosen = np.argmin(np.where(count < size, weight, np.inf))
        pack_X[item], place_X[item] = chosen, count[chosen]
        weight[chosen] += weight_X[item]
        count[chosen] += 1
    return pack_X, place_X


def copies(load_E: np.ndarray, count: int) -> np.ndarray:
    """The expert of each of `count` copies: every expert once, then the one with most per copy."""
    copies_E = np.ones(len(load_E), np.int64)
    expert = list(range(len(load_E)))
    while len(expert) < count:
        hottest = int(np.argmax(load_E / copies_E))
        copies_E[hottest] += 1
        expert.append(hottest)
    return np.array(expert)


def place(
    load_E: np.ndarray, replicas: int, devices: int, nodes: int = 1, groups: int = 1
) -> np.ndarray:
    """The expert in each of `replicas` places; device d holds the d-th equal part of them.

    Args:
      load_E: assignments of each expert, as measured.
      replicas: copies of experts in all, at least one each.
      nodes: fast networks that the devices are in; experts of one group stay in one node.
      groups: equal runs of experts that tokens are routed to together; if nodes do not divide
        them, they are placed as if there were one node.

    Raises Mistake for counts that do not divide.
    """
    E = len(load_E)
    _check(E, replicas, devices, nodes, groups)
    if groups % nodes:
        nodes = groups = 1
    of_group = E // groups
    node_G, place_G = pack(np.reshape(load_E, (groups, of_group)).sum(axis=1), nodes)
    found = []
    for node in range(nodes):
        mine = np.flatnonzero(node_G == node)
        mine = mine[np.argsort(place_G[mine])]
        experts = (mine[:, None] * of_group + np.arange(of_group)).ravel()
        copy = copies(load_E[experts], replicas // nodes)
        share = load_E[experts] / np.bincount(copy)
        device, place = pack(share[copy], devices // nodes)
        found.append(experts[copy[np.lexsort((place, device))]])
    return np.concatenate(found)


def _check(E: int, replicas: int, devices: int, nodes: int, groups: int) -> None:
    for name, value, rule, good in (
        ("replicas", replicas, f"must be >= the {E} experts", replicas >= E),
        ("devices", devices, f"must divide replicas={replicas}", replicas % max(devices, 1) == 0),
        ("nodes", nodes, f"must divide devices={devices}", devices % max(nodes, 1) == 0),
        ("groups", groups, f"must divide the {E} experts", E % max(groups, 1) == 0),
    ):
        if value < 1 or not good:
            raise Mistake(f"{name}={value}: {rule}")


def device_load(load_E: np.ndarray, expert_P: np.ndarray, devices: int) -> np.ndarray:
    """Assignments of each device, when the copies of an expert share its load."""
    share_E = load_E / np.bincount(expert_P, minlength=len(load_E))
    return share_E[expert_P].reshape(devices, -1).sum(axis=1)
