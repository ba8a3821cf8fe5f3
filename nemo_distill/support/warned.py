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
"""Warnings of this library, told from those of others, so that a job can show what its stages warn of."""

import functools
import logging as python_logging
import re

_MARK = "nemo_distill: "
_LINE = re.compile(rf"(?:\[NeMo W [^\]]*\] )?{_MARK}(.+)")


class _Marked(python_logging.LoggerAdapter):
    def process(self, msg: str, kwargs: dict) -> tuple[str, dict]:
        return f"{_MARK}{msg}", kwargs


def marked_logger(name: str) -> python_logging.LoggerAdapter:
    """Return Python's logger of a module that does without NeMo, whose messages begin as those of `warn` do."""
    return _Marked(python_logging.getLogger(name), {})


def warn(message: str) -> None:
    """Warn by NeMo's logger."""
    from nemo.utils import logging  # seconds, which jobs that only read warnings do without

    logging.warning(f"{_MARK}{message}")


@functools.cache
def warn_once(message: str) -> None:
    """Warn as `warn` does, of the same once in a process."""
    warn(message)


def warning_in(line: str) -> str | None:
    """Return what this library warns of in a line of a log; None: it is another line.

    Example:
        >>> warning_in("[NeMo W 2026-11-28 09:01:52 nemo_logging:393] nemo_distill: the teacher knows this by heart")
        'the teacher knows this by heart'
        >>> warning_in("[NeMo W 2026-11-28 09:01:52 nemo_logging:393] Apex was not found.")
    """
    found = _LINE.match(line)
    return found.group(1) if found else None
