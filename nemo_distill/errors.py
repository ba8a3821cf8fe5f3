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
"""Errors that a user can fix. Each message names the value, the place and the fix."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: a file, an option or a value that the user can change. The command line exits with status 2."""


class ConfigurationError(InputError):
    """A `distillation` section that cannot be used; lists every fault found, not only the first."""


class CaptureError(InputError):
    """A capture path that matches no module, or a capture that did not fire exactly once."""


class TeacherError(InputError):
    """A teacher that cannot be loaded or does not fit the student (vocabularies, archive, name)."""


class ConversionError(InputError):
    """A model that has something that CTranslate2 has not; lists everything found."""


class ArchiveError(InputError):
    """A `.nemo` archive that is damaged, or that holds what no translation model needs; nothing of it was used."""


class NonFiniteError(RuntimeError):
    """A NaN or infinity in teacher logits or in the loss; training stops rather than go on with it."""


class StoppedBySignal(SystemExit):
    """Training was told to stop and has left a checkpoint; the exit status is 128 plus the signal's number.

    So a shell sees 143 for SIGTERM, 138 for SIGUSR1 and 130 for SIGINT, as for any program that a signal ends.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class StorageError(RuntimeError):
    """A file cannot be written: no room, no permission. What was there before is still whole."""


@contextmanager
def reported_errors(program: str) -> Iterator[None]:
    """Context that turns these errors into one message on standard error and an exit status: 2 bad input, 1 stopped.

    Args:
        program: name in front of the message.
    """
    try:
        yield
    except (InputError, NonFiniteError, StorageError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, InputError) else 1) from error
