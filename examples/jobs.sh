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
# What the jobs of slurm/ and ngc/ share; they find it beside their directory. `submitted_by` is what the user calls.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry-run ]]; then
    dry_run=1
    shift
fi
# What is left of the arguments goes to the program.
# shellcheck disable=SC2034 # the jobs read it
options=("$@")

say() {
    echo "${SLURM_JOB_NAME:-$(basename "$0")}: $*" >&2
}

# need NAME...: stop unless each of these variables has a value.
need() {
    local name missing=()
    for name in "$@"; do
        [[ -n ${!name:-} ]] || missing+=("$name")
    done
    if ((${#missing[@]})); then
        say "no value for ${missing[*]}; give ${missing[*]/%/=...} in front of ${submitted_by:-the script}"
        exit 2
    fi
}

# end_dry_run COMMAND...: with --dry-run, print the command and stop.
end_dry_run() {
    [[ -n $dry_run ]] || return 0
    printf '%q ' "$@"
    echo
    exit 0
}

# Each sets `arguments` to those of its program, from the variables that its job is given.

label_arguments() {
    need TEACHER INPUT OUTPUT_DIR
    arguments=(--teacher "$TEACHER" --input "$INPUT" --output-dir "$OUTPUT_DIR")
}

cache_arguments() {
    need TEACHER OUTPUT_DIR
    if [[ -n ${LABELS:-} ]]; then
        arguments=(--teacher "$TEACHER" --labels "$LABELS" --output-dir "$OUTPUT_DIR")
    else
        need SOURCE TARGET
        arguments=(--teacher "$TEACHER" --source "$SOURCE" --target "$TARGET" --output-dir "$OUTPUT_DIR")
    fi
}

distill_arguments() {
    local name
    need DATA_DIR TOKENIZER OUTPUT_DIR
    arguments=(trainer=gpu)
    override data.dir "$DATA_DIR"
    override data.tokenizer "$TOKENIZER"
    override output_dir "$OUTPUT_DIR"
    for name in TEACHER CACHE PSEUDO; do
        [[ -z ${!name:-} ]] || override "${name,,}" "${!name}"
    done
}

# override KEY PATH: add KEY=PATH to `arguments`, quoted where Hydra reads anything but a path: 2024_11 is a number to
# it, a comma several values. A list, and what is quoted already, stays.
override() {
    local path=$2 other='^(null|true|false|[-+]?(nan|inf|[0-9_.]+(e[-+]?[0-9]+)?))$'
    if [[ ! $path =~ ^[A-Za-z0-9_.@+/-]+$ || ${path,,} =~ $other ]] && [[ $path != [\[\'\"]* ]]; then
        path="'${path//\'/\\\'}'"
    fi
    arguments+=("$1=$path")
}
