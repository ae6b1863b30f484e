"""A real SLURM of one node on this machine, for tests: started as root, stopped and removed afterwards."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# A test of decaymerge made this file, and removes it."
PROGRAMS = ["munged", "slurmctld", "slurmd", "squeue", "sbatch", "srun", "scontrol"]
PARTITION = "debug"


def wait_until(what: str, true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not after {seconds} s"
        time.sleep(0.5)


class Cluster:
    """Controller and one node, with memory limits that kill."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        assert not missing, f"no {', '.join(missing)}: 'make slurm-test' installs them on Debian, as root"
        assert os.geteuid() == 0, "SLURM's node daemon needs root"
        if CONFIGURATION.exists():
            assert MARK in CONFIGURATION.read_text(), (
                f"{CONFIGURATION} is not a test's: this machine has a SLURM"
            )
            self._kill()
        self.node = socket.gethostname().split(".")[0]
        self.log = folder / "log"
        for name in ("state", "spool", "log"):
            (folder / name).mkdir(parents=True)
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text(
            f"""{MARK}
ClusterName=decaymerge
SlurmctldHost={self.node}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
MinJobAge=3600
KillWait=2
MessageTimeout=10
SchedulerParameters=sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd
SlurmctldPort=17817
SlurmdPort=17818
NodeName={self.node} NodeAddr=127.0.0.1 CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName={PARTITION} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        )
        if subprocess.run(["pgrep", "-x", "munged"], capture_output=True, check=False).returncode:
            for where, mode in {
                "/run/munge": 0o755,
                "/var/log/munge": 0o700,
                "/var/lib/munge": 0o711,
            }.items():
                Path(where).mkdir(exist_ok=True)
                shutil.chown(where, "munge", "munge")
                Path(where).chmod(mode)
            subprocess.run(["runuser", "-u", "munge", "--", shutil.which("munged") or "munged"], check=True)
        self.start_controller()
        subprocess.run(["slurmd"], check=True)
        wait_until("the node is idle", lambda: self.state() == "idle")

    def start_controller(self) -> None:
        subprocess.run(["slurmctld"], check=True)
        wait_until("the controller answers", lambda: self.state() != "")

    def stop_controller(self) -> None:
        subprocess.run(["pkill", "-x", "slurmctld"], check=True)
        wait_until("the controller is gone", lambda: self.state() == "")

    def state(self) -> str:
        """State of the node, empty where the controller does not answer."""
        asked = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        return asked.stdout.strip() if asked.returncode == 0 else ""

    def update_node(self, state: str) -> None:
        change = ["scontrol", "update", f"NodeName={self.node}", f"State={state}", "Reason=test"]
        subprocess.run(change, check=True)

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs in the given states."""
        listed = ["squeue", "-h", "-o", "%i", "-t", ",".join(states)]
        return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()

    def logged(self, text: str) -> bool:
        return any(text in file.read_text(errors="replace") for file in self.log.iterdir())

    def stop(self) -> None:
        subprocess.run(["scancel", "--user", "root"], capture_output=True, check=False)
        self._kill()
        CONFIGURATION.unlink()

    def _kill(self) -> None:
        for name in ("slurmctld", "slurmd"):
            subprocess.run(["pkill", "-9", "-x", name], capture_output=True, check=False)
