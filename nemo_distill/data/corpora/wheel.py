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
"""A wheel of strings: fetched once through pip, read from memory as it was checked, never installed or run.

A wheel is a zip from a network, so nothing that it says of itself is believed: sizes, names and counts have limits.
"""

import difflib
import hashlib
import importlib.machinery
import io
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming
from nemo_distill.support.isolated import module_command
from nemo_distill.support.lock import locked_file
from nemo_distill.support.temporary import TemporaryDirectory

PACKAGE = "homeassistant"
VERSION = "2026.11.0"
WHEEL_NAME = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
WHEEL_SHA256 = "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"

_MEMBER = re.compile(rf"{PACKAGE}/components/([^/]+)/translations/([^/]+)\.json")
_DOWNLOAD = ("download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", f"{PACKAGE}=={VERSION}")
# Several times what the pinned wheel has: 68 MB, 58,144 members, 0.3 MB of strings in one of them.
_WHEEL_BYTES, _MOST_MEMBERS, _MEMBER_BYTES = 256 << 20, 250_000, 4 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_ENTRY = b"PK\x01\x02"  # begins each entry of a zip's directory
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, zlib.error)


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/nemo_distill`, or `~/.cache/nemo_distill`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemo_distill"


class Wheel:
    """The strings of a wheel.

    Args:
        path: of the wheel.
        sha256: what it must have; what is read here is what was hashed.

    Raises:
        InputError: it is missing, another file, or no zip within the limits.
    """

    def __init__(self, path: str | os.PathLike, sha256: str) -> None:
        self.path = Path(path)
        content = incoming.read_bytes(path, _WHEEL_BYTES)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise InputError(
                f"'{path}' has SHA-256 {found}, not {sha256}: it is damaged or another file; remove it and run the "
                "command again, which fetches it anew"
            )
        try:
            if content.count(_ZIP_ENTRY) > _MOST_MEMBERS:
                raise ValueError(f"more than {_MOST_MEMBERS} members")
            members = zipfile.ZipFile(io.BytesIO(content))
        except _ZIP_ERRORS as error:
            raise self._damaged(error) from error
        self._archive, self._members = members, {}
        for member in members.infolist():
            match = _MEMBER.fullmatch(member.filename)
            if match and (match[2], match[1]) in self._members:
                raise self._damaged(f"it holds {member.filename[:200]!r} twice")
            if match:
                self._members[match[2], match[1]] = member

    def languages(self) -> list[str]:
        """Return the language codes, sorted (`['af', 'ar', ... 'zh-Hant']`)."""
        return sorted({language for language, _ in self._members})

    def strings(self, language: str) -> dict[str, dict[str, str]]:
        """Return component name to (key path to string) of one language.

        Raises:
            InputError: the wheel has no such language; names the nearest codes. Or it is damaged.
        """
        chosen = [(component, member) for (code, component), member in self._members.items() if code == language]
        found = {component: self._read(member) for component, member in sorted(chosen, key=lambda each: each[0])}
        if not found:
            raise InputError(f"language {language!r} is not in this corpus; {_nearest(language, self.languages())}")
        return found

    def _read(self, member: zipfile.ZipInfo) -> dict[str, str]:
        try:
            if member.file_size > _MEMBER_BYTES or member.compress_type not in _METHODS:
                raise ValueError(f"{member.file_size} bytes of method {member.compress_type}")
            with self._archive.open(member) as stream:
                texts = dict(_flatten(incoming.parse_json(stream.read(_MEMBER_BYTES + 1))))
            "".join(texts.values()).encode()  # a lone surrogate is no text
            return texts
        except _ZIP_ERRORS as error:
            raise self._damaged(f"{member.filename[:200]!r}: {error}") from error

    def _damaged(self, reason: object) -> InputError:
        return InputError(f"'{self.path}' cannot be read as a wheel of strings ({reason}); give another one")


def fetch_wheel(cache_dir: str | os.PathLike | None = None, expected_sha256: str | None = None) -> Wheel:
    """Return the verified wheel, downloading it through pip unless the cache already holds it.

    The download goes to a temporary directory in the cache and is renamed once its hash is right, so an interrupted
    one leaves nothing that could be taken for the wheel.

    Args:
        cache_dir: where the wheel is kept; `default_cache_dir()` if None.
        expected_sha256: hash that the wheel must have; `WHEEL_SHA256` if None.

    Raises:
        InputError: the file has another hash, this Python has no pip, or another process is fetching it.
        ConnectionError: pip could not fetch the wheel; says how to bring it by hand.
    """
    expected_sha256 = expected_sha256 or WHEEL_SHA256
    directory = (Path(cache_dir) if cache_dir is not None else default_cache_dir()).absolute()
    path = directory / WHEEL_NAME
    if not os.path.lexists(path):
        with locked_file(path):
            files.prepare_output_dir(directory, overwrite=True)
            if not os.path.lexists(path):  # another process may have brought it
                _download(path, expected_sha256)
    return Wheel(path, expected_sha256)


def _download(path: Path, expected_sha256: str) -> None:
    if not _has_pip():
        raise InputError(f"'{sys.executable}' has no pip to fetch {WHEEL_NAME} with; run `python -m ensurepip`")
    with TemporaryDirectory(path.parent) as temporary:
        command = module_command("pip", *_DOWNLOAD, "--disable-pip-version-check", "--dest", str(temporary))
        environment = {"PIP_RESUME_RETRIES": "5", **os.environ}  # pip 25.1 and later; older ones ignore it
        status = subprocess.run(command, env=environment, check=False).returncode
        partial = temporary / WHEEL_NAME
        if status != 0 or not partial.is_file():
            raise ConnectionError(
                f"pip could not fetch {PACKAGE} {VERSION} (exit status {status}, its message is above); check the "
                f"network and the package index, or run `pip {' '.join(_DOWNLOAD)}` elsewhere and put the wheel "
                f"at '{path}'"
            )
        found = files.sha256(partial)
        if found != expected_sha256:
            raise InputError(
                f"what the package index gives as {WHEEL_NAME} has SHA-256 {found}, not {expected_sha256}, and was "
                "not kept; check the package index"
            )
        os.replace(partial, path)


def _has_pip() -> bool:
    """Return whether there is pip, elsewhere than in the current directory, see `module_command`."""
    here = os.path.realpath(os.curdir)
    elsewhere = [place for place in sys.path if place and os.path.realpath(place) != here]
    return importlib.machinery.PathFinder.find_spec("pip", elsewhere) is not None


def _flatten(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _flatten(child, f"{path}/{key}")
    elif isinstance(node, str):
        yield path, node


def _nearest(language: str, available: list[str]) -> str:
    """Say which codes are meant: those of the same main language first, then those spelt alike."""
    wanted = language.lower().replace("_", "-")
    related = [code for code in available if code.lower().split("-")[0] == wanted.split("-")[0]]
    nearest = related or difflib.get_close_matches(wanted, available, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}; " if nearest else ""
    return f"{hint}available: {', '.join(available)}"
