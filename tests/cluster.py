"""A real SLURM of two nodes with accounting on this machine, for tests: started as root, removed afterwards."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path("/etc/slurm")
MARK = "# A test of decaymerge made this file, and removes it."
PROGRAMS = [
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "slurmdbd",
    "sacctmgr",
    "mariadbd",
    "mariadb-install-db",
]
DAEMONS = ["slurmctld", "slurmd", "slurmdbd"]
PARTITION = "debug"
ACCOUNT = "root"
"""Accounting makes it for this user by itself."""
NODES = ["one", "two"]
"""Two daemons on this machine, of two cores and 5 GB each; the page of claims asks for two cores."""
SLURM = """
ClusterName=decaymerge
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=17819
AccountingStorageEnforce=associations
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
KillWait=2
MessageTimeout=10
SchedulerParameters=sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd-%n
SlurmctldPort=17817
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port=17818 CPUs=2 RealMemory=5000 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port=17820 CPUs=2 RealMemory=5000 State=UNKNOWN
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
ACCOUNTING = """
AuthType=auth/munge
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort=17819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=17806
StorageUser=root
StorageLoc=accounting
LogFile={folder}/log/slurmdbd
PidFile={folder}/slurmdbd.pid
"""


def wait_until(what: str, true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not after {seconds} s"
        time.sleep(0.5)


class Cluster:
    """Controller, accounting and two nodes, with memory limits that kill."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        assert not missing, f"no {', '.join(missing)}: 'make slurm-test' installs them on Debian, as root"
        assert os.geteuid() == 0, "SLURM's node daemon needs root"
        self.folder, self.log = folder, folder / "log"
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "log", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        self._configure("slurm.conf", SLURM)
        self._configure("slurmdbd.conf", ACCOUNTING)
        self._kill()
        if not self._done("pgrep", "-x", "munged"):
            for where, mode in {
                "/run/munge": 0o755,
                "/var/log/munge": 0o700,
                "/var/lib/munge": 0o711,
            }.items():
                Path(where).mkdir(exist_ok=True)
                shutil.chown(where, "munge", "munge")
                Path(where).chmod(mode)
            subprocess.run(["runuser", "-u", "munge", "--", shutil.which("munged") or "munged"], check=True)
        self._make_accounting()
        self.start_controller()
        for node in NODES:
            subprocess.run(["slurmd", "-N", node], check=True)
        wait_until("the nodes are idle", lambda: self.states() == ["idle", "idle"])

    def _configure(self, name: str, text: str) -> None:
        path = FOLDER / name
        if path.exists():
            assert MARK in path.read_text(), f"{path} is not a test's: this machine has a SLURM"
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(MARK + text.format(folder=self.folder, host=self.host, partition=PARTITION))

    def _make_accounting(self) -> None:
        files = ["--no-defaults", "--user=root", "--skip-name-resolve", f"--datadir={self.folder}/database"]
        installed = subprocess.run(
            ["mariadb-install-db", *files], capture_output=True, text=True, check=False
        )
        assert installed.returncode == 0, installed.stdout + installed.stderr
        access = [
            "--port=17806",
            "--bind-address=127.0.0.1",
            "--skip-grant-tables",
            f"--socket={self.folder}/socket",
        ]
        with (self.log / "database").open("w") as log:
            self.database = subprocess.Popen(["mariadbd", *files, *access], stdout=log, stderr=log)
        subprocess.run(["slurmdbd"], check=True)
        add = ["sacctmgr", "--immediate", "add", "cluster", "decaymerge"]
        wait_until("accounting has a cluster", lambda: self._done(*add))

    def start_accounting(self) -> None:
        subprocess.run(["slurmdbd"], check=True)

    def stop_accounting(self) -> None:
        subprocess.run(["pkill", "-x", "slurmdbd"], check=True)
        wait_until("accounting is gone", lambda: not self._done("pgrep", "-x", "slurmdbd"))

    def start_controller(self) -> None:
        subprocess.run(["slurmctld"], check=True)
        wait_until("the controller answers", lambda: bool(self.states()))

    def stop_controller(self) -> None:
        subprocess.run(["pkill", "-x", "slurmctld"], check=True)
        wait_until("the controller is gone", lambda: not self.states())

    def states(self, *nodes: str) -> list[str]:
        """States of the nodes, nothing where the controller does not answer."""
        asked = ["sinfo", "-h", "-N", "-n", ",".join(nodes or NODES), "-o", "%T"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()

    def node_of(self, job: str) -> str:
        asked = ["squeue", "-h", "-j", job, "-o", "%N"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def take_down(self, node: str) -> None:
        assert self._update(node, "down")

    def bring_back(self, node: str) -> None:
        """It may be back by itself: its daemon registers again, and ReturnToService=2 lets it."""
        up = ("idle", "mixed", "allocated")
        wait_until("the node is up", lambda: self.states(node)[0] in up or self._update(node, "resume"))

    def _update(self, node: str, state: str) -> bool:
        return self._done("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")

    @staticmethod
    def _done(*command: str) -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs in the given states."""
        listed = ["squeue", "-h", "-o", "%i", "-t", ",".join(states)]
        return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()

    def logged(self, text: str) -> bool:
        return any(text in file.read_text(errors="replace") for file in self.log.iterdir())

    def stop(self) -> None:
        subprocess.run(["scancel", "--user", "root"], capture_output=True, check=False)
        self._kill()
        self.database.kill()
        self.database.wait()
        for name in ("slurm.conf", "slurmdbd.conf"):
            (FOLDER / name).unlink()

    def _kill(self) -> None:
        for name in DAEMONS:
            subprocess.run(["pkill", "-9", "-x", name], capture_output=True, check=False)
