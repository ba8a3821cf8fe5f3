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
# What the jobs of this directory share: they source it. docs/cluster.md lists the variables.
# shellcheck source=examples/jobs.sh
source "$(dirname "${BASH_SOURCE[0]}")/../jobs.sh"
# shellcheck disable=SC2034 # `need` reads it
submitted_by=sbatch

submit_dir=${SLURM_SUBMIT_DIR:-$PWD}
nodes=${SLURM_JOB_NUM_NODES:-${NODES:-1}}
tasks_per_node=${TASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-8}}

# The repository and its environment: on a file system that all nodes see, or in the container.
if [[ -n ${CONTAINER_IMAGE:-} ]]; then
    root=/workspace/nemo_distill
else
    root=${NEMO_DISTILL_HOME:-$submit_dir}
fi
# shellcheck disable=SC2034 # the jobs read it
venv=$root/${VENV:-.venv}

# Statuses of a run that was interrupted and goes on when it is started again: 128 and the number of the signal, SIGTERM
# or SIGUSR1, of training, which has left a checkpoint, as of any program that the signal ended.
interrupted_statuses=(143 138)

# launch_share COMMAND...: one process for each GPU; they share work through files, and read their
# rank from Slurm's variables.
launch_share() {
    # One that fails takes the others along: none of them would do its part. They may end at different times.
    launch --kill-on-bad-exit=1 --wait=0 "$@"
}

# launch_ddp COMMAND...: one process for each GPU; Lightning reads its rank from Slurm's variables.
launch_ddp() {
    # Where one rank fails the others hang in their next collective: they are ended after five minutes. Not before: the
    # first rank of an interrupted run may still write its checkpoint when the others leave.
    launch --kill-on-bad-exit=0 --wait=300 "$@"
}

launch() {
    local command=(srun "--nodes=$nodes" "--ntasks=$((nodes * tasks_per_node))" "--ntasks-per-node=$tasks_per_node")
    # Otherwise a task may get a single core for itself and its data workers.
    local cores=$((${SLURM_CPUS_ON_NODE:-0} / tasks_per_node))
    ((cores == 0)) || command+=("--cpus-per-task=$cores")
    if [[ -n ${CONTAINER_IMAGE:-} ]]; then
        command+=("--container-image=$CONTAINER_IMAGE")
        command+=("--container-mounts=${CONTAINER_MOUNTS:-$submit_dir:$submit_dir}" "--container-workdir=$submit_dir")
    fi
    command+=("$@")
    end_dry_run "${command[@]}"
    if [[ -z ${SLURM_JOB_ID:-} ]]; then
        say "no Slurm job; submit this script with sbatch, or give --dry-run to see its command"
        exit 2
    fi
    export SLURM_NTASKS_PER_NODE=$tasks_per_node # Lightning asks for it
    export TQDM_MININTERVAL=${TQDM_MININTERVAL:-30} # a progress bar in a log file
    supervise "${command[@]}"
}

# supervise COMMAND...: run the step to its end, pass on a signal that this script gets, requeue an interrupted job.
supervise() {
    local told='' status=0
    # Not to srun, which kills its tasks at once on SIGTERM; scancel tells the tasks and leaves this script alone.
    trap 'told=1; say "told to stop; telling the tasks"; scancel --signal=TERM "$SLURM_JOB_ID" || true' TERM USR1
    "$@" &
    local step=$!
    while true; do
        told=
        status=0
        wait "$step" || status=$?
        [[ -n $told ]] || break # otherwise the trap ended the wait, and the step is still there
    done
    if [[ " ${interrupted_statuses[*]} " == *" $status "* ]]; then
        requeue "$status"
    fi
    exit "$status"
}

requeue() {
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
