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
# shellcheck source=nemo_distill/jobs/slurm.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../nemo_distill/jobs/slurm.sh"
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

# launch_share COMMAND...: one process for each GPU; they share work through files, and read their rank from Slurm's
# variables.
launch_share() {
    # shellcheck disable=SC2154 # of slurm.sh, as `training` and `step`
    launch "${sharing[@]}" "$@"
}

# launch_ddp COMMAND...: one process for each GPU; Lightning reads its rank from Slurm's variables.
launch_ddp() {
    # shellcheck disable=SC2154
    launch "${training[@]}" "$@"
}

launch() {
    step_of "$nodes" "$tasks_per_node"
    # shellcheck disable=SC2154
    local command=("${step[@]}") status=0
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
    supervise "${command[@]}" || status=$?
    requeue_interrupted "$status"
    exit "$status"
}
