"""A real SLURM on this one machine: controller, accounting, and two nodes, of which one has a GPU that is none."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct", "munged", "mariadbd")
# Where SLURM looks by itself, whatever the environment says: Snakemake's jobs clear that of all that is SLURM's.
SYSTEM_FILES = [Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf")]
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")

CONF = """\
ClusterName=lesionmap
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStorageTRES=gres/gpu
# Neither systemd nor cgroups: processes are found by their parents, and their memory is looked at every second.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A job that gives way has so long to save itself; 30 s are usual.
KillWait=10
GresTypes=gpu
# Ended jobs stay to be looked at.
MinJobAge=7200
# The nodes claim more than this machine has, and come back by themselves.
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port=16901 CPUs=4 RealMemory=64000
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port=16902 CPUs=4 RealMemory=64000 Gres=gpu:fake:1
PartitionName=cpu Nodes=cpu1 Default=YES
PartitionName=gpu Nodes=gpu1 PriorityTier=1
PartitionName=urgent Nodes=gpu1 PriorityTier=2
"""
ACCOUNTING = """\
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16820
StorageUser=slurm
StoragePass={password}
"""


@dataclass(frozen=True)
class Cluster:
    """SLURM whose files are all in one folder; root runs it."""

    folder: Path

    def start(self) -> None:
        for name in ("state", "spool/cpu1", "spool/gpu1"):
            (self.folder / name).mkdir(parents=True)
        password = secrets.token_hex()
        self._write_configuration(password)
        self._start_munge()
        self._start_database(password)
        run("slurmdbd", SLURM_CONF=str(self.folder / "slurmdbd.conf"))
        until(
            lambda: "lesionmap" in self.query("sacctmgr", "--immediate", "add", "cluster", "lesionmap"), 60, "accounts"
        )
        for what in (["account", "pathology"], ["user", "root", "account=pathology"]):
            self.query("sacctmgr", "--immediate", "add", *what)
        self.start_controller()
        for node in ("cpu1", "gpu1"):
            run("slurmd", "-N", node)
        until(lambda: set(self.query("sinfo", "--noheader", "--Node", "--format=%T").split()) == {"idle"}, 60, "nodes")

    def stop(self) -> None:
        """Whatever of it has started."""
        if (self.folder / "slurmctld.pid").exists():
            self.query("scancel", "--user=root")
            time.sleep(1)
        daemons = ("slurmd-cpu1", "slurmd-gpu1", "slurmctld", "slurmdbd", "mariadbd", "munged")
        started = [name for name in daemons if (self.folder / f"{name}.pid").exists()]
        for name in started:
            self._kill(name)
        if "munged" in started:
            MUNGE_SOCKET.unlink()
        for link in SYSTEM_FILES:
            link.unlink(missing_ok=True)

    def start_controller(self) -> None:
        run("slurmctld")
        until(lambda: "is UP" in self.query("scontrol", "ping"), 60, "a controller that answers")

    def kill_controller(self) -> None:
        self._kill("slurmctld")

    def jobs(self, comment: str = "") -> list[dict[str, str]]:
        """The jobs of a rule or group, by the comment that Snakemake gives them, in their order."""
        lines = self.query("scontrol", "show", "job", "--oneliner").splitlines()
        rows = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        found = [row for row in rows if row.get("Comment", "").startswith(comment)]
        return sorted(found, key=lambda row: int(row["JobId"]))

    def job(self, number: str) -> dict[str, str]:
        """One of them, by its number."""
        return next(job for job in self.jobs() if job["JobId"] == number)

    def query(self, *command: str) -> str:
        """What a command of SLURM's prints; it may fail."""
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout

    def _write_configuration(self, password: str) -> None:
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(CONF.format(host=host, folder=self.folder))
        (self.folder / "gres.conf").write_text("NodeName=gpu1 Name=gpu Type=fake File=/dev/null\n")
        accounting = self.folder / "slurmdbd.conf"
        accounting.write_text(ACCOUNTING.format(folder=self.folder, password=password))
        accounting.chmod(0o600)
        for link in SYSTEM_FILES:
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(self.folder / link.name)

    def _start_munge(self) -> None:
        """Unless this machine's own runs."""
        if MUNGE_SOCKET.exists():
            return
        MUNGE_SOCKET.parent.mkdir(exist_ok=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        files = [f"--{name}-file={self.folder}/munged.{name}" for name in ("pid", "log", "seed")]
        run("munged", "--force", f"--key-file={key}", f"--socket={MUNGE_SOCKET}", *files)

    def _start_database(self, password: str) -> None:
        data, log = self.folder / "database", open(self.folder / "mariadbd.log", "w")  # noqa: SIM115 # the daemon's
        run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
        user = "slurm@'127.0.0.1'"
        (self.folder / "init.sql").write_text(  # a statement a line
            f"CREATE USER {user} IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO {user};\n"
        )
        subprocess.Popen(
            [
                *(find("mariadbd"), "--no-defaults", "--user=root", f"--datadir={data}"),
                *("--bind-address=127.0.0.1", "--port=16820", f"--socket={self.folder}/mariadb.socket"),
                *(f"--pid-file={self.folder}/mariadbd.pid", f"--init-file={self.folder}/init.sql"),
                *("--skip-name-resolve", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until(lambda: "ready for connections" in (self.folder / "mariadbd.log").read_text(), 60, "a database")

    def _kill(self, name: str) -> None:
        pid = int((self.folder / f"{name}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), 60, f"the end of {name}")


def run(program: str, *arguments: str, **environment: str) -> None:
    subprocess.run([find(program), *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ | environment)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for is dead, too."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def find(program: str) -> str | None:
    """Where a program is; daemons are often not in a user's path."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)
