"""Run Snakemake in a folder in which no other run works: ``python -m decaymerge.workflow.run FOLDER CONFIG ARGS``.

The lock is held by Snakemake's own process and inherited by none of its jobs. It therefore ends with that process,
however it ends, so that Snakemake's own lock, which a killed run leaves behind, can be taken off.
"""

import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from decaymerge.config.base import load
from decaymerge.errors import UserError

IN_USE = 75  # EX_TEMPFAIL of sysexits.h


def run(folder: Path, config: str, arguments: list[str]) -> None:
    """Run Snakemake in ``folder`` and exit with its code, or with ``IN_USE`` if another run works there."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".make.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"make: another run is working in {folder}; wait for it or stop it", file=sys.stderr)
        sys.exit(IN_USE)
    try:
        load(Path(config))  # Snakemake would follow aliases of aliases until the memory is full
    except UserError as error:
        sys.exit(f"make: {error}")
    place = ["--configfile", config, "--directory", str(folder)]
    if any((folder / ".snakemake/locks").glob("*")):
        unlock = [sys.executable, "-m", "snakemake", *place, "--unlock", "--quiet"]
        if code := subprocess.run(unlock, check=False).returncode:
            sys.exit(code)

    from snakemake.cli import main  # a second, which a refusal need not wait for

    sys.argv = ["snakemake", *place, *arguments]  # its messages and reports show it
    main()


if __name__ == "__main__":
    folder, config, *arguments = sys.argv[1:]
    run(Path(folder), config, arguments)
