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
"""What is known of a job's stages: which have finished, and which would be made otherwise now; `stages.json`."""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.jobs.running import essence
from nemo_distill.support.files import is_sha256, make_directory, sha256, write_json_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.lock import locked
from nemo_distill.support.records import read_record

RECORD_NAME, EARLIER_DIR = "stages.json", "earlier"
_FIX = "remove it, and the stages are run again"
_BEFORE = r"(?<![^=:,\['\"])(?:\./)*"
"""Of a path in an argument."""


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
    fetches: bool = False
    """It needs the internet, which nodes of a cluster may lack."""


@dataclass
class Done:
    """A stage that has finished, or that has begun: then its result has no hash."""

    key: str
    sha256: str | None = None
    """Of its result; not noted by earlier versions."""
    reads: list[str] | None = None
    """SHA-256 of what it has read from outside; not noted by earlier versions."""
    origin: str | None = None
    """Hash of key and reads, and of the origins of what it needs; not noted by earlier versions."""


@dataclass
class Job:
    """The stages of a job, and what is known of them."""

    stages: dict[str, Stage]
    """By name, what is needed before what needs it."""
    directory: Path
    keys: dict[str, str]
    hashes: Mapping[Path, str]
    """SHA-256 of what stages read from outside."""
    done: dict[str, Done]
    earlier: Sequence[dict[str, str]] = ()
    """Keys as earlier versions have noted them."""

    def expected(self, name: str, keys: Mapping[str, str] | None = None) -> Done:
        """Return what is noted of a stage that begins now.

        Args:
            name: of the stage.
            keys: of all stages; None: those of this version.
        """
        keys = self.keys if keys is None else keys
        reads = [self.hashes[path] for path in self.stages[name].reads]
        before = [self.expected(need, keys).origin for need in self.stages[name].needs]
        origin = hashlib.sha256(json.dumps([keys[name], reads, before]).encode()).hexdigest()
        return Done(keys[name], None, reads, origin)

    def note(self, name: str, entry: Done) -> None:
        """Write what is known of a stage."""
        self.done[name] = entry
        write_json_atomic(self.directory / RECORD_NAME, {each: asdict(item) for each, item in self.done.items()})

    def is_as_expected(self, name: str) -> bool:
        """Return whether a stage, as far as is known, was made as it would be now."""
        done, wanted = self.done[name], (self.expected(name, keys) for keys in (self.keys, *self.earlier))
        return any(
            done.key == each.key and done.reads in (None, each.reads) and done.origin in (None, each.origin)
            for each in wanted
        )

    def goes_on(self, name: str) -> bool:
        """Return whether a stage that begins now was begun as it is, and has not finished."""
        return name in self.done and self.done[name].sha256 is None and self.is_as_expected(name)

    def waiting(self, told: Collection[str] = ()) -> list[str]:
        """Return the stages that are to run; what may run again does after each of those. All others are said to have
        finished, but for those `told` of.
        """
        finished: dict[str, bool] = {}
        for name in self.keys:  # what is needed comes before
            stage = self.stages[name]
            stale = stage.again and not all(finished[need] for need in stage.needs)
            finished[name] = not stale and self._has_finished(stage)
            if finished[name] and name not in told:
                print(f"[{name}] finished before", flush=True)
        return [name for name in self.stages if not finished[name]]

    def _has_finished(self, stage: Stage) -> bool:
        """Return whether a stage need not run."""
        done = self.done.get(stage.name)
        if not os.path.lexists(stage.result):
            return False
        if not stage.result.is_file():
            raise InputError(f"stage {stage.name}: its result, '{stage.result}', is no regular file; remove that")
        if done is None or done.sha256 is None:  # it was interrupted with its result written, or another's lies there,
            return False  # or an earlier version noted too little: the command knows
        unchanged = done.sha256 == sha256(stage.result)
        if unchanged and self.is_as_expected(stage.name):
            return True
        if not unchanged and not stage.again:
            raise InputError(
                f"stage {stage.name} has finished before, and {stage.result} has changed since; remove "
                f"{stage.result.parent}, or give the job another output directory"
            )
        return False

    def make_way(self, stage: Stage) -> None:
        """Move what a stage has made in another way than now to `earlier/`: nothing that took hours is lost. What a
        stage goes on with is copied there.
        """
        if stage.name not in self.done or self.is_as_expected(stage.name):
            return
        made = stage.result.parent
        if made.resolve() == self.directory.resolve():
            made = stage.result
        if not os.path.lexists(made):
            return
        if made.is_symlink() or self.directory.resolve() not in made.resolve().parents:
            raise InputError(f"stage {stage.name}: '{made}' is not the job's own; move it away")
        kept = self.directory / EARLIER_DIR
        make_directory(kept)
        if kept.is_symlink():
            raise InputError(f"'{kept}' is a link; remove it, so that what is kept stays in the job's directory")
        place = next(
            each for each in (kept / f"{stage.name}.{n}" for n in itertools.count(1)) if not os.path.lexists(each)
        )
        if stage.again:  # which goes on with what is there, and removes what no longer fits
            (shutil.copytree if made.is_dir() else shutil.copy2)(made, place)
        else:
            os.rename(made, place)
        print(f"[{stage.name}] is made anew: its settings, its text or what comes before it are others than they were")
        print(f"[{stage.name}] what it had made is kept in {place}", flush=True)


@contextmanager
def open_job(stages: Sequence[Stage], directory: str | os.PathLike) -> Iterator[Job]:
    """Context in which this process alone works on a job, and knows what has been made of it.

    Args:
        stages: in any order; what one needs must be among them.
        directory: of the job.

    Raises:
        InputError: as `_read_job`.
        InUseError: another process works in the directory.
    """
    with locked(directory):
        yield _read_job(stages, Path(directory))


def finished_stages(stages: Sequence[Stage], directory: str | os.PathLike) -> set[str]:
    """Return the names of the stages that `run` would not do again, whoever works on the job; nothing is written.

    Raises:
        InputError: as `_read_job`, or a result has changed since it was made.
    """
    if not os.path.lexists(Path(directory, RECORD_NAME)):  # large text and teachers need not be hashed
        return set()
    job = _read_job(stages, Path(directory))
    return job.stages.keys() - job.waiting(told=job.stages)


def _read_job(stages: Sequence[Stage], directory: Path) -> Job:
    """Return the stages of a job, and what is known of them.

    Raises:
        InputError: names of stages are odd or not unique, the record is damaged, or what stages read is not there.
    """
    by_name = {stage.name: stage for stage in stages}
    for name in by_name:
        if not re.fullmatch(r"[\w.@+=-]{1,200}", name) or name.startswith("."):
            raise InputError(f"stage name {name[:80]!r}: it is made of letters, digits and any of . _ @ + = -")
    if len(by_name) < len(stages):
        raise InputError("two stages of the job have one name; give runs, labels and caches other names")
    keys, *earlier = (_keys(by_name, directory, each) for each in (_without_places, _without_most_places, None))
    done = _read_done(directory / RECORD_NAME)
    hashes = {path: sha256(path) for path in sorted({path for stage in stages for path in stage.reads})}
    return Job(by_name, directory, keys, hashes, done, earlier)


def _read_done(path: Path) -> dict[str, Done]:
    """Return which stages have finished, as `stages.json` says."""
    if not os.path.lexists(path):
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' is not the record of a job's stages; {_FIX}")
    done = {
        name: Done(entry) if isinstance(entry, str) else read_record(Done, entry, f"{path}: {name[:80]}", _FIX)
        for name, entry in content.items()
    }
    hashes = [each for item in done.values() for each in (item.key, item.sha256, item.origin, *(item.reads or ()))]
    if not all(each is None or is_sha256(each) for each in hashes):
        raise InputError(f"'{path}' is not the record of a job's stages; move it away, and the stages are run again")
    return done


def _without_places(argument: str, directory: Path, reads: Sequence[Path]) -> str:
    """Return an argument without the place of the job and of the files from outside, which keep their names.

    Example:
        >>> _without_places("teacher=['my t/x.nemo',y.nemo]", Path("out"), [Path("my t/x.nemo"), Path("y.nemo")])
        'teacher=[<input>/x.nemo,<input>/y.nemo]'
    """
    if any(argument == str(path.parent) for path in reads):  # the directory of a model
        return "<input>"
    for path in reads:  # of which one may be a name alone, in the directory where the job is started
        whole = rf"{_BEFORE}{re.escape(str(path))}(?![^=:,\]'\"])"
        argument = re.sub(whole, lambda _, name=path.name: f"<input>/{name}", argument)
    for kind, place in [("job", directory), *(("input", path.parent) for path in reads)]:
        written = re.escape(str(place))
        argument = re.sub(rf"{_BEFORE}{written}/", f"<{kind}>/", argument)
        argument = re.sub(rf"(?<=dir=)(['\"]?){written}\1$", f"<{kind}>/", argument)
    return re.sub(r"(['\"])(<(?:job|input)>/[\w.@+/-]*)\1", r"\2", argument)  # the place alone needed them


def _without_most_places(argument: str, directory: Path, reads: Sequence[Path]) -> str:
    """Return an argument as `_without_places` of earlier versions did: not of several teachers, of files in the
    directory where the job is started, of a corpus whose path needs quotes.
    """
    if any(argument == str(path.parent) for path in reads):
        return "<input>"
    for kind, place in [("job", directory), *(("input", path.parent) for path in reads)]:
        written = re.escape(str(place))
        argument = re.sub(rf"(?<![^=:'\"])(?:{written}/|(?<=dir=){written}$)", f"<{kind}>/", argument)
    return argument


def stage_keys(stages: Sequence[Stage], directory: str | os.PathLike) -> dict[str, str]:
    """Return for each stage a hash of its command and of all that comes before it, wherever the job's files lie."""
    return _keys({stage.name: stage for stage in stages}, Path(directory))


def _keys(
    stages: dict[str, Stage],
    directory: Path,
    without: Callable[[str, Path, Sequence[Path]], str] | None = _without_places,
) -> dict[str, str]:
    """Return for each stage a hash of its command and of all that comes before it.

    Args:
        stages: by their names.
        directory: of the job. Where it lies, and where the text and teachers that stages read do, does not count: an
            absolute path in place of a relative one is the same job.
        without: what takes these places out of an argument; None: they count, as in the first versions.
    """
    keys: dict[str, str] = {}
    for name in TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order():
        arguments = essence(stages[name].command)
        if without is not None:
            arguments = [without(each, directory, stages[name].reads) for each in arguments]
        described = json.dumps([arguments, [keys[need] for need in stages[name].needs]])
        keys[name] = hashlib.sha256(described.encode()).hexdigest()
    return keys
