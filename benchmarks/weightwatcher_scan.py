"""Run WeightWatcher's analyze() on the matrices that standard input names; print stable ranks and time as JSON."""

import json
import sys
import time
import warnings

import torch
from safetensors import safe_open
from torch import nn

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

import weightwatcher as ww  # noqa: E402, the number of threads must be set before

request = json.load(sys.stdin)
layers = nn.ModuleList()
with safe_open(request["file"], "pt") as source:
    for name in request["names"]:
        weight = source.get_tensor(name)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.clone()
        layers.append(layer)

start = time.perf_counter()
details = ww.WeightWatcher(model=layers).analyze()
seconds = time.perf_counter() - start
assert len(details) == len(request["names"])
# WeightWatcher's ``norm`` is the squared Frobenius norm, its ``spectral_norm`` the largest squared singular value.
ranks = (details.norm / details.spectral_norm).tolist()
print(json.dumps({"seconds": seconds, "stable_rank": ranks, "version": ww.__version__}))
