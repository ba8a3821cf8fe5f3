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
"""Start Python so that nothing in the current directory is imported.

`python -m` puts the current directory in front of the import path: a file `yaml.py` or `pip.py` that lies there would
run. `-P` leaves it out, from Python 3.11 on.
"""

import sys

_RUN = (
    "import sys; sys.path[:] = [each for each in sys.path if each]; import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python, without the current directory.

    Example:
        >>> module_command("pip", "--version")[-2:]
        ['pip', '--version']
    """
    start = ["-P", "-m"] if sys.version_info >= (3, 11) else ["-c", _RUN]
    return [sys.executable, *start, module, *arguments]
