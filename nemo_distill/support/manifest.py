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
"""Who a directory belongs to: the request that its work answers, noted there, and refused where it is another one.

A finished directory has a `manifest.json` with the request and the hash of each file; a directory of shards notes its
request beside them while they are made.
"""

import contextlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming
from nemo_distill.support.quoting import plain_text

MANIFEST = "manifest.json"
_STARTED = ".started.json"
REQUEST = "request.json"
_MOST_SHOWN = 5


def find_finished(
    directory: str | os.PathLike,
    request: Mapping[str, Any],
    overwrite: bool = False,
    names: Iterable[str] | None = None,
) -> dict[str, Any] | None:
    """Return the manifest of an earlier run that answers `request`, None if the work is still to be done.

    Args:
        directory: output directory; made if it is not there.
        request: what is asked for, as plain JSON values; equal requests give equal files.
        overwrite: replace whatever run the directory holds.
        names: of all files that such a run has; None: whichever the manifest lists.

    Raises:
        InputError: the directory holds a run of another request, a finished run whose files have changed since, or
            files of unknown origin, and `overwrite` is False.
    """
    path = Path(directory) / MANIFEST
    if overwrite or not path.is_file():
        return None
    manifest = _read_ours(path)
    refuse_other(directory, manifest["request"], request)
    if names is not None and set(names) != set(manifest["files"]):
        raise InputError(f"'{path}' does not list the files of such a run; --overwrite writes the directory anew")
    for name, entry in manifest["files"].items():
        file = Path(directory) / name
        if not file.is_file() or files.sha256(file) != entry["sha256"]:
            state = "has changed since it was written" if file.is_file() else "is missing"
            raise InputError(f"'{file}' {state}; --overwrite writes the directory anew")
    with contextlib.suppress(OSError):  # of a process that was killed right behind the manifest
        (Path(directory) / _STARTED).unlink()
    return manifest


def _read_ours(path: Path) -> dict[str, Any]:
    """Return a manifest of this library.

    Raises:
        InputError: it is another tool's.
    """
    manifest = incoming.read_json(path)
    is_ours = isinstance(manifest, dict) and isinstance(manifest.get("request"), dict)
    if not is_ours or not is_file_list(manifest.get("files")):
        raise InputError(f"'{path}' is the manifest of another tool; give another output directory")
    return manifest


def is_file_list(listed: Any) -> bool:
    """Return whether something is a manifest's list of files: hashes by name, names below the directory."""
    return isinstance(listed, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is not None
        and _is_below(name)
        for name, entry in listed.items()
    )


def _is_below(name: str) -> bool:
    """Return whether a name is that of a file below a directory, written in the one way there is."""
    parts = name.split("/")
    return len(name) < 1000 and all(
        part not in ("", ".", "..") and len(part) < 200 and part.isprintable() for part in parts
    )


def refuse_other(
    directory: str | os.PathLike,
    earlier: Any,
    request: Mapping[str, Any],
    state: str = "already holds another run",
    advice: str = "give another output directory, or --overwrite to replace it",
) -> None:
    """Refuse a directory whose work answers another request.

    Args:
        directory: for the message.
        earlier: the request noted there, as plain values.
        request: what is asked for now.
        state: what the directory holds, for the message.
        advice: what to do, for the message.

    Raises:
        InputError: the requests differ; the message says in what, nested keys with dots.
    """
    changes = list(_differences(_plain(earlier if isinstance(earlier, Mapping) else {}), _plain(request)))
    if changes:
        shown = ", ".join(changes[:_MOST_SHOWN])
        more = f" and {len(changes) - _MOST_SHOWN} more" if len(changes) > _MOST_SHOWN else ""
        raise InputError(f"'{directory}' {state}, made with {shown}{more}; {advice}")


def request_text(request: Any) -> str:
    """Return a request as text that is the same for requests that mean the same: 1 and 1.0, no value and null."""
    return json.dumps(_plain(request), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _differences(earlier: Any, request: Any, where: str = "") -> Iterator[str]:
    """Yield `key 1 (now 2)` for each key with another value; of a section that one side lacks, each key in it."""
    if all(isinstance(side, dict | None) for side in (earlier, request)):
        for key in sorted({*(earlier or {}), *(request or {})}):
            yield from _differences(
                *((side or {}).get(key) for side in (earlier, request)), f"{where}.{key}".lstrip(".")
            )
    elif json.dumps(earlier) != json.dumps(request):
        yield f"{plain_text(where)} {reprlib.repr(earlier)} (now {reprlib.repr(request)})"


def claim_shards(directory: Path, request: Mapping[str, Any]) -> None:
    """Note beside the shards in `directory` which request they answer."""
    files.write_json_atomic(directory / REQUEST, request)


def refuse_other_shards(directory: Path, output_dir: Path, request: Mapping[str, Any]) -> None:
    """Refuse to go on with the shards that an interrupted run of another request left in `directory`.

    Raises:
        InputError: they are another's.
    """
    noted = directory / REQUEST
    refuse_other(
        output_dir,
        incoming.read_json(noted) if noted.is_file() else {},
        request,
        "holds an interrupted run",
        "go on with its settings, give another output directory, or --overwrite to discard it",
    )


def write_run(
    directory: str | os.PathLike,
    request: Mapping[str, Any],
    contents: Mapping[str, bytes],
    details: Mapping[str, Any],
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write files and, last, the manifest that lists them; return the manifest.

    A run that is cut short leaves no manifest, and the next one replaces what it left.

    Args:
        directory: output directory.
        request: as for `find_finished`.
        contents: file name to content.
        details: further keys of the manifest (counts, licence ...).
        overwrite: as for `find_finished`; of the files that the older manifest lists, those go that have not changed
            since and are called as this run's, such as `train.fr` where this one writes `train.de`.
    """
    start_run(directory, list(contents), overwrite)
    for name, content in contents.items():
        with files.atomic_path(Path(directory) / name) as temporary:
            temporary.write_bytes(content)
    return finish_run(directory, request, list(contents), details)


def start_run(directory: str | os.PathLike, names: list[str], overwrite: bool = False) -> None:
    """Prepare the directory for the files `names`, which the caller writes before `finish_run`; see `write_run`.

    Raises:
        InputError: as `claim`.
    """
    directory = claim(directory, names, overwrite)
    older = _older_files(directory, names) if overwrite else []
    files.write_json_atomic(directory / _STARTED, sorted(names))
    (directory / MANIFEST).unlink(missing_ok=True)
    for path in older:
        path.unlink(missing_ok=True)


def finish_run(
    directory: str | os.PathLike, request: Mapping[str, Any], names: list[str], details: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the manifest that lists the files `names`, which are there; return it."""
    directory = Path(directory)
    hashes = {name: {"sha256": files.sha256(directory / name)} for name in names}
    manifest = {"request": dict(request), **details, "files": hashes}
    files.write_json_atomic(directory / MANIFEST, manifest)
    (directory / _STARTED).unlink()
    return manifest


def forget_start(directory: str | os.PathLike) -> None:
    """Remove the note that a run was cut short from a directory that `find_finished` found finished.

    A process that is killed just after it wrote the manifest leaves it. Call this with the directory locked.
    """
    with contextlib.suppress(OSError):  # of a place that cannot be written, where it harms nobody
        (Path(directory) / _STARTED).unlink(missing_ok=True)


def noted_hashes(directory: str | os.PathLike, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the hashes that the manifest of a directory lists for some files; None where it has no manifest.

    Raises:
        InputError: it does not list them.
    """
    path = Path(directory) / MANIFEST
    if not os.path.lexists(path):
        return None
    manifest = incoming.read_json(path)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not is_file_list(listed) or not set(names) <= listed.keys():
        raise InputError(f"'{path}' does not list {' and '.join(names)}; make them again, or give another directory")
    return tuple(listed[name]["sha256"] for name in names)


def is_unfinished(directory: str | os.PathLike) -> bool:
    """Return whether a run was cut short while it wrote into the directory."""
    return (Path(directory) / _STARTED).is_file() and not (Path(directory) / MANIFEST).is_file()


def claim(directory: str | os.PathLike, names: Mapping[str, Any] | list[str], overwrite: bool = False) -> Path:
    """Make the output directory; refuse one that holds any of `names`, save those an interrupted run left there.

    Raises:
        InputError: it holds another run and `overwrite` is False, or the manifest of another tool.
    """
    started = Path(directory) / _STARTED
    found = incoming.read_json(started) if started.is_file() else []
    left = {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()
    directory = files.prepare_output_dir(directory, overwrite, holds=[MANIFEST, *(set(names) - left)])
    if os.path.lexists(directory / MANIFEST):
        _read_ours(directory / MANIFEST)
    return directory


def _older_files(directory: Path, names: list[str]) -> list[Path]:
    """Return the files of the run to be replaced that this one does not write: those that prove to be of its kind.

    A manifest may come from elsewhere and list a user's files: only what is called as one of `names` up to its first
    dot, is a regular file and has the hash in the manifest is removed. Other files stay.
    """
    if not (directory / MANIFEST).is_file():
        return []
    kinds = {name.partition(".")[0] for name in names}
    older = []
    for name, entry in _read_ours(directory / MANIFEST)["files"].items():
        path = directory / name
        if name in names or "/" in name or name.partition(".")[0] not in kinds or path.is_symlink():
            continue
        if path.is_file() and files.sha256(path) == entry["sha256"]:
            older.append(path)
    return older
