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
"""Damage for tests: to bytes, to the values and types of JSON, to the disk.

`damaged_json` changes one place of a file that is otherwise right, which finds more than random bytes do.
"""

import contextlib
import fcntl
import io
import json
import os
import random
import resource
import signal
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

JSON_VALUES = [None, True, -1, 0, 10**400, 1.5, "", "x", "\0", "../x", "a" * 5000, [], [[]], {}, {"a": 1}, [1, "a"]]


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError where the block takes longer."""

    def stop(*_):
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Return the bytes with some bits flipped, cut, doubled, or overwritten."""
    changed = bytearray(content)
    kind = generator.choice(("bits", "bits", "header", "cut", "zeros", "insert", "swap"))
    place = generator.randrange(len(changed))
    if kind == "cut":
        return bytes(changed[:place])
    if kind == "bits":
        for _ in range(generator.choice((1, 1, 3, 30))):
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    elif kind == "header":
        changed[generator.randrange(min(1024, len(changed)))] ^= 1 << generator.randrange(8)
    elif kind == "zeros":
        changed[place : place + 600] = bytes(len(changed[place : place + 600]))
    elif kind == "insert":
        changed[place:place] = generator.randbytes(generator.choice((1, 512)))
    else:
        other = generator.randrange(len(changed))
        one, two = bytes(changed[place : place + 512]), bytes(changed[other : other + 512])
        changed[place : place + 512], changed[other : other + 512] = two, one
    return bytes(changed)


def damaged_json(content: Any, generator: random.Random) -> Any:
    """Return plain data with one place of it replaced, removed or renamed."""
    content = json.loads(json.dumps(content))
    holder, key = None, None
    node = content
    while isinstance(node, (dict, list)) and node and (holder is None or generator.random() < 0.8):
        holder, key = node, generator.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = holder[key]
    if holder is None or generator.random() < 0.05:
        return generator.choice(JSON_VALUES)
    if generator.random() < 0.3:
        del holder[key]
    else:
        holder[key] = generator.choice(JSON_VALUES)
    return content


def write_damaged_json(path: Path, content: Any, generator: random.Random) -> None:
    """Write damaged JSON, or damaged bytes of the right JSON."""
    if generator.random() < 0.2:
        path.write_bytes(generator.choice([b"[" * 100_000, b"", b"\xff\xfe", b'{"a": NaN}', b"9" * 5000]))
    elif generator.random() < 0.3:
        path.write_bytes(damaged(json.dumps(content).encode(), generator))
    else:
        path.write_text(json.dumps(damaged_json(content, generator)), encoding="utf-8")


def rebuilt_archive(
    source: Path,
    path: Path,
    config: Callable[[dict], Any] | None = None,
    weights: Callable[[dict], Any] | bytes | None = None,
) -> Path:
    """Write the archive `source` again with its configuration and its state dict changed.

    Args:
        source: a `.nemo` archive.
        path: of the new one.
        config: changes the configuration in place, or returns another.
        weights: changes the state dict in place, or returns another; or the bytes of the file.
    """
    import torch
    import yaml

    with tarfile.open(source) as archive:
        members = {Path(each.name).name: archive.extractfile(each).read() for each in archive if each.isfile()}
    if config is not None:
        section = yaml.safe_load(members["model_config.yaml"])
        changed = config(section)
        members["model_config.yaml"] = yaml.safe_dump(section if changed is None else changed).encode()
    if callable(weights):
        state = torch.load(io.BytesIO(members["model_weights.ckpt"]), weights_only=True)
        changed, buffer = weights(state), io.BytesIO()
        torch.save(state if changed is None else changed, buffer)
        weights = buffer.getvalue()
    members["model_weights.ckpt"] = members["model_weights.ckpt"] if weights is None else weights
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def contents(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory by name, not those below it."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def tree(directory: Path) -> dict[str, bytes]:
    """Return all files below a directory."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes in the block: writing fails as on a full disk (EFBIG for ENOSPC).

    What goes to standard output and error may go on: where these are files, it is written there at the end.
    """
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.ExitStack() as stack:
        for descriptor in (1, 2):
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                stack.enter_context(_through_a_pipe(descriptor))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)


@contextlib.contextmanager
def _through_a_pipe(descriptor: int) -> Iterator[None]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    kept = os.dup(descriptor)
    os.dup2(writer, descriptor)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):  # a child process has it too
            while block := os.read(reader, 1 << 16):
                os.write(descriptor, block)
        os.close(reader)


def odd_files(directory: Path) -> dict[str, Path]:
    """Make what may lie in the place of a file: a FIFO, a directory, a device, links to nothing and to themselves."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {kind: directory / kind for kind in ("fifo", "directory", "device", "dangling", "loop", "missing")}
    os.mkfifo(paths["fifo"])
    paths["directory"].mkdir()
    paths["device"].symlink_to("/dev/zero")
    paths["dangling"].symlink_to(directory / "nothing")
    paths["loop"].symlink_to(paths["loop"])
    return paths
