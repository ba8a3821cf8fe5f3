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

It imports what the program of an export does and nothing else, this package neither.
"""

import json
import os
import runpy
import sys


def main() -> None:
    """Do what standard input asks for, as JSON; answer on standard output."""
    asked = json.load(sys.stdin)
    model = runpy.run_path(asked["program"])["Model"](asked["directory"], asked["device"])
    model.hypotheses(asked["texts"], *asked["languages"], asked["beam_size"], 1, asked["batch_tokens"])
    peak = runpy.run_path(asked["memory"])["peak_memory"]()
    sys.stdout.write(json.dumps({"memory_bytes": peak}))


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if os.path.abspath(place) != here]  # its modules are of a package
    main()
