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
# Write a teacher's outputs for a training text on NGC: `nemo-distill cache`, one process for each GPU. From your own
# machine:
#
#   IMAGE=nvcr.io/ORG/nemo-distill:TAG INSTANCE=dgxa100.80g.8.norm WORKSPACE=NAME REPLICAS=2 \
#       TEACHER=teacher.nemo SOURCE=train.de TARGET=train.en OUTPUT_DIR=cache \
#       examples/ngc/cache.sh [--dry-run] [OPTION...]
#
# LABELS=labels takes the place of SOURCE and TARGET for what pseudo-label wrote. Paths are those in the workspace.
# OPTION... goes to cache; --dry-run prints the command.

# shellcheck source=examples/ngc/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cache_arguments
submit cache cache "${arguments[@]}" "${options[@]}"
