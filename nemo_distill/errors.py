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

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, TextIO

_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys."""
_NO_ITEM = re.compile(r"\n(?! {2,}\S)")
"""A line break in front of anything but an item of a list, which is indented."""


_INTERRUPTED = "interrupted; run the same command again, and it goes on"


class InputError(ValueError):
    """Bad input: a file, an option or a value that the user can change. The command line exits with status 2."""


class InUseError(InputError):
    """An output in which another process works."""


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


class StageError(RuntimeError):
    """A command of a job failed, though its input was good; the same job goes on with it."""


@contextmanager
def reported_errors(program: str) -> Iterator[None]:
    """Context that turns what a user can mend into one message on standard error and an exit status.

    The status is 2 for bad input; 1 for what stopped the work: no room, no permission, no network, another process
    that has gone; 130 for Ctrl-C. What was finished before is whole, and the same command, run again, goes on.

    Args:
        program: name in front of the message.
    """
    raised, logging.raiseExceptions = logging.raiseExceptions, False  # a log on a full disk prints tracebacks
    try:
        with _interrupts_as_such():
            yield
        _flush_output()
    except InputError as error:
        _end(program, error, 2)
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (NonFiniteError, StorageError, StageError, ConnectionError, TimeoutError) as error:
        _end(program, error, 1)
    except OSError as error:
        reason, place = error.strerror or error, f" '{error.filename}'" if error.filename else ""
        if not place and not _can_flush():
            _drop_output()
            _end(program, f"standard output cannot be written ({reason}); what is printed there is lost", 1)
        _end(program, f"{reason}{place}; mend that, then run the same command again", 1)
    except MemoryError:
        _end(program, "out of memory; give it less at once (--batch-tokens), or a larger machine", 1)
    except KeyboardInterrupt:
        _end(program, _INTERRUPTED, 130)
    finally:
        logging.raiseExceptions = raised


@contextmanager
def _interrupts_as_such() -> Iterator[None]:
    """Context in which an error that came of Ctrl-C is that: Python and libraries put others around it in imports."""
    try:
        yield
    except Exception as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        raise


def _is_interrupt(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__ or error.__context__)
    )


def say_interrupts(program: str) -> None:
    """Have Ctrl-C end this process with one line wherever it comes, as `reported_errors` does in its block.

    For scripts, before their imports, which take their time. The process then ends by SIGINT: 130 in a shell.

    Args:
        program: name in front of the message.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if _is_interrupt(error):
            _say(program, _INTERRUPTED)
        else:
            before(kind, error, trace)

    sys.excepthook = hook


def _end(program: str, message: object, status: int) -> NoReturn:
    _say(program, message)
    raise SystemExit(status)


def _say(program: str, message: object) -> None:
    if sys.stderr is not None:
        try:
            print(f"{program}: {_OBEYED.sub('?', _NO_ITEM.sub(' ', str(message)))}", file=sys.stderr, flush=True)
        except OSError:
            _drop(sys.stderr)


def _flush_output() -> None:
    if sys.stdout is not None:  # it was open when the program began
        sys.stdout.flush()


def _can_flush() -> bool:
    try:
        _flush_output()
    except OSError:  # again, since what could not be written is kept
        return False
    return True


def _drop_output() -> None:
    if sys.stdout is not None:
        _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    """Send what was not written nowhere, or Python would try again at its end, and end with a status of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
