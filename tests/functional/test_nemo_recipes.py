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
"""What NeMo's scripts enc_dec_nmt.py, enc_dec_nmt_finetune.py and enc_dec_nmt-bottleneck.py do, with students.

`train` has their statements, in their order, for the three of them. `NLPDDPStrategy`, which they build, asks for Apex
without using it here.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from nemo.collections.nlp.data.machine_translation.preproc_mt_data import MTDataPreproc
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.collections.nlp.parts import nlp_overrides
from nemo.core.classes import ModelPT
from nemo.core.config.modelPT import NemoConfig
from nemo.core.config.pytorch_lightning import TrainerConfig
from nemo.utils.config_utils import update_model_config
from nemo.utils.exp_manager import ExpManagerConfig, exp_manager
from omegaconf import MISSING, OmegaConf
from processes import run_processes

from nemo_distill.data.tokenizer import library_of
from nemo_distill.recipes import (
    DistilledMTBottleneckModel,
    DistilledMTBottleneckModelConfig,
    DistilledMTEncDecModel,
    DistilledMTEncDecModelConfig,
)
from nemo_distill.support import compat

pl = compat.lightning()
STEPS = 4


@dataclass
class Recipe(NemoConfig):
    """The dataclass in NeMo's scripts."""

    name: str | None = "MTEncDec"
    do_training: bool = True
    do_testing: bool = False
    model: DistilledMTEncDecModelConfig = field(default_factory=DistilledMTEncDecModelConfig)
    trainer: TrainerConfig | None = field(default_factory=TrainerConfig)
    exp_manager: ExpManagerConfig | None = field(default_factory=lambda: ExpManagerConfig(files_to_copy=[]))


@dataclass
class FineTuning(Recipe):
    """As in enc_dec_nmt_finetune.py."""

    model_path: str = MISSING


@dataclass
class Bottleneck(Recipe):
    """As in enc_dec_nmt-bottleneck.py."""

    model: DistilledMTBottleneckModelConfig = field(default_factory=DistilledMTBottleneckModelConfig)


SCRIPTS = {"plain": Recipe, "made": Recipe, "finetuned": FineTuning, "bottleneck": Bottleneck}


class StopAfter(pl.Callback):
    """Ends the process's run after some steps, as a fault would."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.steps:
            raise InterruptedError


def train(name: str, section: dict, stop_after: int | None = None) -> dict:
    """Run one of the scripts; return weights, the metrics of its training and those of its test."""
    script = SCRIPTS[name]
    nlp_overrides.HAVE_APEX = True
    pl.seed_everything(1)
    default_cfg, cfg = script(), OmegaConf.create(section)
    if script is FineTuning:
        default_cfg.model = MTEncDecModel.restore_from(restore_path=cfg.model_path, return_config=True)
        for part in ("optim", "train_ds", "validation_ds", "test_ds"):
            default_cfg.model.pop(part, None)
    cfg = update_model_config(default_cfg, cfg, drop_missing_subconfigs=script is not FineTuning)
    trainer_cfg = OmegaConf.to_container(cfg.trainer)
    trainer_cfg.pop("strategy", None)
    trainer = pl.Trainer(strategy=nlp_overrides.NLPDDPStrategy(), **trainer_cfg)
    trainer.callbacks.append(StopAfter(stop_after))
    if cfg.model.get("preproc_out_dir") is not None:
        MTDataPreproc(cfg=cfg.model, trainer=trainer)
    exp_manager(trainer, cfg.exp_manager)
    if script is FineTuning:
        model = DistilledMTEncDecModel.restore_from(
            restore_path=cfg.model_path, override_config_path=cfg.model, trainer=trainer
        )
        model.setup_training_data(cfg.model.train_ds)
        model.setup_multiple_validation_data(val_data_config=cfg.model.validation_ds)
    else:
        model_class = DistilledMTBottleneckModel if script is Bottleneck else DistilledMTEncDecModel
        model = model_class(cfg.model, trainer=trainer)
    losses, step = [], model.training_step

    def recording_step(*arguments):
        output = step(*arguments)
        losses.append(float(output["loss"]))
        return output

    model.training_step = recording_step
    try:
        trainer.fit(model)
    except InterruptedError:
        return {"losses": losses}
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.ckpt_path = None
    if cfg.do_testing:
        if script is FineTuning:
            model.setup_multiple_test_data(test_data_config=cfg.model.test_ds)
        trainer.test(model)
        found |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return {"losses": losses, "metrics": found, "weights": weights}


def train_all(sections: dict[str, dict], devices: int) -> dict[str, dict]:
    """Run several scripts in this process, which is one of so many."""
    return {
        name: train(name, {**section, "trainer": {**section["trainer"], "devices": devices}})
        for name, section in sections.items()
    }


def train_and_stop(straight: dict, stopped: dict) -> tuple[dict, dict]:
    """Run the first script twice in this process; the second run is stopped after three steps."""
    return train("plain", straight), train("plain", stopped, 3)


@pytest.fixture
def section(student_config, tiny_corpus, tmp_path):
    """A function that gives what the YAML of a script says; keywords are as for `student_config`."""

    def build(name: str, max_steps: int = STEPS, **overrides) -> dict:
        model = OmegaConf.to_container(student_config(**overrides))
        model["test_ds"] = {**model["validation_ds"], "src_file_name": str(tiny_corpus / "test.de")}
        model["test_ds"]["tgt_file_name"] = str(tiny_corpus / "test.en")
        return {
            "model": model,
            "do_testing": True,
            "trainer": {
                "devices": 1,
                "accelerator": "cpu",
                "max_steps": max_steps,
                "val_check_interval": 2,
                "limit_val_batches": 2,
                "limit_test_batches": 2,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 1,
            },
            "exp_manager": {
                "explicit_log_dir": str(tmp_path / name),
                "create_checkpoint_callback": True,
                "checkpoint_callback_params": {"monitor": "val_loss", "mode": "min", "save_best_model": True},
            },
        }

    return build


@pytest.fixture
def sections(section, tiny_teacher_path, tiny_tokenizer, tmp_path):
    """The three scripts, and the first once more with a tokenizer that it trains itself."""

    def build(processes: int) -> dict:
        bridge = {"arch": "bridge", "hidden_steps": 4, "hidden_init_method": "enc_shared"}
        bridge = {f"encoder.{key}": value for key, value in bridge.items()}
        bottleneck = section(f"bottleneck-{processes}", **bridge)
        finetuned = section(f"finetuned-{processes}")
        for key in set(finetuned["model"]) - {"train_ds", "validation_ds", "test_ds", "optim", "distillation"}:
            finetuned["model"].pop(key)
        finetuned["model"]["optim"]["lr"] = 1e-5
        finetuned["model_path"] = str(tiny_teacher_path)
        built = {
            "plain": section(f"plain-{processes}"),
            "bottleneck": bottleneck,
            "finetuned": finetuned,
        }
        if processes == 1:
            made = section("made", objective={"word_kd": {"weight": 0}}, shared_tokenizer=True)
            for side in ("encoder", "decoder"):
                trained = {"library": library_of(tiny_tokenizer), "vocab_size": 120, "special_tokens": None}
                made["model"][f"{side}_tokenizer"] = trained
            made["model"]["preproc_out_dir"] = str(tmp_path / "preprocessed")
            built["made"] = made
        return built

    return build


def check_archives(directory: Path, count: int) -> None:
    """Check that stock NeMo opens the archives of so many runs."""
    archives = sorted(directory.glob("*/checkpoints/*.nemo"))
    assert len(archives) == count
    for path in archives:  # tests/functional/test_stock_nemo.py opens such without this library
        model = ModelPT.restore_from(str(path), map_location="cpu")
        assert type(model) is (MTBottleneckModel if "bottleneck" in str(path) else MTEncDecModel), path
        assert "distillation" not in model.cfg


def check_metrics(results: dict[str, dict]) -> None:
    """Check the losses and metrics of what `train_all` returned."""
    for name, result in results.items():
        metrics = result["metrics"]
        assert len(result["losses"]) == STEPS, name
        assert metrics["train_loss"] == pytest.approx(metrics["train_nll"] + metrics.get("train_word_kd", 0)), name
        assert ("train_word_kd" in metrics) == (name != "made")
        assert {"val_loss", "val_sacreBLEU", "test_loss", "test_sacreBLEU"} <= metrics.keys(), name


def test_scripts_train_students(sections, tiny_teacher_path, tmp_path):
    wanted = sections(1)
    del wanted["plain"]  # trained below, and in two processes
    (alone,) = run_processes(train_all, wanted, 1, world_size=1)
    check_metrics(alone)
    given = MTEncDecModel.restore_from(str(tiny_teacher_path)).state_dict()
    moved = max(np.abs(array - given[key].numpy()).max() for key, array in alone["finetuned"]["weights"].items())
    assert 0 < moved <= 1.01e-5 * STEPS  # Adam moves a weight by the learning rate at most
    check_archives(tmp_path, 3)


@pytest.mark.parametrize("names", [["plain"], pytest.param(["bottleneck", "finetuned"], marks=pytest.mark.slow)])
def test_scripts_train_students_in_two_processes(sections, tmp_path, names):
    wanted = sections(2)
    together = run_processes(train_all, {name: wanted[name] for name in names}, 2)
    check_metrics(together[0])
    for name, first in together[0].items():
        second = together[1][name]
        assert all(np.array_equal(array, second["weights"][key]) for key, array in first["weights"].items()), name
        assert first["losses"] != second["losses"]  # of other batches
    check_archives(tmp_path, len(names))


def test_a_script_goes_on_exactly_where_it_was_stopped(section, tmp_path):
    straight, stopped = section("straight"), section("stopped")
    for each in (straight, stopped):
        each["do_testing"] = False
        each["exp_manager"] |= {"resume_if_exists": True, "resume_ignore_no_checkpoint": True}
        each["exp_manager"]["checkpoint_callback_params"] |= {"save_best_model": False}
    ((wanted, begun),) = run_processes(train_and_stop, straight, stopped, world_size=1)
    (resumed,) = run_processes(train, "plain", stopped, world_size=1)
    assert begun["losses"] == wanted["losses"][:3]
    assert resumed["losses"] == wanted["losses"][2:]  # from the checkpoint of the validation after two steps
    assert all(np.array_equal(array, resumed["weights"][name]) for name, array in wanted["weights"].items())
