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
"""Small archives that ask for much memory, time or disk: refused by what they hold, before anything is built."""

import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from damage import odd_files, rebuilt_archive, time_limit

from nemo_distill.archives.config import read_config
from nemo_distill.archives.reader import (
    CONFIG_MEMBER,
    LIMIT_VARIABLE,
    WEIGHTS_MEMBER,
    ArchiveParts,
    archive_digest,
    archive_sha256,
)
from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.decoding.exporting import export
from nemo_distill.errors import ArchiveError
from nemo_distill.support.files import sha256
from nemo_distill.training.stored import check_container


def refused(path: Path, message: str, trust: bool = False) -> None:
    """Make sure that an archive is refused soon and in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with time_limit(20), pytest.raises(ArchiveError, match=message):
        restore_model(path, trust=trust)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 19  # 512 MB in KB


def test_many_names_over_one_storage(tiny_teacher_path, tmp_path):
    def change(state: dict) -> None:
        whole = torch.zeros(1 << 20)
        state.update({f"encoder._encoder.layers.{number}.x": whole.view(1024, 1024) for number in range(1200)})

    path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=change)
    refused(path, "layers.1.x' has elements in common with 'encoder._encoder.layers.0.x'|has elements in common")


def test_views_that_overlap(tiny_teacher_path, tmp_path):
    def change(state: dict) -> None:
        whole = torch.zeros(200)
        state["one"], state["two"] = whole[:150], whole[100:]

    refused(
        rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=change), "'two' has elements in common with"
    )

    def bend(state: dict) -> None:
        state["one"] = torch.zeros(200).as_strided((10, 10), (1, 1))

    refused(
        rebuilt_archive(tiny_teacher_path, tmp_path / "b.nemo", weights=bend), "'one' has elements in common with its"
    )


def test_views_with_elements_of_their_own_open(tiny_teacher_path, tmp_path):
    """As of an optimizer that keeps all weights in one buffer."""

    def change(state: dict) -> None:
        own = [name for name in state if "layers" in name]
        whole, place = torch.cat([state[name].flatten() for name in own]), 0
        for name in own:
            size = state[name].numel()
            state[name] = whole[place : place + size].view(state[name].shape)
            place += size

    path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=change)
    stock, model = restore_model(tiny_teacher_path), restore_model(path)
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("layers", [3, 1024, 10**6])
def test_layers_that_are_not_there(layers, tiny_teacher_path, tmp_path):
    """One large tensor would fill the sizes of very many small layers."""
    path = rebuilt_archive(
        tiny_teacher_path,
        tmp_path / "a.nemo",
        config=lambda section: section["encoder"].update(num_layers=layers),
        weights=lambda state: state.update(more=torch.zeros(1 << 24)),
    )
    refused(path, f"describes {layers} layers of the encoder, and weights of 2 are|num_layers is {layers}; a whole")


class Bomb:
    """A call that a pickle asks for."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _of_a_pickle(content: object | bytes) -> bytes:
    """Return a file as `torch.save` writes it, of a pickle without tensors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("archive/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, 2))
        packed.writestr("archive/version", "3\n")
        packed.writestr("archive/byteorder", "little")
    return buffer.getvalue()


# {"a": the empty tuple}, then each time the pair of what there was before; as a key, its hash takes for ever.
_NAME = b"X\x01\x00\x00\x00a"
_PAIRS = b"".join(_NAME + b"h%ch%c\x86q%cs" % (each, each, each + 1) for each in range(60))
_NEST = b"\x80\x02}" + _NAME + b")q\x00s" + _PAIRS + b"h\x3cK\x01s."


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        OrderedDict(w=Bomb(bytearray, 1 << 36)),
        OrderedDict(w=Bomb(torch.FloatTensor, 1 << 17, 1 << 17)),
        OrderedDict(w=Bomb(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (1 << 40,), (1,), False)),
        _NEST,
        b"\x80\x02]" + b"I1\na" * (6 << 20) + b".",
        b"\x80\x02" + b"}" * (8 << 20) + b".",
        b"\x80\x02]" + b"]a" * 1000 + b".",
    ],
    ids=["bytes", "tensor", "meta", "nested", "long", "dictionaries", "lists"],
)
def test_pickles_that_ask_for_more(content, trust, tiny_teacher_path, tmp_path):
    path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=_of_a_pickle(content))
    refused(path, "is no file of plain tensors", trust)


def _zip_with(stock: bytes, more: dict[str, bytes], other: dict[str, str] | None = None) -> bytes:
    """Return a ZIP of weights with more entries in front, or with others' names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(stock)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name, content in more.items():
            new.writestr(name, content)
        for entry in old.infolist():
            new.writestr((other or {}).get(entry.filename, entry.filename), old.read(entry))
    return buffer.getvalue()


def _with_two_lists(good: bytes, evil: bytes) -> bytes:
    """Return a file in which Python finds one ZIP, by its size, and torch another, by the place that the end names."""
    start = int.from_bytes(evil[-6:-2], "little")
    end = bytearray(good[-22:])
    end[8:12], end[16:20] = evil[-14:-10], start.to_bytes(4, "little")
    return evil[:-22] + good[:-22] + bytes(end)


_BYTES = b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", 2_000_000_000) + b"\x85R."


@pytest.mark.parametrize("kind", ["upper case", "also upper case", "elsewhere", "script", "two lists", "comment"])
def test_a_pickle_that_only_torch_finds(kind, stock_weights, tiny_teacher_path, tmp_path):
    (pickled,) = (name for name in zipfile.ZipFile(io.BytesIO(stock_weights)).namelist() if name.endswith("data.pkl"))
    upper = pickled.replace("data.pkl", "DATA.PKL")
    good = _zip_with(stock_weights, {})
    evil = {
        "upper case": lambda: _zip_with(stock_weights, {upper: _BYTES}, {pickled: "x/other"}),
        "also upper case": lambda: _zip_with(stock_weights, {upper: _BYTES}),
        "elsewhere": lambda: _zip_with(stock_weights, {"x/data.pkl": _BYTES}),
        "script": lambda: _zip_with(stock_weights, {"x/constants.PKL": _BYTES}),
        "two lists": lambda: _with_two_lists(good, _of_a_pickle(_BYTES)),
        "comment": lambda: good[:-2] + b"\x01\0x",
    }[kind]()
    refused(rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=evil), "is no file of plain tensors")
    checkpoint = tmp_path / "a.ckpt"
    checkpoint.write_bytes(evil)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        check_container(checkpoint)


@pytest.fixture(scope="module")
def stock_weights(tiny_teacher_path) -> bytes:
    with tarfile.open(tiny_teacher_path) as archive:
        return next(archive.extractfile(each).read() for each in archive if each.name.endswith(WEIGHTS_MEMBER))


def test_zips_of_torch_and_of_python_are_read(stock_weights, tiny_teacher_path, tmp_path):
    assert stock_weights[-42:-38] == b"PK\6\7"  # torch writes the records of a large ZIP; Python writes none
    again = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=_zip_with(stock_weights, {}))
    restore_model(again)


@pytest.mark.parametrize("trust", [False, True])
def test_nested_interpolations(trust, tiny_teacher_path, tmp_path):
    for text in ("${" * 60_000, "${" * 30_000 + "a" + "}" * 30_000):
        for key in ("x", "src_language"):
            change = {key: text}
            path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", config=lambda section: section | change)  # noqa: B023
            with time_limit(8):
                if key == "x" and not trust:  # not read
                    assert key not in read_archive_config(path, trust)
                    continue
                with pytest.raises(ArchiveError, match="src_language is an interpolation|interpolations have"):
                    read_archive_config(path, trust)


def test_a_sparse_file_is_not_hashed_for_hours(tmp_path, monkeypatch):
    path = tmp_path / "sparse.nemo"
    path.touch()
    os.truncate(path, 2 << 40)
    for read in (archive_sha256, read_archive_config, lambda path: export(path, tmp_path / "out")):
        with (
            time_limit(10),
            pytest.raises(ArchiveError, match="sparse.nemo' is a sparse file"),
        ):
            read(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "0.001")
    os.truncate(path, 2 << 20)
    with pytest.raises(ArchiveError, match="is larger than is allowed"):
        archive_sha256(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sparse.nemo"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop", "missing"])
def test_odd_files_are_not_hashed(kind, tmp_path):
    path = odd_files(tmp_path / "odd")[kind]
    with time_limit(10), pytest.raises(ArchiveError, match=kind):
        archive_sha256(path)


def test_the_hash_of_an_archive(tiny_teacher_path):
    assert archive_sha256(tiny_teacher_path) == sha256(tiny_teacher_path)
    assert archive_digest(tiny_teacher_path) == (sha256(tiny_teacher_path), tiny_teacher_path.stat().st_size)


def test_a_number_that_python_does_not_write_out(tiny_teacher_path, tmp_path):
    path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", config=lambda section: section.update(beam_size=1))
    content = path.read_bytes()
    number = b"beam_size: 0x" + b"f" * 20000
    with pytest.raises(ArchiveError, match="is a number of 80000 bits; a whole number from 1 to 10000"):
        _checked(content, number)


def _checked(content: bytes, number: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        text = archive.extractfile(CONFIG_MEMBER).read()
    read_config("a.nemo", ArchiveParts(text.replace(b"beam_size: 1", number)), trust=False)
