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

root=/workspace/nemo_distill # in the container, see the Dockerfile
mount=${MOUNT:-/mnt/workspace}
replicas=${REPLICAS:-1}

# submit NAME ARGUMENT...: a job that runs node.sh with these arguments on each node.
submit() {
    need IMAGE INSTANCE WORKSPACE
    local name=$1 work
    shift
    printf -v work '%q ' bash "$root/examples/ngc/node.sh" "$mount" "$@"
    if ((replicas > 1)); then
        printf -v work '%q ' bcprun --nnodes "$replicas" --npernode 1 --cmd "${work% }"
    fi
    # The same command goes on where it was, so a job that was preempted may be started again.
    local command=(ngc base-command job run --name "nemo-distill-$name" --image "$IMAGE" --instance "$INSTANCE"
        --workspace "$WORKSPACE:$mount:RW" --result /results
        --preempt "${PREEMPT:-RESUMABLE}" --min-timeslice "${MIN_TIMESLICE:-3600s}"
        --total-runtime "${TOTAL_RUNTIME:-43200s}")
    ((replicas == 1)) || command+=(--array-type PYTORCH --replicas "$replicas")
    [[ -z ${ACE:-} ]] || command+=(--ace "$ACE")
    [[ -z ${ORG:-} ]] || command+=(--org "$ORG")
    [[ -z ${TEAM:-} ]] || command+=(--team "$TEAM")
    command+=(--commandline "${work% }")
    end_dry_run "${command[@]}"
    exec "${command[@]}"
}
