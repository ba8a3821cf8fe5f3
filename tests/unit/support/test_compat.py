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
"""Models, archives and errors are the same on both lines of NeMo."""

import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.package_info import __version__ as nemo_version
from omegaconf import OmegaConf, open_dict

from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.data import tokenizer
from nemo_distill.errors import InputError
from nemo_distill.support import compat


@pytest.fixture(scope="module")
def sentencepiece_model(tiny_corpus, tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("sentencepiece")
    texts = [tiny_corpus / f"train.{language}" for language in ("de", "en")]
    tokenizer.train(texts, 120, directory / "t", library="sentencepiece")
    return str(directory / "t" / tokenizer.MODEL)


def packed_with(config: dict, archive: Path, target: Path) -> Path:
    """Pack an archive anew, with changes to its configuration."""
    directory = target.with_suffix("")
    with tarfile.open(archive) as packed:
        packed.extractall(directory)
    stored = OmegaConf.load(directory / "model_config.yaml")
    OmegaConf.save(OmegaConf.merge(stored, config), directory / "model_config.yaml")
    with tarfile.open(target, "w") as packed:
        packed.add(directory, ".")
    return target


def test_the_line_is_that_of_nemo():
    assert nemo_version.startswith("2.") == compat.NEMO_2


def test_default_tokenizer_is_that_of_nemo(tiny_model_config):
    config = tiny_model_config(hidden_size=16, num_layers=1)
    with open_dict(config):
        del config.encoder_tokenizer.library, config.decoder_tokenizer.library
    assert MTEncDecModel(config).encoder_tokenizer_library == compat.DEFAULT_TOKENIZER_LIBRARY


@pytest.mark.parametrize("version", ["1.23.0", "2.4.1"])
def test_archives_of_both_lines_open(version, sentencepiece_model, tiny_model_config, tiny_sources, tmp_path):
    """With SentencePiece they differ in this one line."""
    sections = {
        f"{side}_tokenizer.{key}": value
        for side in ("encoder", "decoder")
        for key, value in (("library", "sentencepiece"), ("tokenizer_model", sentencepiece_model))
    }
    torch.manual_seed(0)
    model = MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, **sections)).eval()
    model.save_to(str(tmp_path / "model.nemo"))
    assert read_archive_config(tmp_path / "model.nemo").nemo_version == nemo_version
    path = packed_with({"nemo_version": version}, tmp_path / "model.nemo", tmp_path / "other.nemo")
    opened = restore_model(path)
    assert all(torch.equal(opened.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    ids = opened.encoder_tokenizer.text_to_ids(tiny_sources[0])
    assert ids == model.encoder_tokenizer.text_to_ids(tiny_sources[0])
    assert opened.encoder_tokenizer.ids_to_text(ids) == tiny_sources[0]
    assert type(MTEncDecModel.restore_from(str(path))) is MTEncDecModel


def test_a_youtokentome_archive_with_nemo_2(tiny_teacher_path, tmp_path, monkeypatch):
    path = packed_with({"encoder_tokenizer": {"library": "yttm"}}, tiny_teacher_path, tmp_path / "yttm.nemo")
    monkeypatch.setattr(compat, "TOKENIZER_LIBRARIES", ("sentencepiece",))
    with pytest.raises(
        InputError, match=r"yttm.nemo reads text with YouTokenToMe, but NeMo 2 has dropped YouTokenToMe"
    ):
        restore_model(path)


class MakesADirectory:
    """A pickle that makes a directory where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_protected_loading(tmp_path, monkeypatch):
    """NeMo 2 and its Lightning ask torch for any pickle."""
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    torch.save({"weight": MakesADirectory(tmp_path / "trap")}, tmp_path / "bad.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="posix.mkdir"), compat.protected_loading():
        torch.load(tmp_path / "bad.ckpt", weights_only=False)
    assert not (tmp_path / "trap").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
