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
"""Opening archives: what is no model is said so, and nothing of the process is changed by it."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils.app_state import AppState
from omegaconf import OmegaConf

from nemo_distill.archives.restore import read_archive_config, restore_model, unchanged_restore_state
from nemo_distill.errors import InputError


def write_tar(path: Path, **members: bytes) -> Path:
    """Write a tar of the members; `__` in a name stands for a full stop."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def weights() -> bytes:
    buffer = io.BytesIO()
    torch.save({}, buffer)
    return buffer.getvalue()


def test_opens_a_model_for_inference(tiny_teacher_path):
    model = restore_model(tiny_teacher_path)
    assert type(model) is MTEncDecModel
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert "train_ds" not in model.cfg
    stock = MTEncDecModel.restore_from(str(tiny_teacher_path)).state_dict()
    assert stock.keys() == model.state_dict().keys()
    assert all(torch.equal(stock[name], tensor) for name, tensor in model.state_dict().items())


def test_reads_the_configuration(tiny_teacher_path):
    config = read_archive_config(tiny_teacher_path)
    assert config.encoder.hidden_size == 32
    assert config.target.endswith("MTEncDecModel")


def test_random_states_are_left_alone(tiny_teacher_path):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    restore_model(tiny_teacher_path)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no.nemo' does not exist; give the path of a .nemo file"):
        restore_model(tmp_path / "no.nemo")


def test_directory(tmp_path):
    with pytest.raises(InputError, match=r"is a directory; give the path of a .nemo file"):
        restore_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, random.Random(1).randbytes(20000)])
def test_not_a_tar(tmp_path, content):
    path = tmp_path / "bad.nemo"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad.nemo is not a .nemo model: no tar archive. Give a file written by"):
        restore_model(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_archive(tiny_teacher_path, tmp_path, share):
    content = tiny_teacher_path.read_bytes()
    path = tmp_path / "cut.nemo"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut.nemo (is not a .nemo model|could not be opened)"):
        restore_model(path)


def test_damaged_compressed_archive(tiny_teacher_path, tmp_path):
    packed = bytearray(gzip.compress(tiny_teacher_path.read_bytes()))
    path = tmp_path / "bad.nemo"
    path.write_bytes(packed)
    assert isinstance(restore_model(path), MTEncDecModel)  # NeMo wrote compressed archives once
    packed[len(packed) // 2 : len(packed) // 2 + 50] = bytes(50)
    path.write_bytes(packed)
    with pytest.raises(InputError, match=r"bad.nemo (is not a .nemo model|could not be opened)"):
        restore_model(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"model_weights__ckpt": b"x"}, "it holds no model_config.yaml"),
        ({"model_config__yaml": b"a: 1"}, "it holds no model_weights.ckpt"),
        ({"readme__txt": b"hello"}, "it holds no model_config.yaml and no model_weights.ckpt"),
        ({"model_weights__ckpt": b"x", "model_config__yaml": b"a: [1, 2"}, "is not a .nemo model"),
        ({"model_weights__ckpt": b"x", "model_config__yaml": b"\xff\xfe"}, "is not a .nemo model"),
        ({"model_weights__ckpt": b"x", "model_config__yaml": b"- 1\n- 2\n"}, "its model_config.yaml is not a mapping"),
    ],
)
def test_a_tar_of_something_else(tmp_path, members, message):
    with pytest.raises(InputError, match=message):
        restore_model(write_tar(tmp_path / "other.nemo", **members))


def test_another_kind_of_model(tmp_path):
    config = b"target: nemo.collections.nlp.models.TextClassificationModel\n"
    path = write_tar(tmp_path / "other.nemo", model_config__yaml=config, model_weights__ckpt=weights())
    with pytest.raises(InputError, match=r"other.nemo is refused: .*target is '.*TextClassificationModel', which"):
        restore_model(path)


def test_a_failure_leaves_no_trace_for_the_next_model(tmp_path, tiny_tokenizer, tiny_model_config):
    """NeMo leaves its flag set after a failure, and the next model then silently gets no data."""
    cut = tmp_path / "cut.nemo"
    config = OmegaConf.to_yaml(tiny_model_config()).replace(str(tiny_tokenizer), "nemo:t.model")
    members = {"model_config__yaml": config.encode(), "t__model": tiny_tokenizer.read_bytes()}
    write_tar(cut, **members, model_weights__ckpt=weights())
    directory = Path.cwd()
    with pytest.raises(InputError, match="could not be opened"):
        restore_model(cut, trust=True)
    assert not AppState().is_model_being_restored
    assert Path.cwd() == directory
    model = MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, data=True))
    assert len(model._train_dl) > 0
    assert len(model._validation_dl) > 0


def test_flags_of_a_surrounding_restore_survive(tiny_teacher_path):
    """Opening a teacher while a student is being restored must not make the student read its data."""
    state = AppState()
    before = state.is_model_being_restored, state.nemo_file_folder
    try:
        state.is_model_being_restored, state.nemo_file_folder = True, "somewhere"
        restore_model(tiny_teacher_path)
        assert (state.is_model_being_restored, state.nemo_file_folder) == (True, "somewhere")
        with pytest.raises(KeyError), unchanged_restore_state():
            state.is_model_being_restored = False
            raise KeyError
        assert state.is_model_being_restored
    finally:
        state.is_model_being_restored, state.nemo_file_folder = before
