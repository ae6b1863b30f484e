"""What all stages share: the checked configuration, wildcards, and the modules that a command uses."""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from decaymerge import jobs
from decaymerge.config import check, experiment_pairs
from decaymerge.errors import UserError

# Jobs call `decaymerge` by name, also where the environment is not activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

try:
    CONFIG = check(config)
except UserError as error:
    raise WorkflowError(f"the configuration is refused:\n{error}") from None

EXPERIMENTS = CONFIG.experiments
RESOURCES = os.environ.get("DECAYMERGE_CACHE", str(Path(workflow.basedir) / "resources"))
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")


wildcard_constraints:
    experiment="[a-z0-9_]+",
    task="[a-z0-9_]+",
    pair="[a-z0-9_+]+",
    weight_decay=r"[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?",
    block=r"[0-9]+-[0-9]+",


def modules(*names):
    """Source files of modules, as inputs: a change in them re-runs what they made."""
    package = Path(workflow.basedir) / "src/decaymerge"
    files = []
    for name in names:
        files += sorted((package / name).glob("*.py")) or [package / f"{name}.py"]
    return [str(file) for file in files]
