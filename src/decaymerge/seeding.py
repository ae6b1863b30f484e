"""Random streams that depend only on experiment, task, seed and purpose.

They do not depend on λ, on the number of seeds, or on the seeds that a job trains together. So adding a λ or a seed
leaves all existing networks as they are.
"""

import hashlib

import numpy as np


def generator(experiment: str, task: str, seed: int, purpose: str) -> np.random.Generator:
    """Random stream of one seed for one ``purpose`` (``data``, ``weights``, …), independent of all others."""
    digest = hashlib.sha256(f"{experiment}/{task}/{seed}/{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
