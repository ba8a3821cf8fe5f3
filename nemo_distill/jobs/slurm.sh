# shellcheck shell=bash
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
#
# How a Slurm job runs its one step, and what it does when it is told to stop. The scripts of examples/slurm/ source this
# file; `nemo-distill run --executor slurm` copies it into the scripts that it writes.

# Statuses of a run that was interrupted and goes on when it is started again: 128 and the number of the signal, SIGTERM
# or SIGUSR1, of training, which has left a checkpoint, as of any program that the signal ended.
interrupted_statuses=(143 138)

# Processes that share work through files: one that fails takes the others along, since none of them would do its part.
# They may end at different times.
# shellcheck disable=SC2034 # who sources this file reads them
sharing=(--kill-on-bad-exit=1 --wait=0)
# Ranks of one training: where one fails the others hang in their next collective, and are ended after five minutes. Not
# before: the first rank of an interrupted run may still write its checkpoint when the others leave.
# shellcheck disable=SC2034
training=(--kill-on-bad-exit=0 --wait=300)

say() {
    echo "${SLURM_JOB_NAME:-$(basename "$0")}: $*" >&2
}

# step_of NODES TASKS: set `step` to an srun with so many tasks on each node.
step_of() {
    step=(srun "--nodes=$1" "--ntasks=$(($1 * $2))" "--ntasks-per-node=$2")
    # Otherwise a task may get a single core for itself and its data workers.
    local cores=$((${SLURM_CPUS_ON_NODE:-0} / $2))
    if ((cores)); then
        step+=("--cpus-per-task=$cores")
        export NEMO_DISTILL_CORES=$cores # where Slurm binds no tasks, each would count on all of the machine's
    fi
    export SLURM_NTASKS_PER_NODE=$2 # Lightning asks for it
}

# supervise COMMAND...: run the step to its end, pass on a signal that this script gets; return the step's status.
supervise() {
    local told='' status=0
    # Not to srun, which kills its tasks at once on SIGTERM; scancel tells the tasks and leaves this script alone.
    trap 'told=1; say "told to stop; telling the tasks"; scancel --signal=TERM "$SLURM_JOB_ID" || true' TERM USR1
    "$@" &
    local pid=$!
    while true; do
        told=
        status=0
        wait "$pid" || status=$?
        [[ -n $told ]] || break # otherwise the trap ended the wait, and the step is still there
    done
    return "$status"
}

# requeue_interrupted STATUS: have Slurm start this job again if its step was interrupted.
requeue_interrupted() {
    [[ " ${interrupted_statuses[*]} " == *" $1 "* ]] || return 0
    local state
    state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || true
    # A cancelled job is no longer running; one that nears its time limit or is about to be preempted is.
    if [[ ${state//[[:space:]]/} != RUNNING ]]; then
        say "interrupted (status $1); the job is ${state:-gone}, so it is not requeued"
        return
    fi
    say "interrupted (status $1); requeueing"
    scontrol requeue "$SLURM_JOB_ID"
}

# run_stage FILE COMMAND...: run a stage of a job; note in FILE when each start began and ended, and with which status.
run_stage() {
    local notes=$1 status=0
    shift
    echo "$SLURM_JOB_ID begin $(date +%s)" >>"$notes"
    supervise "$@" || status=$?
    echo "$SLURM_JOB_ID end $(date +%s) $status" >>"$notes"
    requeue_interrupted "$status"
    exit "$status"
}
