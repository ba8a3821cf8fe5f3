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
"""Archives by name: the translation models of NVIDIA's catalog NGC, fetched once into NeMo's own cache.

The place is that of `MTEncDecModel.from_pretrained`, so what stock NeMo has fetched is used, and so is what somebody
has put there by hand. Beside each archive lies its SHA-256, in the words of `sha256sum`, which every use compares.
"""

import contextlib
import difflib
import errno
import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_distill.archives.reader import ArchiveLimits, archive_sha256, open_archive, read_parts
from nemo_distill.config.reading import inner_section
from nemo_distill.errors import ArchiveError
from nemo_distill.support.files import atomic_path, make_directory, reported_storage, write_text_atomic
from nemo_distill.support.incoming import read_bytes
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import plain_text

CATALOG = "https://api.ngc.nvidia.com"
URL_VARIABLE = "NEMO_DISTILL_NGC_URL"
"""Of a mirror, in place of `CATALOG`, with the same paths below it."""
_SECONDS, _BLOCK_BYTES = 15, 1 << 20
"""Until a server that says nothing is given up; of one read."""


def is_path(given: str) -> bool:
    """Return whether an archive is given by its path, not by a name: a file of that name wins."""
    return os.path.lexists(given) or "/" in given or given.endswith(".nemo")


def check_archive(given: str) -> None:
    """Look whether an archive that is given by its path is there to be read; a name is for `find_archive`.

    Raises:
        ArchiveError: as `open_archive`.
    """
    if is_path(given):
        with open_archive(Path(given)):
            pass


def find_archive(given: str) -> str:
    """Return the path of an archive that is given by its path or by a name of NGC; of both, the file wins.

    Args:
        given: what has a `/`, or ends in `.nemo`, is a path.

    Raises:
        ArchiveError: it is neither a file nor a name, or as `fetch_archive`.
        StorageError: no room in the cache.
    """
    if is_path(given):
        return given
    if given not in (names := known_names()):
        near = difflib.get_close_matches(given[:100], names, n=3) or names
        raise ArchiveError(
            f"{plain_text(given)!r} is neither a file nor the name of a translation model on NGC; give the path of a "
            f".nemo file, or {' or '.join(near)}"
        )
    return str(fetch_archive(given))


def find_teachers(model: Mapping[str, Any]) -> None:
    """Put paths in the place of names in a `model` section that nobody has checked, in place, and fetch what it names.

    Raises:
        ArchiveError: as `find_archive`; the message has the key.
    """
    teacher = inner_section(model, "distillation", "teacher")
    for where, section, key in (
        ("teacher", teacher, "model_path"),
        ("init", inner_section(model, "distillation", "init"), "from_nemo"),
    ):
        value = section.get(key)
        with _naming(f"distillation.{where}.{key}"):
            if isinstance(value, str) and value.strip():
                section[key] = find_archive(value)
            elif isinstance(value, list) and all(isinstance(each, str) and each.strip() for each in value):
                section[key] = [find_archive(each) for each in value]
    name = teacher.get("model_name")
    if (
        name is not None
        and name in known_names()
        and (not teacher.get("cache") or teacher.get("on_miss") == "teacher")
    ):
        with _naming("distillation.teacher.model_name"):
            fetch_archive(name)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{where}: {error}") from error


def known_names() -> list[str]:
    """Return the names of the translation models on NGC, as this release of NeMo lists them."""
    return [info.pretrained_model_name for info in _listed()]


def _listed() -> list[Any]:
    from nemo.collections.nlp.models import MTEncDecModel  # takes seconds, and a path does not need it

    return MTEncDecModel.list_available_models()


def cache_path(name: str) -> Path:
    """Return where NeMo keeps a model of NGC, whether or not it is there."""
    from nemo.utils.model_utils import resolve_cache_dir

    (info,) = [each for each in _listed() if each.pretrained_model_name == name]
    file_name = info.location.rsplit("/", 1)[1]
    version = hashlib.md5((info.location + info.description).encode(), usedforsecurity=False).hexdigest()
    return Path(resolve_cache_dir(), file_name.removesuffix(".nemo"), version, file_name)


def fetch_archive(name: str) -> Path:
    """Return the path of a model of NGC in NeMo's cache, after fetching it if it is not there.

    Args:
        name: one of `known_names`.

    Raises:
        ArchiveError: it cannot be fetched; the message names the file to fetch and the place to put it. Or it is not
            what it was when its SHA-256 was noted.
        StorageError: no room in the cache.
    """
    path = cache_path(name)
    noted = path.with_name(f"{path.name}.sha256")
    with reported_storage(path), _one_at_a_time(path):
        if not path.exists():
            _fetch(name, path)
        if not os.path.lexists(noted):
            read_parts(path, weights=False)  # fetched by NeMo, or put there by hand
            _note(noted, archive_sha256(path))
            return path
    (wanted, *_) = read_bytes(noted, 1000, ArchiveError).decode("utf-8", "replace").split() or [""]
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise ArchiveError(f"'{noted}' is not what sha256sum writes; remove it, and the archive is read anew")
    if (found := archive_sha256(path)) != wanted:
        raise ArchiveError(
            f"'{path}' has the SHA-256 {found}, and had {wanted} when it was fetched; remove it and '{noted.name}' "
            "beside it to fetch it again"
        )
    return path


def _note(path: Path, digest: str) -> None:
    try:
        write_text_atomic(path, f"{digest}  {path.name.removesuffix('.sha256')}\n")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):  # a cache that others fill
            raise


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process fetch an archive while the others wait; where there are no locks, each fetches its own."""
    with contextlib.ExitStack() as stack:
        if not path.exists():
            make_directory(path.parent)
            lock = stack.enter_context(open(path.with_name(f".{path.name}.lock"), "wb"))
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _url(name: str) -> str:
    (location,) = [info.location for info in _listed() if info.pretrained_model_name == name]
    mirror = os.environ.get(URL_VARIABLE, "").rstrip("/")
    if not mirror:
        return location
    if urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
        raise ArchiveError(f"{URL_VARIABLE} is {plain_text(mirror)!r}; give the URL of a mirror, or unset it")
    return mirror + location.removeprefix(CATALOG)


def _fetch(name: str, path: Path) -> None:
    """Fetch an archive as a whole, or leave nothing."""
    url, limit = _url(name), ArchiveLimits.from_environment().total
    advice = f"Fetch {url} where there is a network and put it at {path}, or set {URL_VARIABLE} to the URL of a mirror"
    with contextlib.ExitStack() as stack:
        with _from_network(f"'{name}' could not be fetched", advice):
            response = stack.enter_context(urllib.request.urlopen(url, timeout=_SECONDS))
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise ConnectionError(f"it leads to {response.url}, which is not encrypted")
        partial = stack.enter_context(atomic_path(path))
        given = response.headers.get("Content-Length", "")
        size = int(given) if re.fullmatch(r"[0-9]{1,15}", given) else None
        file = stack.enter_context(open(partial, "wb"))
        bar = stack.enter_context(progress_bar(f"fetching {name}", size, "B"))
        block = b"."
        while block:
            with _from_network(f"'{name}' could not be fetched as a whole", advice):
                block = response.read(_BLOCK_BYTES)
                if bar.n + len(block) > limit:
                    raise ConnectionError(f"it has more than {limit} bytes")
                if not block and size not in (None, bar.n):
                    raise ConnectionError(f"{bar.n} of {size} bytes came")
            file.write(block)
            bar.update(len(block))
        file.close()
        try:
            read_parts(partial, weights=False)
        except ArchiveError as error:
            reason = str(error).replace(str(partial), url)
            raise ArchiveError(f"'{name}' could not be fetched: {reason}. {advice}") from error


@contextlib.contextmanager
def _from_network(what: str, advice: str) -> Iterator[None]:
    """Context of what a server does, whose every failure is one line."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:  # of the connection, of what is no HTTP
        reason = error.reason if type(error) is urllib.error.URLError else error
        shown = plain_text(" ".join(str(reason).split()) or type(reason).__name__, 200)
        raise ArchiveError(f"{what} ({shown}). {advice}") from error
