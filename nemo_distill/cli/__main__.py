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
"""`python -m nemo_distill.cli VERB`, as `nemo-distill VERB`."""

import sys
import warnings

from nemo_distill.errors import reported_errors, say_interrupts
from nemo_distill.support.threads import settle_openmp


def main() -> int:
    """Run one verb; return the exit status. The other modules are imported where Ctrl-C is one line already."""
    say_interrupts("nemo-distill")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # those of libraries on import: a screen of what no user can mend
    with reported_errors("nemo-distill"):
        settle_openmp()
    from nemo_distill.cli.parser import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
