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
"""Checkpoints resume under torch's `weights_only` protection, which stays on."""

import os
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from packaging.version import Version

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError
from nemo_distill.training.trainer import SafeCheckpointIO, seed_everything


class MakesADirectory:
    """What an attacker would put into a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def train(tiny_trainer, student_config):
    """A function that trains a student (or a twin) to `steps` steps, from a checkpoint if one is given."""

    def run(steps: int, checkpoint: Path | None = None, model_class=DistilledMTEncDecModel):
        seed_everything(1)
        trainer = tiny_trainer(steps, limit_val_batches=0)
        model = model_class(student_config(), trainer=trainer)
        trainer.fit(model, ckpt_path=checkpoint)
        assert trainer.global_step == steps
        return model, trainer

    return run


@pytest.mark.parametrize("model_class", [DistilledMTEncDecModel, MTEncDecModel])
def test_resumes_to_the_end(train, tmp_path, model_class):
    assert Version(torch.__version__) >= Version("2.6")  # so that weights_only is torch's default too
    half, trainer = train(3, model_class=model_class)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    whole, whole_trainer = train(6, model_class=model_class)
    resumed, resumed_trainer = train(6, tmp_path / "half.ckpt", model_class=model_class)
    # The optimizer went on: its step count is that of the whole run, and it moved the half-trained weights.
    for one in (whole_trainer, resumed_trainer):
        assert {int(state["step"]) for state in one.optimizers[0].state_dict()["state"].values()} == {6}
    head = "log_softmax.mlp.layer0.bias"
    assert not torch.equal(half.state_dict()[head], whole.state_dict()[head])
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_the_checkpoint_brings_back_every_weight(train, tmp_path):
    model, trainer = train(2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    stored = SafeCheckpointIO().load_checkpoint(tmp_path / "two.ckpt")
    assert stored["global_step"] == 2
    assert all(torch.equal(tensor, stored["state_dict"][name]) for name, tensor in model.state_dict().items())
    assert stored["optimizer_states"]


def test_a_configuration_inside_a_tree_resumes(tiny_trainer, student_config, tmp_path):
    """As hydra hands it over: part of a tree, with interpolations, and values of resolvers kept in the tree."""
    OmegaConf.register_new_resolver("kept", lambda value: value, use_cache=True, replace=True)
    tree = OmegaConf.create({"model": student_config(), "rate": "${kept:0.002}", "secret": "not of the model"})
    tree.model.optim.lr = "${rate}"
    trainer = tiny_trainer(1, limit_val_batches=0)
    trainer.fit(DistilledMTEncDecModel(tree.model, trainer=trainer))
    assert OmegaConf.to_container(tree, resolve=True)["rate"] == 0.002
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    stored = SafeCheckpointIO().load_checkpoint(tmp_path / "one.ckpt")
    assert stored["hyper_parameters"]["cfg"].optim.lr == 0.002
    assert b"not of the model" not in (tmp_path / "one.ckpt").read_bytes()
    trainer = tiny_trainer(2, limit_val_batches=0)
    trainer.fit(DistilledMTEncDecModel(tree.model, trainer=trainer), ckpt_path=tmp_path / "one.ckpt")
    assert trainer.global_step == 2


def test_a_foreign_object_in_a_checkpoint_is_refused(train, tmp_path):
    _, trainer = train(1)
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    content = SafeCheckpointIO().load_checkpoint(tmp_path / "good.ckpt")
    trap = tmp_path / "trap"
    torch.save({**content, "extra": MakesADirectory(trap)}, tmp_path / "bad.ckpt")
    with pytest.raises(
        InputError, match=r"bad.ckpt cannot be read as a checkpoint of this library: it holds posix.mk"
    ):
        train(2, tmp_path / "bad.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        DistilledMTEncDecModel.load_from_checkpoint(str(tmp_path / "bad.ckpt"))
    assert not trap.exists()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_checkpoint_is_refused(train, tmp_path, share):
    _, trainer = train(1)
    path = tmp_path / "cut.ckpt"
    trainer.save_checkpoint(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"cut.ckpt cannot be read as a checkpoint"):
        train(2, path)


def test_an_interrupted_save_keeps_the_older_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        SafeCheckpointIO().save_checkpoint({"step": 2, "broken": lambda: None}, path)
    assert SafeCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]
