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
"""A job of several commands: what has finished is not repeated, what does not need each other runs side by side."""

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.jobs.running import Processes, ended_by_signals, essence
from nemo_distill.support.files import is_sha256, sha256, write_json_atomic, write_text_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.lock import locked
from nemo_distill.support.records import read_record
from nemo_distill.support.threads import cores

RECORD_NAME = "stages.json"
_FIX = "remove it, and the stages are run again"


@dataclass
class Stage:
    """One command of a job."""

    name: str
    command: list[str]
    result: Path
    """The file that exists once the stage has finished."""
    needs: tuple[str, ...] = ()
    """Names of the stages that must have finished before."""
    again: bool = False
    """Run it again where its command, what it reads, or a stage before it, has changed; else that is an error."""
    reads: tuple[Path, ...] = ()
    """Files from outside of the job that it reads: text, a teacher."""


@dataclass
class _Done:
    """A stage that has finished."""

    key: str
    sha256: str | None = None
    """Of its result; not noted by earlier versions."""
    reads: list[str] | None = None
    """SHA-256 of what it has read from outside; not noted by earlier versions."""


def run_stages(
    stages: Sequence[Stage], directory: Path, jobs: int = 1, inputs: Mapping[Path, str] | None = None
) -> None:
    """Run the commands of a job, each once.

    A stage has finished when its result exists, unchanged, and `stages.json` in `directory` says that it was made by
    this very command, of these very files, after these very stages. Its output goes to `logs/NAME.log`, its progress
    to the terminal. One process at a time works in the directory. SIGTERM, SIGHUP and Ctrl-C end the stages that run,
    and then the job; a second one kills them.

    Args:
        stages: in any order; what one needs must be among them.
        directory: of the job.
        jobs: stages to run side by side, each on its share of the cores.
        inputs: text files that stages read, written first.

    Raises:
        InputError: a stage was given bad input, or has a result that was made in another way, or its result or what
            it was made of has changed; or another process works in the directory.
        StageError: a stage failed in another way; the message holds the end of its log.
        StoppedBySignal: the job was told to end.
    """
    by_name = {stage.name: stage for stage in stages}
    for name in by_name:
        if not re.fullmatch(r"[\w.@+=-]{1,200}", name) or name.startswith("."):
            raise InputError(f"stage name {name[:80]!r}: it is made of letters, digits and any of . _ @ + = -")
    directory = Path(directory)
    keys, earlier = _keys(by_name, directory), _keys(by_name)
    with ended_by_signals(), locked(directory):
        done = _read_done(directory / RECORD_NAME)
        for name, entry in done.items():
            if entry.key == earlier.get(name):
                entry.key = keys[name]
        hashes = {path: sha256(path) for path in sorted({path for stage in stages for path in stage.reads})}
        waiting = _waiting(by_name, keys, done, hashes)
        for path, text in (inputs or {}).items():
            write_text_atomic(path, text)
        _run(by_name, waiting, keys, done, hashes, directory, jobs)


def _read_done(path: Path) -> dict[str, _Done]:
    """Return which stages have finished, as `stages.json` says."""
    if not os.path.lexists(path):
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' is not the record of a job's stages; {_FIX}")
    done = {
        name: _Done(entry) if isinstance(entry, str) else read_record(_Done, entry, f"{path}: {name[:80]}", _FIX)
        for name, entry in content.items()
    }
    hashes = [each for entry in done.values() for each in (entry.key, entry.sha256, *(entry.reads or ()))]
    if not all(each is None or is_sha256(each) for each in hashes):
        raise InputError(f"'{path}' is not the record of a job's stages; move it away, and the stages are run again")
    return done


def _waiting(
    stages: dict[str, Stage], keys: dict[str, str], done: dict[str, _Done], hashes: Mapping[Path, str]
) -> list[str]:
    """Return the stages that are to run; what may run again does after each of those."""
    finished: dict[str, bool] = {}
    for name in keys:  # what is needed comes before
        stage = stages[name]
        reads = [hashes[path] for path in stage.reads]
        stale = stage.again and not all(finished[need] for need in stage.needs)
        finished[name] = not stale and _has_finished(stage, keys[name], reads, done.get(name))
    return [name for name in stages if not finished[name]]


def _has_finished(stage: Stage, key: str, reads: list[str], done: _Done | None) -> bool:
    """Return whether a stage need not run; `reads` are the hashes of what it would read."""
    if not os.path.lexists(stage.result):
        return False
    if not stage.result.is_file():
        raise InputError(f"stage {stage.name}: its result, '{stage.result}', is no regular file; remove that")
    if done is None or done.sha256 is None:  # it was interrupted with its result written, or another's lies there,
        return False  # or an earlier version noted too little: the command knows
    same, same_text = done.key == key, done.reads in (None, reads)
    if same and same_text and done.sha256 == sha256(stage.result):
        print(f"[{stage.name}] finished before", flush=True)
        return True
    if not stage.again:
        why = f"and {stage.result} has changed since" if same_text else "with another text or teacher than now"
        why = why if same else "with other settings, or after other stages"
        raise InputError(
            f"stage {stage.name} has finished before, {why}; remove {stage.result.parent}, or give the job another "
            "output directory"
        )
    return False


def _run(
    stages: dict[str, Stage],
    waiting: list[str],
    keys: dict[str, str],
    done: dict[str, _Done],
    hashes: Mapping[Path, str],
    out: Path,
    jobs: int,
) -> None:
    """Run what waits, in its order; note what has finished, with the hashes of what it has read."""
    jobs = max(min(jobs, len(waiting)), 1)
    threads = max(cores() // jobs, 1)
    running: dict[Future, str] = {}
    processes = Processes()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while waiting or running:
                unfinished = {*waiting, *running.values()}
                ready = [name for name in waiting if not unfinished & set(stages[name].needs)]
                for name in ready[: jobs - len(running)]:
                    waiting.remove(name)
                    running[pool.submit(processes.run, name, stages[name].command, out, threads)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    if not stages[name].result.is_file():
                        raise InputError(f"stage {name} ended well without its result, '{stages[name].result}'")
                    reads = [hashes[path] for path in stages[name].reads]
                    done[name] = _Done(keys[name], sha256(stages[name].result), reads)
                    write_json_atomic(out / RECORD_NAME, {each: asdict(entry) for each, entry in done.items()})
        except BaseException as error:
            _end(pool, processes, told=not isinstance(error, Exception))
            raise


def _end(pool: ThreadPoolExecutor, processes: Processes, told: bool) -> None:
    """Wait until what runs has ended, and start nothing more.

    Args:
        pool: the threads that wait for the processes.
        processes: of the job.
        told: whether a signal told the job to end; then its processes are told too, and killed by the next signal.
    """
    number = signal.SIGTERM if told else None
    while True:
        try:
            if number is not None:
                print(f"ending the stages that run ({number.name})", file=sys.stderr, flush=True)
                processes.end(number)
            pool.shutdown(cancel_futures=True)
            return
        except (KeyboardInterrupt, SystemExit):
            number = signal.SIGTERM if number is None else signal.SIGKILL


def _keys(stages: dict[str, Stage], directory: Path | None = None) -> dict[str, str]:
    """Return for each stage a hash of its command and of all that comes before it.

    Args:
        stages: by their names.
        directory: of the job. Where it lies, and where the text and teachers that stages read do, does not count: an
            absolute path in place of a relative one is the same job. None: it counts, as in earlier versions.
    """
    keys: dict[str, str] = {}
    for name in TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order():
        arguments = essence(stages[name].command)
        if directory is not None:
            arguments = [_without_places(each, directory, stages[name].reads) for each in arguments]
        described = json.dumps([arguments, [keys[need] for need in stages[name].needs]])
        keys[name] = hashlib.sha256(described.encode()).hexdigest()
    return keys


def _without_places(argument: str, directory: Path, reads: Sequence[Path]) -> str:
    """Return an argument without the place of the job and of the files from outside, which keep their names."""
    for kind, place in [("job", directory), *(("input", path.parent) for path in reads)]:
        written = re.escape(str(place))
        argument = re.sub(rf"(?<![^=:'\"])(?:{written}/|(?<=dir=){written}$)", f"<{kind}>/", argument)
    return argument
