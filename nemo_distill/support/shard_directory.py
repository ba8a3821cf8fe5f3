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
"""The hidden directory of shards: what proves that it is ours, and how it is removed.

It is named after its request. What is not one of ours by name, request and content is never touched.
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support import incoming
from nemo_distill.support.files import is_unfinished
from nemo_distill.support.manifest import REQUEST, request_text

PREFIX = ".shards-"
_RETIRED = ".done"
ENGINE = "engine.json"
_SHARD = re.compile(r"[0-9]{6,12}\.jsonl(\.gz)?")  # earlier releases did not compress them


def name_for(request: Mapping[str, Any]) -> str:
    """Return the name of the directory of a request's shards."""
    return f"{PREFIX}{hashlib.sha256(request_text(request).encode()).hexdigest()[:16]}"


def check(path: Path) -> list[str]:
    """Return the names of the files in a directory of shards.

    Raises:
        InputError: it is none: a link or a file, without the request that its name is made of, or with something in
            it that is no file of a run.
    """
    try:
        is_directory = stat.S_ISDIR(path.lstat().st_mode)
        names = sorted(os.listdir(path)) if is_directory else []
    except FileNotFoundError:  # removed by the first process of this job
        return []
    if not is_directory:
        raise _foreign(path, "it is no directory")
    for name in names:
        try:
            is_file = stat.S_ISREG((path / name).lstat().st_mode)
        except FileNotFoundError:  # another process of this job has just finished it
            continue
        known = name in (REQUEST, ENGINE) or _SHARD.fullmatch(name) or is_unfinished(path / name)
        if not (is_file and known):
            raise _foreign(path, f"{name[:80]!a} in it is no file of a run")
    if REQUEST in names:
        try:
            request = incoming.read_json(path / REQUEST)
        except InputError:
            if not os.path.lexists(path / REQUEST):  # removed meanwhile
                return []
            raise
        if not isinstance(request, dict) or name_for(request) != path.name.removesuffix(_RETIRED):
            raise _foreign(path, f"its {REQUEST} is that of another")
    elif not all(is_unfinished(path / name) for name in names):  # killed before the request was written
        raise _foreign(path, f"it has no {REQUEST}")
    return names


def is_retired(path: Path) -> bool:
    """Return whether a directory holds the shards of a run that has finished."""
    return path.name.endswith(_RETIRED)


def retire(path: Path) -> None:
    """Remove the shards of a run that has finished, and what is left of them where that was interrupted.

    They go in one step: another process of the job that is late sees all of them or none.

    Raises:
        InputError: as `remove`.
    """
    retired = path.with_name(path.name + _RETIRED)
    remove(retired)
    check(path)
    with contextlib.suppress(FileNotFoundError):
        path.rename(retired)
    remove(retired)


def remove(path: Path) -> None:
    """Remove a directory of shards, if it is there.

    Raises:
        InputError: as `check`; or it is another user's. Nothing has been removed then.
    """
    names = check(path)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise _foreign(path, "it is another user's")
        for name in sorted(names, key=lambda name: name == REQUEST):  # last: killed here, it is still known as ours
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def _foreign(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{path}' has the name of a directory of shards, but is none that this library made ({reason}); move it, "
        "or give another output directory"
    )
