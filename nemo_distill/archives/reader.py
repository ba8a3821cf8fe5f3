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
"""Take a `.nemo` archive apart in memory: what is in it is checked before any of it is used, and nothing is unpacked.

A `.nemo` is a tar, plain or compressed with gzip, of one configuration, one weights file and the tokenizers.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nemo_distill.errors import ArchiveError
from nemo_distill.support.files import is_file_name
from nemo_distill.support.incoming import GZIP_FREE, GZIP_RATIO, CappedGzip, Hashing, TooLargeError, open_regular
from nemo_distill.support.quoting import plain_text

CONFIG_MEMBER = "model_config.yaml"
WEIGHTS_MEMBER = "model_weights.ckpt"
LIMIT_VARIABLE = "NEMO_DISTILL_MAX_ARCHIVE_GB"

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1 << 20
_TRUST: ContextVar[bool] = ContextVar("trust_archives", default=False)


@dataclass(frozen=True)
class ArchiveLimits:
    """How much of an archive is read before it is refused; sizes in bytes, uncompressed."""

    total: int = 16 << 30
    """All members together. The environment variable NEMO_DISTILL_MAX_ARCHIVE_GB sets another limit."""
    config: int = 256 << 10
    """The configuration; stock ones have some 5 KB."""
    artifact: int = 64 << 20
    """Any other member but the weights: a tokenizer model has some 100 KB to 1 MB."""
    members: int = 32
    """Number of members."""
    gzip_ratio: int = GZIP_RATIO
    """A compressed archive may be that many times as large when uncompressed, and `gzip_free` more."""
    gzip_free: int = GZIP_FREE
    """Weights compress to nine tenths; only small models, and bombs, to much less."""

    @classmethod
    def from_environment(cls) -> "ArchiveLimits":
        """Return the limits that hold in this process.

        Raises:
            ArchiveError: the environment variable is no number above 0.
        """
        given = os.environ.get(LIMIT_VARIABLE)
        if given is None:
            return cls()
        if not re.fullmatch(r"\d{1,6}(\.\d+)?", given) or float(given) == 0:
            raise ArchiveError(f"{LIMIT_VARIABLE} is '{given}'; give a number of GB above 0, such as 40")
        return cls(total=int(float(given) * (1 << 30)))


@dataclass
class ArchiveParts:
    """The members of an archive, none of them interpreted yet."""

    config: bytes
    weights: bytes | None = None
    """None where they were not asked for."""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    """Every other member by its name: tokenizers and vocabularies."""


@contextmanager
def trusted_archives(trust: bool = True) -> Iterator[None]:
    """Inside the block, archives are those of somebody who made them: they may name classes of their own.

    Example:
        >>> with trusted_archives():  # doctest: +SKIP
        ...     model = restore_model("mine.nemo")
    """
    token = _TRUST.set(trust)
    try:
        yield
    finally:
        _TRUST.reset(token)


def is_trusted(trust: bool | None) -> bool:
    """Return `trust`, or where it is None whether the code runs inside `trusted_archives`."""
    return _TRUST.get() if trust is None else trust


def read_parts(
    path: str | Path, weights: bool = True, sha256: str | None = None, limits: ArchiveLimits | None = None
) -> ArchiveParts:
    """Read the members of an archive into memory.

    Args:
        path: a `.nemo` file.
        weights: read the weights too; without them, a plain archive is not read as a whole.
        sha256: what the file must have, 64 hexadecimal digits.
        limits: by default those of the environment.

    Raises:
        ArchiveError: no such file, no whole tar, another SHA-256, a member that is no plain file at the top of the
            archive or comes twice, no configuration or no weights, or more than the limits allow.
    """
    path, limits = Path(os.path.expanduser(path)), limits or ArchiveLimits.from_environment()
    try:
        with open_archive(path) as raw:
            return _read_members(path, raw, weights, sha256, limits)
    except ArchiveError:
        raise
    except TooLargeError as error:
        raise _too_large(path) from error
    except Exception as error:  # of tarfile and of its decompressors, whatever the bytes
        raise _not_a_model(path, plain_text(f"{type(error).__name__}: {error}", 300)) from error


@contextmanager
def open_archive(path: Path) -> Iterator[BinaryIO]:
    """Open an archive for reading, whatever is in it.

    Raises:
        ArchiveError: it is missing, or no regular file.
    """
    if (path / "config.json").is_file() or (path / "export.json").is_file():
        raise ArchiveError(
            f"'{path}' is the directory of a model that is not NeMo's, or was exported: it teaches by labels alone "
            "(nemo-distill pseudo-label --teacher), and can be evaluated; give the path of a .nemo file here"
        )
    with open_regular(path, ArchiveError, "give the path of a .nemo file") as raw:
        yield raw


def archive_sha256(path: str | Path) -> str:
    """Return the SHA-256 of an archive, as `archive_digest`.

    Note it before an archive is used, and give it to each reading as `sha256`: so all of them read the same bytes.
    """
    return archive_digest(path)[0]


def archive_digest(path: str | Path) -> tuple[str, int]:
    """Return the SHA-256 of an archive, as 64 hexadecimal digits, and its bytes, without a look at what is in it.

    Raises:
        ArchiveError: no regular file, one that cannot be read, or larger than archives may be.
    """
    path, limits = Path(os.path.expanduser(path)), ArchiveLimits.from_environment()
    with open_archive(path) as raw:
        if os.fstat(raw.fileno()).st_size > limits.total:  # also a sparse file, which takes no room on the disk
            raise _too_large(path)
        stream, left = Hashing(raw), limits.total
        try:
            while block := stream.read(_BLOCK_BYTES):
                left -= len(block)
                if left < 0:  # it grows
                    raise _too_large(path)
        except OSError as error:
            raise ArchiveError(f"'{path}' cannot be read ({error.strerror}); check the disk") from error
    return stream.sha256(), limits.total - left


def _check_hash(path: Path, stream: Hashing, wanted: str) -> None:
    """Read what is left, and compare."""
    while stream.read(_BLOCK_BYTES):
        pass
    if stream.sha256() != wanted.lower():
        raise ArchiveError(
            f"{path} has the SHA-256 {stream.sha256()}, not {wanted.lower()}; fetch the file again, or correct the "
            "value"
        )


def _read_members(path: Path, raw: BinaryIO, weights: bool, sha256: str | None, limits: ArchiveLimits) -> ArchiveParts:
    size = os.fstat(raw.fileno()).st_size
    if size > limits.total:
        raise _too_large(path)
    packed = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    hashing = raw if sha256 is None else Hashing(raw)
    allowed = min(limits.total, limits.gzip_free + limits.gzip_ratio * size) if packed else limits.total
    source = CappedGzip(hashing, allowed + (1 << 20)) if packed else hashing  # and headers and padding of the tar
    found: dict[str, bytes | None] = {}
    left = allowed
    with _open_tar(path, source, packed or sha256 is not None) as archive:
        while (member := archive.next()) is not None:
            name = _plain_name(path, member)
            if name is None:
                continue
            if name in found:
                raise _refused(path, f"it holds '{name}' twice")
            if len(found) == limits.members:
                raise _refused(path, f"it holds more than {limits.members} members")
            left -= member.size
            _check_size(path, name, member.size, left, limits)
            if not packed and member.offset_data + member.size > size:
                raise _not_a_model(path, f"it ends inside '{name}'")
            wanted = weights or name != WEIGHTS_MEMBER
            found[name] = archive.extractfile(member).read() if wanted else None
            if wanted and len(found[name]) != member.size:
                raise _not_a_model(path, f"it ends inside '{name}'")
    if packed:
        source.drain()
    if sha256 is not None:
        _check_hash(path, hashing, sha256)
    missing = sorted({CONFIG_MEMBER, WEIGHTS_MEMBER} - set(found))
    if missing:
        raise ArchiveError(f"{path} is not a .nemo model: it holds no {' and no '.join(missing)}")
    return ArchiveParts(found.pop(CONFIG_MEMBER), found.pop(WEIGHTS_MEMBER), found)


def _open_tar(path: Path, source: Any, as_stream: bool) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=source, mode="r|" if as_stream else "r:")
    except tarfile.ReadError as error:
        raise _not_a_model(path, "no tar archive") from error


def _plain_name(path: Path, member: tarfile.TarInfo) -> str | None:
    """Return the name of a regular file at the top of the archive, None for the top itself."""
    shown = member.name if len(member.name) <= 80 else member.name[:80] + "..."
    name = member.name
    while name.startswith("./"):
        name = name[2:]
    if member.isdir() and name in ("", "."):
        return None
    if not member.isreg() or member.type == tarfile.CONTTYPE or member.issparse():
        raise _refused(path, f"its member {shown!r} is no regular file")
    if not is_file_name(name) or "\\" in name:
        raise _refused(path, f"its member {shown!r} is not a plain file name")
    if member.size < 0:
        raise _refused(path, f"its member {shown!r} has a negative size")
    return name


def _check_size(path: Path, name: str, size: int, left: int, limits: ArchiveLimits) -> None:
    if name == CONFIG_MEMBER and size > limits.config:
        raise _refused(path, f"its {name} has {size} bytes, and {limits.config} are allowed")
    if name not in (CONFIG_MEMBER, WEIGHTS_MEMBER) and size > limits.artifact:
        raise _refused(path, f"its member '{name}' has {size} bytes, and {limits.artifact} are allowed")
    if left < 0:
        raise _too_large(path)


def _too_large(path: Path) -> ArchiveError:
    return ArchiveError(
        f"{path} is refused: uncompressed it is larger than is allowed; if that is a model that you want, set "
        f"{LIMIT_VARIABLE} to the GB that may be read"
    )


def _refused(path: Path, reason: str) -> ArchiveError:
    return ArchiveError(f"{path} is refused: {reason}. Stock NeMo writes no such file; get it from another source")


def _not_a_model(path: Path, reason: str) -> ArchiveError:
    return ArchiveError(f"{path} is not a .nemo model: {reason}. Give a file written by `model.save_to`")
