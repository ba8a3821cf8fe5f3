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

import json
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming

MANIFEST = "manifest.json"
_STARTED = ".started.json"
REQUEST = "request.json"
_MOST_SHOWN = 5


def find_finished(
    directory: str | os.PathLike, request: Mapping[str, Any], overwrite: bool = False, name: str = MANIFEST
) -> dict[str, Any] | None:
    """Return the manifest of an earlier run that answers `request`, None if the work is still to be done.

    Args:
        directory: output directory; made if it is not there.
        request: what is asked for, as plain JSON values; equal requests give equal files.
        overwrite: replace whatever run the directory holds.
        name: of the manifest, where runs of several verbs may lie in one directory.

    Raises:
        InputError: the directory holds a run of another request, a finished run whose files have changed since, or
            files of unknown origin, and `overwrite` is False.
    """
    path = Path(directory) / name
    if overwrite or not path.is_file():
        return None
    manifest = incoming.read_json(path)
    is_ours = isinstance(manifest, dict) and isinstance(manifest.get("request"), dict)
    if not is_ours or not is_file_list(manifest.get("files")):
        raise InputError(f"'{path}' is the manifest of another tool; give another output directory")
    refuse_other(directory, manifest["request"], request)
    for listed, entry in manifest["files"].items():
        file = Path(directory) / listed
        if not file.is_file() or files.sha256(file) != entry["sha256"]:
            state = "has changed since it was written" if file.is_file() else "is missing"
            raise InputError(f"'{file}' {state}; --overwrite writes the directory anew")
    return manifest


def is_file_list(listed: Any) -> bool:
    """Return whether something is a manifest's list of files: hashes by name, names below the directory."""
    return isinstance(listed, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and not Path(name).is_absolute()
        and all(part != ".." and len(part) < 200 and part.isprintable() for part in Path(name).parts)
        for name, entry in listed.items()
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
        yield f"{where} {reprlib.repr(earlier)} (now {reprlib.repr(request)})"


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
    name: str = MANIFEST,
) -> dict[str, Any]:
    """Write files and, last, the manifest that lists them; return the manifest.

    A run that is cut short leaves no manifest, and the next one replaces what it left.

    Args:
        directory: output directory.
        request: as for `find_finished`.
        contents: file name to content.
        details: further keys of the manifest (counts, licence ...).
        overwrite: as for `find_finished`; the files listed by the older manifest go.
        name: as for `find_finished`.
    """
    start_run(directory, list(contents), overwrite, name)
    for file, content in contents.items():
        with files.atomic_path(Path(directory) / file) as temporary:
            temporary.write_bytes(content)
    return finish_run(directory, request, list(contents), details, name)


def start_run(directory: str | os.PathLike, names: list[str], overwrite: bool = False, name: str = MANIFEST) -> None:
    """Prepare the directory for the files `names`, which the caller writes before `finish_run`; see `write_run`."""
    directory = Path(directory)
    claim(directory, names, overwrite, name)
    older = _older_names(directory, name) if overwrite else set()
    files.write_json_atomic(directory / _started(name), sorted(names))
    (directory / name).unlink(missing_ok=True)
    for spare in older - set(names):
        (directory / spare).unlink(missing_ok=True)


def finish_run(
    directory: str | os.PathLike,
    request: Mapping[str, Any],
    names: list[str],
    details: Mapping[str, Any],
    name: str = MANIFEST,
) -> dict[str, Any]:
    """Write the manifest that lists the files `names`, which are there; return it."""
    directory = Path(directory)
    hashes = {file: {"sha256": files.sha256(directory / file)} for file in names}
    manifest = {"request": dict(request), **details, "files": hashes}
    files.write_json_atomic(directory / name, manifest)
    (directory / _started(name)).unlink()
    return manifest


def is_unfinished(directory: str | os.PathLike) -> bool:
    """Return whether a run was cut short while it wrote into the directory."""
    return (Path(directory) / _STARTED).is_file()


def claim(
    directory: str | os.PathLike, names: Mapping[str, Any] | list[str], overwrite: bool = False, name: str = MANIFEST
) -> Path:
    """Make the output directory; refuse one that holds any of `names`, save those an interrupted run left there."""
    unclaimed = set(names) - _left_names(Path(directory), name)
    return files.prepare_output_dir(directory, overwrite, holds=[name, *unclaimed])


def refuse_foreign(
    directory: str | os.PathLike, names: Iterable[str], known: Iterable[str], name: str = MANIFEST
) -> None:
    """Refuse to replace or remove, by `start_run` with `overwrite`, what does not prove to be of an earlier run.

    Args:
        directory: output directory.
        names: files to be written: those that are there must be listed by a finished or an interrupted run.
        known: all names that such a run may have. What the older manifest lists besides `names` would be removed: it
            must be among these, with the hash that it was written with.
        name: of the manifest.

    Raises:
        InputError: there is another.
    """
    directory, names = Path(directory), set(names)
    hashes, left = _listed_hashes(directory / name), _left_names(directory, name)
    foreign = {each for each in names - hashes.keys() - left if os.path.lexists(directory / each)}
    for spare in hashes.keys() - names:
        if spare not in known or os.path.lexists(directory / spare):
            fits = spare in known and files.sha256(directory / spare) == hashes[spare]
            foreign |= set() if fits else {spare}
    if foreign:
        raise InputError(
            f"'{directory / min(foreign)}' does not prove to be of an earlier run ('{name}' there does not list it as "
            "it is), so it stays; move it away, or give another output"
        )


def _listed_hashes(path: Path) -> dict[str, str]:
    """Return the hashes that a manifest lists, by file.

    Raises:
        InputError: something is there that is no manifest of ours.
    """
    if not os.path.lexists(path):
        return {}
    content = incoming.read_json(path)
    listed = content.get("files") if isinstance(content, dict) and isinstance(content.get("request"), dict) else None
    if not is_file_list(listed) or path.is_symlink():
        raise InputError(f"'{path}' is the manifest of another tool, so it stays; move it away")
    return {file: entry["sha256"] for file, entry in listed.items()}


def _started(name: str) -> str:
    """Return the name of the note of a run that has not yet written the manifest `name`."""
    return _STARTED if name == MANIFEST else f".{name.removesuffix('.json')}{_STARTED}"


def _left_names(directory: Path, name: str) -> set[str]:
    """Names of the files that an interrupted run noted."""
    started = directory / _started(name)
    if started.is_symlink():
        raise InputError(f"'{started}' is a link, no note of a run; remove it")
    found = incoming.read_json(started) if os.path.lexists(started) else []
    return {each for each in found if isinstance(each, str)} if isinstance(found, list) else set()


def _older_names(directory: Path, name: str = MANIFEST) -> set[str]:
    """Names of the files that the manifest to be replaced lists; only plain names, never a path elsewhere."""
    if not (directory / name).is_file():
        return set()
    manifest = incoming.read_json(directory / name)
    listed = manifest.get("files", {}) if isinstance(manifest, dict) else {}
    return {name for name in listed if name == Path(name).name and name != ".."} if is_file_list(listed) else set()
