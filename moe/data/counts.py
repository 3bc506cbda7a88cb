"""What a router may learn of the training text."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """What a router may learn of the training text before step 0.

    Attributes:
      count_V: how often each token id stands in it.
      token_S: the ids in the order of the text.
    """

    count_V: np.ndarray
    token_S: np.ndarray
