"""Where the workflow's own files are: in a checkout, or in the installed package, where the wheel has them."""

import os
import shutil
from pathlib import Path

from decaymerge.errors import UserError

_INSTALLED = Path(__file__).parents[1] / "pipeline"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3]
SNAKEFILE = FOLDER / "Snakefile"

_SNAKEFILE = '''"""The workflow of decaymerge, with the settings in config.yaml. Rules of your own can follow."""

from decaymerge.workflow.pipeline import SNAKEFILE


configfile: "config.yaml"


include: SNAKEFILE


rule mine:
    default_target: True
    input:
        rules.all.input,
'''
_CONFIG = """\
# Each experiment trains networks for two tasks, merges them, and draws a figure.
experiments:
  mine:
    tasks: {dataset: gaussian, dim: 40, samples: 100, overlap: 0.3, labels: linear}
    network: {activation: relu, hidden: [50, 50]}
    training: {optimiser: gd, step_size: 1.0, steps: 2000, weight_decay: [0, 1e-3]} # add one, and only its jobs run
    seeds: 2
    merge: [sum, average]
"""


def resources(checkout: Path) -> Path:
    """The folder for fetched data and models: the checkout's, which all runs share, or the working folder's.

    The latter is taken where the workflow is not a checkout, or one that is read-only.
    """
    is_shared = (checkout / "pyproject.toml").exists() and os.access(checkout, os.W_OK)
    return checkout / "resources" if is_shared else Path("resources")


def new(folder: Path) -> list[Path]:
    """Write a Snakefile, a configuration and the profiles into a folder, and return their paths.

    Raises:
        UserError: one of them is there already, or the folder would be in a file.
    """
    if file := next((str(place) for place in (folder, *folder.parents) if place.is_file()), ""):
        raise UserError(f"{file} is a file; name another folder, or move it away")
    paths = [folder / name for name in ("Snakefile", "config.yaml", "profiles")]
    if there := [str(path) for path in paths if path.exists()]:
        raise UserError(f"{', '.join(there)}: there already; name another folder, or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, (_SNAKEFILE, _CONFIG), strict=False):
        path.write_text(text)
    shutil.copytree(FOLDER / "profiles", paths[-1])
    return paths
