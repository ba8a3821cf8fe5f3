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
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from damage import odd_files, rebuilt_archive, time_limit

from nemo_distill.archives.reader import LIMIT_VARIABLE, archive_sha256
from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.decoding.exporting import export
from nemo_distill.errors import ArchiveError
from nemo_distill.support.files import sha256


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
    ],
    ids=["bytes", "tensor", "meta", "nested", "long"],
)
def test_pickles_that_ask_for_more(content, trust, tiny_teacher_path, tmp_path):
    path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", weights=_of_a_pickle(content))
    refused(path, "is no file of plain tensors", trust)


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


def test_a_number_that_python_does_not_write_out(tiny_teacher_path, tmp_path):
    path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", config=lambda section: section.update(beam_size=1))
    content = path.read_bytes()
    number = b"beam_size: 0x" + b"f" * 20000
    with pytest.raises(ArchiveError, match="is a number of 80000 bits; a whole number from 1 to 10000"):
        _checked(content, number)


def _checked(content: bytes, number: bytes) -> None:
    import tarfile

    from nemo_distill.archives.config import read_config
    from nemo_distill.archives.reader import CONFIG_MEMBER

    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        text = archive.extractfile(CONFIG_MEMBER).read()
    read_config("a.nemo", text.replace(b"beam_size: 1", number), trust=False)
