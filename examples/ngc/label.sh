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
# Label a text with a teacher on NGC: `nemo-distill pseudo-label`, one process for each GPU. From your own machine:
#
#   IMAGE=nvcr.io/ORG/nemo-distill:TAG INSTANCE=dgxa100.80g.8.norm WORKSPACE=NAME REPLICAS=2 \
#       TEACHER=teacher.nemo INPUT=train.de OUTPUT_DIR=labels examples/ngc/label.sh [--dry-run] [OPTION...]
#
# Paths are those in the workspace. OPTION... goes to pseudo-label; --dry-run prints the command.

# shellcheck source=examples/ngc/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

label_arguments
submit label pseudo-label "${arguments[@]}" "${options[@]}"
