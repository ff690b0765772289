"""From the `random_state` of scikit-learn to the seed of the library."""

import numbers
from typing import Any

from sklearn.utils.validation import check_random_state


def as_seed(random_state: Any) -> int:
    """An int itself; of anything else, one that is drawn from it."""
    generator = check_random_state(random_state)
    return int(random_state) if isinstance(random_state, numbers.Integral) else int(generator.randint(2**31 - 1))
