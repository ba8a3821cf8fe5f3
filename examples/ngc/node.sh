#!/usr/bin/env bash
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
# On each node of an NGC job, in the container: one process for each GPU, through torchrun. The jobs beside this file
# call it.
#
#   node.sh [--dry-run] DIRECTORY pseudo-label|cache|distill ARGUMENT...

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=examples/jobs.sh
source "$root/examples/jobs.sh"
if (($# < 2)); then
    say "usage: node.sh [--dry-run] DIRECTORY pseudo-label|cache|distill ARGUMENT..."
    exit 2
fi
directory=$1 verb=$2
shift 2

nodes=${NGC_ARRAY_SIZE:-1}
gpus=${NGC_GPUS_PER_NODE:-$(nvidia-smi --list-gpus | wc -l)}
command=("$root/.venv/bin/torchrun" "--nproc-per-node=$gpus")
if ((nodes > 1)); then
    command+=("--nnodes=$nodes" "--node-rank=$NGC_ARRAY_INDEX" --master-port=29500)
    command+=("--master-addr=${NGC_MASTER_ADDR:-launcher-svc-$NGC_JOB_ID}")
else
    command+=(--standalone)
fi
case $verb in
    pseudo-label | cache)
        command+=(--no-python "$root/.venv/bin/nemo-distill" "$verb" "$@")
        ;;
    distill)
        command+=("$root/examples/distill.py" "$@" "trainer.num_nodes=$nodes" "trainer.devices=$gpus")
        ;;
    *)
        say "got '$verb'; give pseudo-label, cache or distill"
        exit 2
        ;;
esac
end_dry_run "${command[@]}"
cd "$directory"
exec "${command[@]}"
