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
"""Programs in the place of Slurm's: sbatch keeps scripts, and `FakeSlurm.work` runs them one after the other.

They do what the manual pages say of the few options that are used here. What a real Slurm does with them is in
tests/functional/test_slurm_executor.py.
"""

import os
import subprocess
from pathlib import Path

SBATCH = """
echo "sbatch $*" >> "$FAKE/calls"
for each; do
    case $each in
        --partition=nowhere)
            echo "sbatch: error: invalid partition specified: nowhere" >&2
            exit 1 ;;
        --test-only) test=1 ;;
        --job-name=*) name=${each#*=} ;;
        --dependency=afterok:*) after=${each#*:} ;;
        --output=*) output=${each#*=} ;;
    esac
done
[[ -z ${test:-} ]] || exit 0
jobs=("$FAKE"/jobs/*)
number=$((${#jobs[@]} + 101))
mkdir -p "$FAKE/jobs/$number"
cd "$FAKE/jobs/$number"
(cd "$OLDPWD" && cat "${@: -1}") > script
echo "$name" > name
echo "${after//:/ }" > after
echo "$output" > output
echo "$OLDPWD" > place
[[ -z $after ]] && echo "PENDING|Priority" > state || echo "PENDING|Dependency" > state
[[ -z ${FAKE_FULL:-} || $number -lt $FAKE_FULL ]] || {
    rm -r "$PWD"
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
    exit 1
}
echo "$number"
"""
SQUEUE = """
[[ $* != *--jobs=* ]] || exec echo RUNNING
[[ -z ${FAKE_DOWN:-} ]] || { echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; }
for each in "$FAKE"/jobs/*/; do
    [[ ! -f $each/state ]] || echo "$(basename "$each")|$(< "$each/state")|$(< "$each/name")"
done
"""
SCANCEL = """
echo "scancel $*" >> "$FAKE/calls"
for each; do
    [[ ! -d $FAKE/jobs/$each ]] || echo "CANCELLED|None" > "$FAKE/jobs/$each/state"
done
"""
SCONTROL = """
echo "scontrol $*" >> "$FAKE/calls"
echo "PENDING|BeginTime" > "$FAKE/jobs/$2/state"
"""
SACCT = """
[[ -n ${FAKE_ACCOUNTS:-} ]] || { echo "Slurm accounting storage is disabled" >&2; exit 1; }
echo "$FAKE_ACCOUNTS"
"""
SRUN = """
echo "srun $*" >> "$FAKE/calls"
while [[ $1 == --* ]]; do shift; done
"$@" || { status=$?; echo "srun: error: Exited with exit code $status" >&2; exit $status; }
"""


class FakeSlurm:
    """A cluster whose jobs wait until `work` is called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "jobs").mkdir(parents=True)
        (directory / "bin").mkdir()
        programs = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "scontrol": SCONTROL, "srun": SRUN}
        programs["sacct"] = SACCT
        for name, body in programs.items():
            path = directory / "bin" / name
            path.write_text(f"#!/usr/bin/env bash\nshopt -s nullglob\n{body}")
            path.chmod(0o755)
        self.path = f"{directory / 'bin'}:/usr/bin:/bin"

    def calls(self, program: str = "") -> list[str]:
        """Return the calls of its programs, those of one of them."""
        path = self.directory / "calls"
        return [each for each in path.read_text().splitlines() if each.startswith(program)] if path.exists() else []

    def submissions(self) -> list[str]:
        """Return the calls of sbatch that were no mere tests."""
        return [each for each in self.calls("sbatch") if "--test-only" not in each]

    def state(self, number: str) -> str:
        """Return the state of a job."""
        return self._file(number, "state").partition("|")[0]

    def set_state(self, number: str, state: str, reason: str = "None") -> None:
        """Say in which state a job is; no state: it is gone."""
        path = self.directory / "jobs" / number / "state"
        path.unlink() if not state else path.write_text(f"{state}|{reason}\n")

    def work(self) -> None:
        """Run the jobs that wait, in their order, each once; cancel what needs one that has not completed."""
        for path in sorted(self.directory.glob("jobs/*"), key=lambda path: int(path.name)):
            number = path.name
            if self.state(number) != "PENDING":
                continue
            if any(self.state(each) != "COMPLETED" for each in self._file(number, "after").split()):
                self.set_state(number, "CANCELLED", "DependencyNeverSatisfied")
                continue
            self.set_state(number, "RUNNING")
            told = {"SLURM_JOB_ID": number, "SLURM_JOB_NAME": self._file(number, "name"), "SLURM_CPUS_ON_NODE": "2"}
            with open(self._file(number, "output"), "ab") as log:
                done = subprocess.run(
                    ["bash", path / "script"],
                    cwd=self._file(number, "place"),
                    env={**os.environ, **told},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=60,
                )
            if self.state(number) == "RUNNING":  # not requeued
                self.set_state(number, "COMPLETED" if done.returncode == 0 else "FAILED")

    def _file(self, number: str, name: str) -> str:
        return (self.directory / "jobs" / number / name).read_text().strip()
