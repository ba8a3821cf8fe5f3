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
"""matplotlib without the settings of the current directory.

NeMo imports matplotlib, which at its import obeys a file `matplotlibrc` of the current directory before all others,
the one of the environment variable `MATPLOTLIBRC` too: a FIFO hangs, other bytes end the process, `text.usetex`
runs TeX.
"""

import os
import sys


def ignore_current_directory() -> None:
    """Import matplotlib from another directory if the current one has such a file; else there is nothing to do."""
    if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
        return
    if own := os.environ.get("MATPLOTLIBRC"):
        os.environ["MATPLOTLIBRC"] = os.path.abspath(own)
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir("/")
        import matplotlib  # noqa: F401
    finally:
        os.fchdir(here)
        os.close(here)
