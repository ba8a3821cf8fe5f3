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
"""One command of a job: started so that it ends with the job, its output in a log, its progress on the terminal."""

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nemo_distill.errors import InputError, StageError, StoppedBySignal
from nemo_distill.jobs import devices
from nemo_distill.support import progress_bar
from nemo_distill.support.children import PARENT_VARIABLE
from nemo_distill.support.files import make_directory
from nemo_distill.support.incoming import open_regular
from nemo_distill.support.isolated import module_command
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.threads import SHARE_VARIABLE
from nemo_distill.support.warned import warning_in

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""The YAML files of trainings, in the repository a link to those at its top."""
LOGS_DIR = "logs"
LOG_HEAD = b"# a stage of a nemo-distill job\n"
"""First line of a log, by which the next one knows that it may replace it."""
_CLI = "nemo_distill.cli"
_TRAININGS = {f"nemo_distill.jobs.{name}": f"{name}.py" for name in ("distill", "train_nmt")}
"""Modules that train one model, with the scripts of examples/ that do the same."""
_TAIL_LINES, _TAIL_BYTES, _LINE, _LAST_LINE = 12, 1 << 16, 300, 3000
_SHOWN_WARNINGS, _WARNING = 5, 1000
"""How many of a stage's warnings are shown, and how much of one; its log has all."""
_SHOWN_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""
_SAID_EVERY = "5"
"""Seconds between those that a stage writes to its log, which a terminal and `status` show."""


def verb_command(*arguments: str) -> list[str]:
    """Return the command of `nemo-distill VERB ...` with this Python; nothing in the current directory is imported.

    Example:
        >>> verb_command("report", "--results", "runs/evaluation")[-3:]
        ['report', '--results', 'runs/evaluation']
    """
    return module_command(_CLI, *arguments)


def training_command(name: str, *overrides: str) -> list[str]:
    """Return the command that trains one model as a configuration says, `distill` or `train_nmt`."""
    return module_command(f"nemo_distill.jobs.{name}", *overrides)


def essence(command: Sequence[str]) -> list[str]:
    """Return what a command does: not which Python runs it, nor where this package lies.

    A training is the same by the package's module and by the script in examples/.
    """
    module, *arguments = _of_module(command) or ("",)
    if module in _TRAININGS:
        return [_TRAININGS[module], *arguments]
    if module == _CLI:
        return ["-m", _CLI, *arguments]
    return [os.path.basename(command[1]), *command[2:]] if len(command) > 1 else list(command)


def is_training(command: Sequence[str]) -> bool:
    """Return whether a command trains a model."""
    return (_of_module(command) or [""])[0] in _TRAININGS


def _of_module(command: Sequence[str]) -> list[str] | None:
    """Return module and arguments of a command that `module_command` made; None for any other."""
    prefix = module_command("")[1:-1]
    return list(command[1 + len(prefix) :]) if list(command[1 : 1 + len(prefix)]) == prefix else None


def shown_command(command: Sequence[str]) -> str:
    """Return a command as one can type it; what cannot be printed is shown by its code."""
    module, *arguments = _of_module(command) or ("",)
    start = ["nemo-distill"] if module == _CLI else [os.path.basename(command[0]), "-m", module]
    text = shlex.join([*start, *arguments] if module else command)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def stage_environment(threads: int, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """Return the environment of a stage.

    Args:
        threads: cores that it has, at most; the user's `OMP_NUM_THREADS` wins.
        gpus: that it sees; None: those that this process does.
    """
    environment = {**os.environ, SHARE_VARIABLE: str(threads), "PYTHONUNBUFFERED": "1"}
    if gpus is not None:
        environment[devices.VARIABLE] = ",".join(gpus)
    environment |= {"PYTHONWARNINGS": "ignore", "PYTHONSAFEPATH": "1", PARENT_VARIABLE: str(os.getpid())}
    environment["PYTHONIOENCODING"] = "utf-8"  # as its output is read, whatever the locale
    environment.setdefault(progress_bar.VARIABLE, _SAID_EVERY)
    if paths := environment.pop("PYTHONPATH", ""):  # an empty entry, as of PYTHONPATH=$PYTHONPATH:/x, is the
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths.split(os.pathsep)))  # current directory
    return environment


class Processes:
    """The processes of a job that run now. Linux ends them with it (SIGTERM), however it ends."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.RLock()  # a signal may come while the main thread has it
        self._ended = False

    def run(
        self, name: str, command: Sequence[str], directory: Path, threads: int, gpus: Sequence[str] | None = None
    ) -> None:
        """Run one stage on so many cores and on these GPUs, see `stage_environment`.

        The thread that calls this must live as long as the process does.

        Raises:
            InputError: the stage was given bad input (status 2); the message holds the end of its log.
            StageError: it failed in another way.
            OSError: its log cannot be written; the stage was told to end.
        """
        log_path = directory / LOGS_DIR / f"{name}.log"
        seen = f"{devices.VARIABLE}={','.join(gpus)} " if gpus is not None else ""
        print(f"\n[{name}] {seen}{shown_command(command)}", flush=True)
        start = time.monotonic()
        with open_log(log_path) as log:
            process = self._start(command, stage_environment(threads, gpus))
            try:
                with process.stdout:
                    _follow(name, process, log)
            except BaseException:
                process.terminate()
                raise
            finally:
                process.wait()
                with self._lock:
                    self._running.discard(process)
        if process.returncode != 0:
            error = InputError if process.returncode == 2 else StageError
            status = _status(process.returncode)
            end = "\n  ".join(log_lines(log_path)[-_TAIL_LINES:])
            raise error(f"stage {name} failed with {status}; its log, {log_path}, ends:\n  {end}")
        print(f"[{name}] done in {time.monotonic() - start:.0f} s", flush=True)

    def end(self, number: int) -> None:
        """Send a signal to all that run, and start no more."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.send_signal(number)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
        with self._lock:
            if self._ended:
                raise StageError("the job was told to end")
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment
            )
            self._running.add(process)
        return process


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Context in which SIGTERM and SIGHUP end the job as Ctrl-C does: what it has started is told to end, too.

    Raises:
        StoppedBySignal: one of them came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise StoppedBySignal(number)

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    return f"signal {signal.Signals(-status).name}" if -status in set(signal.Signals) else f"signal {-status}"


@contextmanager
def open_log(path: Path) -> Iterator[BinaryIO]:
    """Open a log for writing, in place of an older one alone; no link is followed, of file or directory."""
    make_directory(path.parent)
    if path.parent.is_symlink():
        raise InputError(f"'{path.parent}' is a link; remove it, so that logs stay in the job's directory")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"the log '{path}' cannot be written ({error.strerror}); remove that file") from error
    with open(descriptor, "r+b", buffering=0) as log:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"the log '{path}' is no regular file; remove it")
        if not LOG_HEAD.startswith(os.pread(descriptor, len(LOG_HEAD), 0)):
            raise InputError(f"'{path}' is not the log of a stage; move it away, or give the job another directory")
        os.ftruncate(descriptor, 0)
        log.write(LOG_HEAD)
        yield log


def log_lines(path: Path) -> list[str]:
    """Return the last lines of a log: they come from any program, so what a terminal would obey is left out.

    Raises:
        InputError: there is no such file.
    """
    with open_regular(path) as log:
        log.seek(max(log.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        return shown_lines(log.read().removeprefix(LOG_HEAD))


def shown_lines(said: bytes) -> list[str]:
    """Return the lines of what any program said, each state of a bar one, without what a terminal obeys.

    Of long lines only the last one, which says what is wrong and what to do, is whole.
    """
    lines = [line for line in re.split(r"[\r\n]+", said.decode("utf-8", "replace")) if line.strip()]
    return [plain_text(line, _LAST_LINE if line is lines[-1] else _LINE) for line in lines]


def progress_in(line: str) -> str | None:
    """Return a line that says how far something is, without what a terminal obeys; None: it is another."""
    text = plain_text(line, _LINE)
    return text if progress_bar.LINE.match(text) else None


def _follow(name: str, process: subprocess.Popen, log: BinaryIO) -> None:
    """Copy a stage's output to `log`; show warnings, and progress, in place on a terminal, else now and then."""
    on_terminal = sys.stderr.isatty()
    clear = "\r\033[K" if on_terminal else ""
    shown_at = time.monotonic()
    warned: set[str] = set()
    pending = b""
    fault: OSError | None = None
    while chunk := os.read(process.stdout.fileno(), 65536):
        try:
            if fault is None:
                log.write(chunk)
        except OSError as error:  # a full disk: the process is read on, or it would not end
            fault = error
            process.terminate()
        *parts, pending = re.split(rb"[\r\n]", pending[-65536:] + chunk)
        lines = [part.decode("utf-8", "replace") for part in parts]
        for warning in filter(None, map(warning_in, lines)):
            if warning not in warned and len(warned) < _SHOWN_WARNINGS:
                warned.add(warning)
                print(f"{clear}[{name}] warning: {plain_text(warning, _WARNING)}", file=sys.stderr, flush=True)
        said = [line for each in lines if (line := progress_in(each))]
        if said and (on_terminal or time.monotonic() - shown_at > _SHOWN_EVERY):
            shown_at = time.monotonic()
            line = f"[{name}] {said[-1]}"
            if on_terminal:
                line = f"{clear}{line[: shutil.get_terminal_size().columns - 1]}"
            print(line, end="" if on_terminal else "\n", file=sys.stderr, flush=True)
    if on_terminal:
        print(clear, end="", file=sys.stderr, flush=True)
    if fault is not None:
        raise fault
