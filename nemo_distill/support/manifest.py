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
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming
from nemo_distill.support.numbered import base_name, unnumbered
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
    name: str = MANIFEST,
) -> dict[str, Any] | None:
    """Return the manifest of an earlier run that answers `request`, None if the work is still to be done.

    Args:
        directory: output directory.
        request: what is asked for, as plain JSON values; equal requests give equal files.
        overwrite: replace whatever run the directory holds.
        names: of all files that such a run has; None: whichever the manifest lists.
        name: of the manifest, where runs of several verbs may lie in one directory.

    Raises:
        InputError: the directory holds the output of another verb; or it holds a run of another request, or a finished
            run whose files have changed since, and `overwrite` is False.
    """
    path = Path(directory) / name
    if not os.path.lexists(path):
        return None
    manifest = _read_ours(path)
    if _kind(manifest["request"]) != _kind(request):
        raise InputError(f"'{directory}' holds the output of another verb; give another output directory")
    if overwrite:
        return None
    refuse_other(directory, manifest["request"], request, names=manifest)
    if names is not None and set(names) != set(manifest["files"]):
        raise InputError(f"'{path}' does not list the files of such a run; --overwrite writes the directory anew")
    for listed, entry in manifest["files"].items():
        file = Path(directory) / listed
        if not file.is_file() or files.sha256(file) != entry["sha256"]:
            state = "has changed since it was written" if file.is_file() else "is missing"
            raise InputError(f"'{file}' {state}; --overwrite writes the directory anew")
    with contextlib.suppress(OSError):  # of a process that was killed right behind the manifest
        (Path(directory) / _started(name)).unlink()
    return manifest


def _kind(request: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what tells the requests of verbs apart: their first key, and the verb where they have one."""
    return next(iter(request), None), request.get("verb")


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
        and files.is_sha256(entry["sha256"])
        and _is_below(name)
        for name, entry in listed.items()
    )


def _is_below(name: str) -> bool:
    """Return whether a name is that of a file below a directory, written in the one way there is."""
    return len(name) < 1000 and all(map(files.is_file_name, name.split("/")))


def refuse_other(
    directory: str | os.PathLike,
    earlier: Any,
    request: Mapping[str, Any],
    state: str = "already holds another run",
    advice: str = "give another output directory, or --overwrite to replace it",
    names: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a directory whose work answers another request.

    Args:
        directory: for the message.
        earlier: the request noted there, as plain values.
        request: what is asked for now.
        state: what the directory holds, for the message.
        advice: what to do, for the message.
        names: what the earlier run noted of the names of its files, `input_name` or `teacher_names`, for the message:
            hashes say nothing to people.

    Raises:
        InputError: the requests differ; the message says in what, nested keys with dots.
    """
    changes = list(_differences(names or {}, _plain(earlier if isinstance(earlier, Mapping) else {}), _plain(request)))
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


def _differences(names: Mapping[str, Any], earlier: Any, request: Any, where: str = "") -> Iterator[str]:
    """Yield `key 1 (now 2)` for each key with another value; of a section that one side lacks, each key in it.

    Of values that hold hashes it is `other content of key`, with the name that the file had then, where that is noted.
    """
    if all(isinstance(side, dict | None) for side in (earlier, request)):
        for key in sorted({*(earlier or {}), *(request or {})}):
            yield from _differences(
                names, *((side or {}).get(key) for side in (earlier, request)), f"{where}.{key}".lstrip(".")
            )
    elif json.dumps(earlier) != json.dumps(request):
        shown = plain_text(where.removesuffix("_sha256"))
        if not (_has_hash(earlier) or _has_hash(request)):
            yield f"{shown} {reprlib.repr(earlier)} (now {reprlib.repr(request)})"
            return
        noted = names.get(f"{where}_name") or names.get(f"{where.removesuffix('s')}_names")
        noted = [noted] if isinstance(noted, str) else noted if isinstance(noted, list) else []
        known = ", ".join(plain_text(name, 80) for name in noted[:_MOST_SHOWN] if isinstance(name, str))
        yield f"other content of {shown}" + (f" (then {known})" if known else "")


def _has_hash(value: Any) -> bool:
    return any(map(_has_hash, value)) if isinstance(value, list) else isinstance(value, str) and files.is_sha256(value)


def claim_shards(directory: Path, request: Mapping[str, Any]) -> None:
    """Note beside the shards in `directory` which request they answer."""
    files.write_json_atomic(directory / REQUEST, request)


def refuse_other_shards(
    directory: Path, output_dir: Path, request: Mapping[str, Any], discard: str = "--overwrite to discard it"
) -> None:
    """Refuse to go on with the shards that an interrupted run of another request left in `directory`.

    Args:
        directory: of the shards.
        output_dir: for the message.
        request: what is asked for now.
        discard: how to do without them, for the message.

    Raises:
        InputError: they are another's.
    """
    noted = directory / REQUEST
    refuse_other(
        output_dir,
        incoming.read_json(noted) if noted.is_file() else {},
        request,
        "holds an interrupted run",
        f"go on with its settings, give another output directory, or {discard}",
    )


def write_run(
    directory: str | os.PathLike,
    request: Mapping[str, Any],
    contents: Mapping[str, bytes],
    details: Mapping[str, Any],
    overwrite: bool = False,
    known: Iterable[str] = (),
    name: str = MANIFEST,
) -> dict[str, Any]:
    """Write files and, last, the manifest that lists them; return the manifest.

    A run that is cut short leaves no manifest, and the next one replaces what it left.

    Args:
        directory: output directory.
        request: as for `find_finished`.
        contents: file name to content.
        details: further keys of the manifest (counts, licence ...).
        overwrite: replace an earlier run, see `start_run`.
        known: all names that such a run may have, see `start_run`.
        name: as for `find_finished`.
    """
    start_run(directory, list(contents), overwrite, known, name)
    for file, content in contents.items():
        with files.atomic_path(Path(directory) / file) as temporary:
            temporary.write_bytes(content)
    return finish_run(directory, request, list(contents), details, name)


def start_run(
    directory: str | os.PathLike,
    names: Sequence[str],
    overwrite: bool = False,
    known: Iterable[str] = (),
    name: str = MANIFEST,
) -> None:
    """Prepare the directory for the files `names`, which the caller writes before `finish_run`; see `write_run`.

    Args:
        directory: output directory.
        names: files to be written.
        overwrite: replace an earlier run. Of the files that its manifest lists, those go that have not changed since
            and are of this kind: among `known`, or called as one of `names` up to the first dot or a number before
            it, such as `train.fr` where this one writes `train.de`. All others stay.
        known: all names that such a run may have.
        name: as for `find_finished`.

    Raises:
        InputError: as `claim`.
    """
    directory = claim(directory, names, overwrite, name)
    older = _older_files(directory, names, known, name) if overwrite else []
    older += _left_parts(directory, names, name)
    files.write_json_atomic(directory / _started(name), sorted({*names, *(path.name for path in older)}))
    (directory / name).unlink(missing_ok=True)
    for path in older:
        path.unlink(missing_ok=True)
    if older:  # killed before, it leaves a note by which the rest of them is known
        files.write_json_atomic(directory / _started(name), sorted(names))


def finish_run(
    directory: str | os.PathLike,
    request: Mapping[str, Any],
    names: Sequence[str],
    details: Mapping[str, Any],
    name: str = MANIFEST,
) -> dict[str, Any]:
    """Write the manifest that lists the files `names`, which are there; return it."""
    directory = Path(directory)
    hashes = {each: {"sha256": files.sha256(directory / each)} for each in names}
    manifest = {"request": dict(request), **details, "files": hashes}
    files.write_json_atomic(directory / name, manifest)
    (directory / _started(name)).unlink(missing_ok=True)
    return manifest


def listed_files(directory: str | os.PathLike) -> list[str] | None:
    """Return the names of the files that the manifest of a directory lists; None where it has no manifest.

    Raises:
        InputError: it is another tool's.
    """
    path = Path(directory) / MANIFEST
    return list(_read_ours(path)["files"]) if os.path.lexists(path) else None


def noted_hashes(directory: str | os.PathLike, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the hashes that the manifest of a directory lists for some files; None where it has no manifest.

    Raises:
        InputError: it does not list them.
    """
    path = Path(directory) / MANIFEST
    if not os.path.lexists(path):
        return None
    listed = _read_ours(path)["files"]
    if not set(names) <= listed.keys():
        raise InputError(f"'{path}' does not list {' and '.join(names)}; make them again, or give another directory")
    return tuple(listed[name]["sha256"] for name in names)


def noted_request(directory: str | os.PathLike) -> dict[str, Any]:
    """Return the request that the manifest of a directory notes; an empty one where it has no manifest.

    Raises:
        InputError: it is another tool's.
    """
    path = Path(directory) / MANIFEST
    return _read_ours(path)["request"] if os.path.lexists(path) else {}


def is_unfinished(directory: str | os.PathLike) -> bool:
    """Return whether a run was cut short while it wrote into the directory."""
    return (Path(directory) / _STARTED).is_file() and not (Path(directory) / MANIFEST).is_file()


def claim(directory: str | os.PathLike, names: Iterable[str], overwrite: bool = False, name: str = MANIFEST) -> Path:
    """Make the output directory; refuse one in which something else than an earlier run would be replaced.

    Args:
        directory: output directory.
        names: files to be written. Those that are there must be of an interrupted run, as it noted; with `overwrite`
            they may be of a finished one, as its manifest lists.
        overwrite: replace an earlier run.
        name: as for `find_finished`.

    Raises:
        InputError: it holds another run and `overwrite` is False, the manifest of another tool, or files of these
            names that do not prove to be of an earlier run.
    """
    directory = files.prepare_output_dir(directory, overwrite, holds=[name])
    ours = _left_names(directory, name)
    if os.path.lexists(directory / name):
        ours |= _read_ours(directory / name)["files"].keys()
    foreign = sorted(each for each in set(names) - ours if os.path.lexists(directory / each))
    if foreign:
        raise InputError(
            f"'{directory / foreign[0]}' does not prove to be of an earlier run, so it stays; move it away, or give "
            "another output"
        )
    return directory


def refuse_inputs_as_outputs(inputs: Iterable[str | os.PathLike], outputs: Iterable[str | os.PathLike]) -> None:
    """Refuse an output that would replace what it is made from.

    Args:
        inputs: files.
        outputs: files, and directories whose files are all written anew.

    Raises:
        InputError: an input is an output, or lies in one.
    """
    taken = {Path(os.path.realpath(path)) for path in outputs}
    for path in inputs:
        found = Path(os.path.realpath(path))
        if taken & {found, *found.parents}:
            raise InputError(f"'{path}' is an input, and would be replaced by the output; give another output")


def _left_names(directory: Path, name: str) -> set[str]:
    """Return the names of the files that an interrupted run noted."""
    started = directory / _started(name)
    if not os.path.lexists(started):
        return set()
    if started.is_symlink():
        raise InputError(f"'{started}' is a link, no note of a run; remove it")
    found = incoming.read_json(started)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InputError(f"'{started}' is no note of a run; remove it")
    return set(found)


def _started(name: str) -> str:
    """Return the name of the note of a run that has not yet written the manifest `name`."""
    return _STARTED if name == MANIFEST else f".{name.removesuffix('.json')}{_STARTED}"


def _older_files(directory: Path, names: Sequence[str], known: Iterable[str], manifest: str) -> list[Path]:
    """Return the files of the run to be replaced that this one does not write and that prove to be of its kind.

    A manifest may come from elsewhere and list a user's files.
    """
    if not os.path.lexists(directory / manifest):
        return []
    kinds, known, older = {unnumbered(name).partition(".")[0] for name in names}, set(known), []
    for name, entry in _read_ours(directory / manifest)["files"].items():
        path = directory / name
        of_this_kind = name in known or unnumbered(name).partition(".")[0] in kinds
        if name in names or "/" in name or not of_this_kind or path.is_symlink():
            continue
        if path.is_file() and files.sha256(path) == entry["sha256"]:
            older.append(path)
    return older


def _left_parts(directory: Path, names: Sequence[str], manifest: str) -> list[Path]:
    """Return the files that an interrupted run wrote with other numbers than this one, or compressed otherwise."""
    bases = set(map(base_name, names))
    left = (each for each in _left_names(directory, manifest) - set(names) if base_name(each) in bases)
    paths = [directory / each for each in sorted(left) if "/" not in each]
    return [path for path in paths if path.is_file() and not path.is_symlink()]
