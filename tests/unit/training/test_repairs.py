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
"""A stock model trains and validates in one process, and validation leaves it as it was."""

import itertools
import os

import pytest
import sacrebleu
import torch
import torch.distributed as dist
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import exp_manager
from omegaconf import OmegaConf

from nemo_distill.data.processors import RawTextProcessor
from nemo_distill.decoding.search import BatchIndependentBeamSearch
from nemo_distill.support.compat import NEMO_2
from nemo_distill.training.repairs import knowing_slurm, repair_model
from nemo_distill.training.trainer import build_trainer, process_group


@pytest.fixture
def restored(tiny_teacher_path, tiny_model_config):
    """A function that returns the trained teacher with its data sets, `tokens` in a batch, and raw text if asked."""

    def build(tokens: int = 400, raw: bool = False) -> MTEncDecModel:
        config = tiny_model_config(data=True, **{"validation_ds.tokens_in_batch": tokens})
        if raw:
            config.src_language = config.tgt_language = "ignore"
        model = MTEncDecModel(config)
        model.load_state_dict(MTEncDecModel.restore_from(str(tiny_teacher_path)).state_dict())
        return model

    return build


def validate(model, trainer) -> dict:
    return trainer.validate(model, verbose=False)[0]


def test_validation_needs_no_process_group(restored, tiny_trainer):
    metrics = validate(repair_model(restored()), tiny_trainer(1))
    assert {"val_loss", "val_sacreBLEU"} <= set(metrics)
    assert metrics["val_sacreBLEU"] > 20  # of a trained model
    assert not dist.is_initialized()


def test_stock_nemo_still_needs_the_repair(restored, tiny_trainer):
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        validate(restored(), tiny_trainer(1))


def test_score_is_that_of_the_hypotheses_one_by_one(restored, tiny_trainer, tiny_corpus):
    model = repair_model(restored(raw=True))
    score = validate(model, tiny_trainer(1))["val_sacreBLEU"]
    sources = (tiny_corpus / "valid.de").read_text("utf-8").splitlines()
    references = (tiny_corpus / "valid.en").read_text("utf-8").splitlines()
    hypotheses = [model.translate([source])[0] for source in sources]
    assert score == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, rel=1e-6)


def test_score_does_not_depend_on_the_batch(restored, tiny_trainer):
    """Of uncertain models, so that the search matters; how much noise that takes hangs on the trained teacher."""
    for noise in (0.05, 0.1, 0.15, 0.2):
        scores = {True: [], False: []}
        for repaired, tokens in itertools.product(scores, (60, 2000)):
            model = restored(tokens)
            torch.manual_seed(2)
            for parameter in model.parameters():
                parameter.data += noise * torch.randn_like(parameter)
            search = model.beam_search
            repair_model(model)
            if not repaired:
                model.beam_search = search
            scores[repaired].append(validate(model, tiny_trainer(1))["val_sacreBLEU"])
        assert scores[True][0] == scores[True][1]
        if scores[False][0] != scores[False][1]:  # NeMo's own search does depend on it
            return
    pytest.fail("NeMo's own search has not mattered")


def test_raw_text_validates(restored, tiny_trainer):
    model = restored(raw=True)
    assert model.target_processor is None
    repair_model(model)
    assert isinstance(model.target_processor, RawTextProcessor)
    assert validate(model, tiny_trainer(1))["val_sacreBLEU"] > 20


def test_raw_text_processor_changes_nothing():
    text = "  „Hallo“ , %s {0}\u00a0 "
    processor = RawTextProcessor()
    assert processor.normalize(text) == text
    assert processor.tokenize(text) == text
    assert processor.detokenize(text.split(" ")) == text


def test_frozen_parameters_stay_frozen_through_validation(restored, tiny_trainer):
    """NeMo's own search unfreezes what it used at every validation batch."""
    model = repair_model(restored()).train()
    model.decoder.embedding.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    validate(model, tiny_trainer(1))
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert not all(flags.values())


def test_validation_in_the_middle_of_an_accumulated_step_leaves_its_gradients(restored, tiny_trainer):
    """Lightning 2.0 clears them, so that the step is made of the batches after the validation alone."""

    def trained(repaired: bool, **arguments) -> torch.Tensor:
        torch.manual_seed(2)
        model = restored(tokens=200, raw=True)
        repair_model(model)
        if not repaired:
            del model.zero_grad
        model.validation_step = lambda *args, **kwargs: None
        model.on_validation_epoch_end = lambda *args: None
        tiny_trainer(2, accumulate_grad_batches=2, **arguments).fit(model)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    undisturbed = trained(repaired=True, limit_val_batches=0)
    assert torch.equal(trained(repaired=True, val_check_interval=3), undisturbed)
    if not NEMO_2:
        assert not torch.equal(trained(repaired=False, val_check_interval=3), undisturbed)


def test_weights_state_dict_and_archive_stay(restored, tmp_path):
    model = restored()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    repair_model(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    model.save_to(str(tmp_path / "model.nemo"))
    assert type(MTEncDecModel.restore_from(str(tmp_path / "model.nemo"))) is MTEncDecModel


def test_repairing_twice_is_repairing_once(restored, tiny_trainer):
    model = repair_model(restored())
    search = model.beam_search
    assert repair_model(model) is model
    assert model.beam_search is search
    assert isinstance(search, BatchIndependentBeamSearch)
    assert validate(model, tiny_trainer(1))["val_sacreBLEU"] > 20


def test_process_group_lasts_for_the_block_and_leaves_an_older_one():
    with process_group():
        assert dist.get_world_size() == 1
        with process_group():
            assert dist.is_initialized()
        assert dist.is_initialized()
    assert not dist.is_initialized()
    with pytest.raises(KeyError), process_group():
        raise KeyError
    assert not dist.is_initialized()


@pytest.mark.parametrize("by_slurm", [True, False])
def test_nemo_knows_when_slurm_has_started_the_processes(by_slurm, monkeypatch):
    """NeMo asks for an attribute that no trainer has, and called it an error."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    told = {"NTASKS": "2", "NTASKS_PER_NODE": "1", "JOB_ID": "7", "JOB_NAME": "student", "NNODES": "2"}
    told |= {"PROCID": "0", "LOCALID": "0", "NODEID": "0", "NODELIST": "127.0.0.1"}
    for name, value in told.items() if by_slurm else ():
        monkeypatch.setenv(f"SLURM_{name}", value)
    config = {"accelerator": "cpu", "devices": 1, "num_nodes": 2, "max_steps": 1, "check_val_every_n_epoch": None}
    trainer = build_trainer(OmegaConf.create(config))
    assert not exp_manager.check_slurm(trainer)
    with knowing_slurm():
        assert exp_manager.check_slurm(trainer) == by_slurm
    assert not exp_manager.check_slurm(trainer)
