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
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.progress import (
    DONE,
    FAILED,
    LEFT_OUT,
    RUNNING,
    WAITING,
    Progress,
    StageProgress,
    earlier_times,
)
from nemo_distill.jobs.running import Processes, ended_by_signals, essence
from nemo_distill.jobs.side_by_side import beside
from nemo_distill.support.files import is_sha256, make_directory, sha256, write_json_atomic, write_text_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.lock import locked
from nemo_distill.support.records import read_record
from nemo_distill.support.threads import cores

RECORD_NAME, EARLIER_DIR = "stages.json", "earlier"
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
    """Its command goes on with what it has made before, and runs again after each stage that it needs; else what was
    made in another way is moved away first."""
    reads: tuple[Path, ...] = ()
    """Files from outside of the job that it reads: text, a teacher."""
    spent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rows of a report by the stages whose time counts as theirs; `--spent` tells the command, when it starts."""


@dataclass
class _Done:
    """A stage that has finished, or that has begun: then its result has no hash."""

    key: str
    sha256: str | None = None
    """Of its result; not noted by earlier versions."""
    reads: list[str] | None = None
    """SHA-256 of what it has read from outside; not noted by earlier versions."""
    origin: str | None = None
    """Hash of key and reads, and of the origins of what it needs; not noted by earlier versions."""


@dataclass
class _Job:
    """The stages of a job, and what is known of them."""

    stages: dict[str, Stage]
    """By name, what is needed before what needs it."""
    directory: Path
    keys: dict[str, str]
    hashes: Mapping[Path, str]
    """SHA-256 of what stages read from outside."""
    done: dict[str, _Done]

    def expected(self, name: str) -> _Done:
        """Return what is noted of a stage that begins now."""
        reads = [self.hashes[path] for path in self.stages[name].reads]
        before = [self.expected(need).origin for need in self.stages[name].needs]
        origin = hashlib.sha256(json.dumps([self.keys[name], reads, before]).encode()).hexdigest()
        return _Done(self.keys[name], None, reads, origin)

    def note(self, name: str, entry: _Done) -> None:
        """Write what is known of a stage."""
        self.done[name] = entry
        write_json_atomic(self.directory / RECORD_NAME, {each: asdict(item) for each, item in self.done.items()})

    def is_as_expected(self, name: str) -> bool:
        """Return whether a stage, as far as is known, was made as it would be now."""
        done, wanted = self.done[name], self.expected(name)
        same = done.key == wanted.key and done.reads in (None, wanted.reads)
        return same and done.origin in (None, wanted.origin)


def run_stages(
    stages: Sequence[Stage], directory: Path, jobs: int = 1, inputs: Mapping[Path, str] | None = None
) -> None:
    """Run the commands of a job, each once.

    A stage has finished when its result exists, unchanged, and `stages.json` in `directory` says that it was made by
    this very command, of these very files, after these very stages. What was made in another way is moved to
    `earlier/` and made anew. Output goes to `logs/NAME.log`, progress to the terminal and to `progress.json`. A stage
    that fails stops what needs it, nothing else. One process at a time works in the directory. SIGTERM, SIGHUP and
    Ctrl-C end the stages that run, and then the job; a second one kills them.

    Args:
        stages: in any order; what one needs must be among them.
        directory: of the job.
        jobs: stages to run side by side, each on its share of the cores, see `side_by_side.beside`.
        inputs: text files that stages read, written first.

    Raises:
        InputError: stages were given bad input, or one has a result that has changed since it was made; or another
            process works in the directory.
        StageError: a stage failed in another way; the message holds the end of its log.
        StoppedBySignal: the job was told to end.
    """
    by_name = {stage.name: stage for stage in stages}
    for name in by_name:
        if not re.fullmatch(r"[\w.@+=-]{1,200}", name) or name.startswith("."):
            raise InputError(f"stage name {name[:80]!r}: it is made of letters, digits and any of . _ @ + = -")
    if len(by_name) < len(stages):
        raise InputError("two stages of the job have one name; give runs, labels and caches other names")
    directory = Path(directory)
    keys, earlier = _keys(by_name, directory), _keys(by_name)
    with ended_by_signals(), locked(directory):
        done = _read_done(directory / RECORD_NAME)
        for name, entry in done.items():
            if entry.key == earlier.get(name):
                entry.key = keys[name]
        hashes = {path: sha256(path) for path in sorted({path for stage in stages for path in stage.reads})}
        job = _Job(by_name, directory, keys, hashes, done)
        waiting = _waiting(job)
        for path, text in (inputs or {}).items():
            write_text_atomic(path, text)
        _run(job, waiting, jobs)


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
    hashes = [each for item in done.values() for each in (item.key, item.sha256, item.origin, *(item.reads or ()))]
    if not all(each is None or is_sha256(each) for each in hashes):
        raise InputError(f"'{path}' is not the record of a job's stages; move it away, and the stages are run again")
    return done


def _waiting(job: _Job) -> list[str]:
    """Return the stages that are to run; what may run again does after each of those."""
    finished: dict[str, bool] = {}
    for name in job.keys:  # what is needed comes before
        stage = job.stages[name]
        stale = stage.again and not all(finished[need] for need in stage.needs)
        finished[name] = not stale and _has_finished(job, stage)
    return [name for name in job.stages if not finished[name]]


def _has_finished(job: _Job, stage: Stage) -> bool:
    """Return whether a stage need not run."""
    done = job.done.get(stage.name)
    if not os.path.lexists(stage.result):
        return False
    if not stage.result.is_file():
        raise InputError(f"stage {stage.name}: its result, '{stage.result}', is no regular file; remove that")
    if done is None or done.sha256 is None:  # it was interrupted with its result written, or another's lies there,
        return False  # or an earlier version noted too little: the command knows
    unchanged = done.sha256 == sha256(stage.result)
    if unchanged and job.is_as_expected(stage.name):
        print(f"[{stage.name}] finished before", flush=True)
        return True
    if not unchanged and not stage.again:
        raise InputError(
            f"stage {stage.name} has finished before, and {stage.result} has changed since; remove "
            f"{stage.result.parent}, or give the job another output directory"
        )
    return False


def _make_way(job: _Job, stage: Stage) -> None:
    """Move what a stage has made in another way than now to `earlier/`: nothing that took hours is lost."""
    if stage.again or stage.name not in job.done or job.is_as_expected(stage.name):
        return
    made = stage.result.parent
    if made.resolve() == job.directory.resolve():
        made = stage.result
    if not os.path.lexists(made):
        return
    if made.is_symlink() or job.directory.resolve() not in made.resolve().parents:
        raise InputError(f"stage {stage.name}: '{made}' is not the job's own; move it away")
    kept = job.directory / EARLIER_DIR
    make_directory(kept)
    if kept.is_symlink():
        raise InputError(f"'{kept}' is a link; remove it, so that what is kept stays in the job's directory")
    place = next(
        each for each in (kept / f"{stage.name}.{n}" for n in itertools.count(1)) if not os.path.lexists(each)
    )
    os.rename(made, place)
    print(f"[{stage.name}] is made anew: its settings, its text or what comes before it are others than they were")
    print(f"[{stage.name}] what it had made is kept in {place}", flush=True)


def _run(job: _Job, waiting: list[str], jobs: int) -> None:
    """Run what waits, in its order, but for what needs a stage that failed; note how each has ended.

    Raises:
        InputError: one or more were given bad input.
        StageError: one or more failed in another way.
    """
    together = beside({name: stage.needs for name, stage in job.stages.items()}, jobs)
    jobs = max(min(jobs, len(waiting)), 1)
    times = earlier_times(job.directory)
    progress = Progress({name: times.get(name, StageProgress()) for name in job.stages})
    for name, stage in progress.stages.items():
        stage.state = WAITING if name in waiting else DONE
    progress.write(job.directory)
    running: dict[Future, str] = {}
    failures: dict[str, Exception] = {}
    processes = Processes()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while waiting or running:
                unfinished = {*waiting, *running.values()}
                ready = [name for name in waiting if not unfinished & set(job.stages[name].needs)]
                for name in ready[: jobs - len(running)]:
                    waiting.remove(name)
                    _make_way(job, job.stages[name])
                    job.note(name, job.expected(name))
                    progress.change(name, RUNNING)
                    command = job.stages[name].command + _time_spent(job.stages[name], progress)
                    threads = max(cores() // together[name], 1)
                    running[pool.submit(processes.run, name, command, job.directory, threads)] = name
                progress.write(job.directory)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    try:
                        _take_result(job, name, future)
                        progress.change(name, DONE)
                    except (InputError, StageError) as error:
                        print(f"[{name}] failed", file=sys.stderr, flush=True)
                        failures[name] = error
                        progress.change(name, FAILED)
                        for each in _needing(job, name) & set(waiting):
                            waiting.remove(each)
                            progress.change(each, LEFT_OUT)
                progress.write(job.directory)
        except BaseException as error:
            _end(pool, processes, told=not isinstance(error, Exception))
            raise
    if failures:
        kind = InputError if all(isinstance(error, InputError) for error in failures.values()) else StageError
        lines = [str(error) for error in failures.values()]
        if left_out := [name for name, stage in progress.stages.items() if stage.state == LEFT_OUT]:
            lines.append(f"not run, since they need {'it' if len(lines) == 1 else 'these'}: {', '.join(left_out)}")
        raise kind("\n  ".join(lines)) from next(iter(failures.values()))


def _take_result(job: _Job, name: str, future: Future) -> None:
    """Note a stage that has ended.

    Raises:
        InputError, StageError: it has failed, or has no result.
    """
    future.result()
    stage = job.stages[name]
    if not stage.result.is_file():
        raise InputError(f"stage {name} ended well without its result, '{stage.result}'")
    job.note(name, replace(job.expected(name), sha256=sha256(stage.result)))


def _needing(job: _Job, name: str) -> set[str]:
    """Return the stages that need one, directly or by others."""
    found = {name}
    for each in job.keys:  # what is needed comes before
        if found & set(job.stages[each].needs):
            found.add(each)
    return found - {name}


def _time_spent(stage: Stage, progress: Progress) -> list[str]:
    """Return the options that tell a report how long its rows' labels and caches took; nothing of earlier versions."""
    seconds = {row: [progress.stages[name].seconds for name in names] for row, names in stage.spent.items()}
    known = {row: sum(each) for row, each in seconds.items() if each and None not in each}
    return ["--spent", *(f"{row}:{total:.1f}" for row, total in known.items())] if known else []


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
