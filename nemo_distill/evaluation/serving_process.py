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
"""A process that opens an export, translates, and says how much memory it had at most; see `serving`.

It imports what the program of an export does, and nothing of NeMo's.
"""

import json
import sys

from nemo_distill.decoding import exported_program
from nemo_distill.support.children import end_with
from nemo_distill.support.memory import peak_memory


def main() -> None:
    """Do what standard input asks for, as JSON; answer on standard output."""
    asked = json.load(sys.stdin)
    end_with(asked["parent"])
    model = exported_program.Model(asked["directory"], asked["device"])
    model.hypotheses(asked["texts"], *asked["languages"], asked["beam_size"], 1, asked["batch_tokens"])
    sys.stdout.write(json.dumps({"memory_bytes": peak_memory()}))


if __name__ == "__main__":
    main()
