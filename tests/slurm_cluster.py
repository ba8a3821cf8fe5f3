# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""A real Slurm of two nodes on this machine, for one user, without other services: Debian's `slurm-wlm`.

python tests/slurm_cluster.py DIRECTORY          # starts it, says which SLURM_CONF to export
python tests/slurm_cluster.py DIRECTORY stop
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

# The nodes have names by which torch can reach them. A job whose nodes a partition of a higher tier wants is told, and
# has half a minute to end. Without cred_expire Slurm holds a requeued job back for two minutes.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=3,bf_interval=3
MpiDefault=none
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=127.0.0.[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={one},{two} CPUs=1 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing() -> str:
    """Return why no Slurm can be had here, after having tried to install it; nothing where it is there."""
    if shutil.which("slurmctld") and shutil.which("slurmd"):
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "Slurm is not installed: as root, apt-get install slurm-wlm"
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return "" if done.returncode == 0 else f"Slurm cannot be installed: {last}"


def start(directory: Path) -> Path:
    """Start the cluster and return the path of its configuration.

    Raises:
        AssertionError: its nodes do not come up; the message holds the ends of its logs.
    """
    for name in ("state", "log"):
        (directory / name).mkdir(parents=True)
    with socket.socket() as one, socket.socket() as two, socket.socket() as control:
        for each in (one, two, control):
            each.bind(("127.0.0.1", 0))
        ports = {"one": one.getsockname()[1], "two": two.getsockname()[1], "control": control.getsockname()[1]}
    host = socket.gethostname().partition(".")[0]
    path = directory / "slurm.conf"
    path.write_text(CONFIGURATION.format(host=host, user=getpass.getuser(), directory=directory, **ports))
    environment = {**os.environ, "SLURM_CONF": str(path)}
    subprocess.run(["slurmctld", "-f", path], env=environment, check=True, timeout=60)
    for node in ("127.0.0.1", "127.0.0.2"):
        (directory / f"spool-{node}").mkdir()
        subprocess.run(["slurmd", "-N", node, "-f", path], env=environment, check=True, timeout=60)
    end = time.monotonic() + 60
    while True:
        said = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if said.stdout.split() == ["idle", "idle"]:
            return path
        if time.monotonic() > end:
            logs = "\n".join(each.read_text()[-1500:] for each in sorted((directory / "log").iterdir()))
            stop(directory)
            raise AssertionError(f"the nodes do not come up: {said.stdout} {said.stderr}\n{logs}")
        time.sleep(0.5)


def stop(directory: Path) -> None:
    """End the cluster and all of its jobs."""
    environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, capture_output=True, timeout=60)
    time.sleep(1)
    for path in sorted(directory.glob("*.pid"), reverse=True):  # slurmd before slurmctld
        try:
            os.kill(int(path.read_text()), 15)
        except (ValueError, ProcessLookupError):
            continue


if __name__ == "__main__":
    place = Path(sys.argv[1]).absolute()
    if sys.argv[2:] == ["stop"]:
        stop(place)
    else:
        sys.stdout.write(f"{missing() or f'export SLURM_CONF={start(place)}'}\n")
