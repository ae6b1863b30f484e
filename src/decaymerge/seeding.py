"""Random streams that depend on (experiment, task, seed) alone.

Neither λ, nor the block of seeds that a job trains, nor the number of seeds enters: so adding a λ or a seed
leaves every member that exists as it was.
"""

import hashlib

import numpy as np


def generator(experiment: str, task: str, seed: int, purpose: str) -> np.random.Generator:
    """Independent stream for one ``purpose`` (``data``, ``weights``, …) of one member."""
    digest = hashlib.sha256(f"{experiment}/{task}/{seed}/{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
