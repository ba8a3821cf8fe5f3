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
"""NaN and infinities stop a run, or cost it one step, in plain models and in students, in one process and in two."""

import copy
import math
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from processes import run_processes

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError, NonFiniteError
from nemo_distill.training.non_finite import NonFiniteGuard, check_weights
from nemo_distill.training.repairs import repair_model
from nemo_distill.training.run import run_training
from nemo_distill.training.trainer import SafeCheckpointIO, build_trainer, pl, seed_everything

FAULTS = ("NaN loss", "infinite loss with finite gradients", "gradient alone")


class FaultyModel(MTEncDecModel):
    """A plain model, of which some batches in some processes go wrong; `faults` is set by each test."""

    fault, steps, ranks = "NaN loss", (2,), (0,)

    def training_step(self, batch, batch_idx):
        """Spoil the loss, or the gradient of one weight."""
        result = super().training_step(batch, batch_idx)
        bad = self.trainer.global_step in self.steps and self.global_rank in self.ranks
        if not bad:
            return result
        if self.fault == "gradient alone":
            weight = self.log_softmax.mlp.layer0.bias
            result["loss"] = result["loss"] + (weight * _InfiniteGradient.apply(weight)).sum() * 0
            return result
        return {**result, "loss": result["loss"] * math.nan if self.fault == "NaN loss" else result["loss"] + math.inf}


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, weight):
        return weight.detach().clone()

    @staticmethod
    def backward(context, gradient):
        return torch.full_like(gradient, math.inf)


def faulty(**settings) -> type[FaultyModel]:
    """Return the class with other settings."""
    return type("FaultyModel", (FaultyModel,), settings)


class Watcher(pl.Callback):
    """Keeps the weights and the optimizer's state before and after each step."""

    def __init__(self) -> None:
        self.states = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.keep(trainer, pl_module)

    def on_train_end(self, trainer, pl_module) -> None:
        self.keep(trainer, pl_module)

    def keep(self, trainer, pl_module) -> None:
        """Copy them."""
        state = pl_module.state_dict(), trainer.optimizers[0].state_dict()["state"]
        self.states.append(copy.deepcopy(state))


def equal(one: dict, other: dict) -> bool:
    """Whether two nested dictionaries of tensors are the same."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return all(equal(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one == other


def trained(model_class, section, guard: NonFiniteGuard, steps: int = 5, **settings):
    """Train for some steps; return the model and what the watcher saw."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    seed_everything(1)
    trainer = build_trainer(OmegaConf.create({"accelerator": "cpu", "max_steps": steps, **quiet, **settings}))
    watcher = Watcher()
    trainer.callbacks += [guard, watcher]
    model = repair_model(model_class(section, trainer=trainer))
    model.watcher = watcher
    trainer.fit(model)
    return model, watcher


@pytest.mark.parametrize("fault", FAULTS)
def test_stop(fault, tiny_model_config):
    section = tiny_model_config(hidden_size=8, num_layers=1, data=True)
    message = "gradients are not finite though the loss is" if fault == "gradient alone" else "loss is NaN or infinite"
    seen = {}

    class Kept(FaultyModel):
        def on_train_batch_start(self, batch, batch_idx):
            seen["weights"] = copy.deepcopy(self.state_dict())
            seen["model"] = self

    Kept.fault = fault
    with pytest.raises(NonFiniteError, match=f"step 2: the {message}; training stops. To go on: lower"):
        trained(Kept, section, NonFiniteGuard())
    assert equal(seen["weights"], seen["model"].state_dict())  # those of the step before


@pytest.mark.parametrize("fault", FAULTS)
def test_skip_leaves_out_one_step(fault, tiny_model_config):
    guard = NonFiniteGuard("skip")
    section = tiny_model_config(hidden_size=8, num_layers=1, data=True)
    model, watcher = trained(faulty(fault=fault), section, guard)
    assert guard.skipped == 1
    assert model.trainer.logged_metrics["train_skipped_steps"] == 1
    before = watcher.states
    same = [equal(before[step], before[step + 1]) for step in range(5)]
    assert same == [False, False, True, False, False]
    check_weights(model, "")


def test_one_bad_batch_of_an_accumulated_step(tiny_model_config):
    """The step that two batches make is left out as a whole, though the second one is good."""

    class Once(FaultyModel):
        def training_step(self, batch, batch_idx):
            result = MTEncDecModel.training_step(self, batch, batch_idx)
            return {**result, "loss": result["loss"] * (math.nan if batch_idx == 2 else 1)}

    guard = NonFiniteGuard("skip")
    section = tiny_model_config(hidden_size=8, num_layers=1, data=True)
    _, watcher = trained(Once, section, guard, steps=3, accumulate_grad_batches=2)
    assert guard.skipped == 1
    assert equal(watcher.states[2], watcher.states[4])
    assert not equal(watcher.states[4], watcher.states[6])


def test_too_many_in_a_row(tiny_model_config):
    guard = NonFiniteGuard("skip", most_in_a_row=3)
    section = tiny_model_config(hidden_size=8, num_layers=1, data=True)
    with pytest.raises(NonFiniteError, match="4 steps in a row were left out, 4 in all. step 5: the loss is NaN"):
        trained(faulty(steps=range(2, 100)), section, guard, steps=20)
    guard = NonFiniteGuard("skip", most_in_a_row=3)
    trained(faulty(steps=(1, 2, 3, 5, 6, 7)), section, guard, steps=9)
    assert guard.skipped == 6


def test_steps_in_a_row_are_counted_across_restarts(tiny_model_config):
    guard, resumed, earlier = (NonFiniteGuard("skip", most_in_a_row=3) for _ in range(3))
    section = tiny_model_config(hidden_size=8, num_layers=1, data=True)
    trained(faulty(steps=(1, 2, 3)), section, guard, steps=4)
    resumed.load_state_dict(guard.state_dict())
    with pytest.raises(NonFiniteError, match="4 steps in a row were left out, 4 in all"):
        trained(faulty(steps=(0,)), section, resumed, steps=1)
    earlier.load_state_dict({"skipped": 3})
    trained(faulty(steps=(0,)), section, earlier, steps=1)
    assert earlier.skipped == 4


def test_a_student_names_the_model(student_config):
    """The message is the student's own, and the step is left out for it too."""

    class Student(DistilledMTEncDecModel):
        def training_step(self, batch, batch_idx):
            weight = self._teacher.model.encoder.embedding.token_embedding.weight.data
            kept = weight.clone()
            if self.trainer.global_step == 2:
                weight.fill_(math.nan)
            try:
                return super().training_step(batch, batch_idx)
            finally:
                weight.copy_(kept)

    with pytest.raises(NonFiniteError, match="step 2: the teacher's logits are NaN .*; training stops. To go on: che"):
        trained(Student, student_config(hidden_size=8), NonFiniteGuard())
    guard = NonFiniteGuard("skip")
    model, watcher = trained(Student, student_config(hidden_size=8), guard)
    assert guard.skipped == 1
    assert equal(watcher.states[2], watcher.states[3])
    assert model.on_non_finite is None  # by itself it raises again


def test_a_gradient_scaler_is_left_alone(tiny_model_config):
    """It starts with a scale that is too large on purpose, and lowers it at each infinite gradient."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    plugin_class = getattr(pl.plugins, "MixedPrecision", None) or pl.plugins.MixedPrecisionPlugin
    plugin = plugin_class("16-mixed", "cpu", scaler=scaler)
    trainer = pl.Trainer(
        accelerator="cpu", plugins=[plugin], max_steps=50, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    guard = NonFiniteGuard()
    trainer.callbacks.append(guard)
    model = repair_model(MTEncDecModel(tiny_model_config(hidden_size=8, num_layers=1, data=True), trainer=trainer))
    before = copy.deepcopy(model.state_dict())
    trainer.fit(model)
    assert scaler.get_scale() < 2.0**40
    assert not equal(before, model.state_dict())
    check_weights(model, "")


def run_config(tmp_path: Path, section, **settings) -> OmegaConf:
    """Return the configuration of a run of four steps with a checkpoint at each second one."""
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 4, "val_check_interval": 2, "logger": False}
    trainer |= {"check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False}
    callback = {"monitor": "val_sacreBLEU", "mode": "max", "save_top_k": 1}
    manager = {"create_tensorboard_logger": False, "create_checkpoint_callback": True, "log_step_timing": False}
    manager |= {"checkpoint_callback_params": callback, "create_preemption_callback": False}
    config = {"name": "tiny", "output_dir": str(tmp_path / "run"), "overwrite": False, "seed": 1, "keep": "last"}
    return OmegaConf.create({**config, "model": section, "trainer": trainer, "exp_manager": manager, **settings})


def test_the_last_good_checkpoint_stays_and_skip_goes_on_from_it(tiny_model_config, tmp_path):
    section = tiny_model_config(hidden_size=8, num_layers=1, data=True)
    config = run_config(tmp_path, section)
    with pytest.raises(NonFiniteError, match="step 3: the loss is NaN"):
        run_training(config, faulty(steps=(3,)))
    stored = sorted((tmp_path / "run/log/checkpoints").glob("*.ckpt"))
    assert any("last" in path.name for path in stored)
    for path in stored:
        checkpoint = SafeCheckpointIO().load_checkpoint(path)
        assert checkpoint["global_step"] == 2
        assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    assert not (tmp_path / "run/tiny.nemo").exists()
    config.on_non_finite = "skip"  # says how to run, not what is run
    archive = run_training(config, faulty(steps=(3,)))
    assert all(tensor.isfinite().all() for tensor in MTEncDecModel.restore_from(str(archive)).state_dict().values())


def test_weights_that_are_not_finite_are_never_stored(tiny_model_config, tmp_path):
    class Overflow(MTEncDecModel):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            if self.trainer.global_step == 3:  # at the end of this step, as a learning rate without bounds would
                with torch.no_grad():
                    self.log_softmax.mlp.layer0.bias[0] = math.inf

    config = run_config(tmp_path, tiny_model_config(hidden_size=8, num_layers=1, data=True), on_non_finite="skip")
    with pytest.raises(NonFiniteError, match=r"1 of \d+ weights are NaN or infinite .log_softmax.mlp.layer0.bias"):
        run_training(config, Overflow)
    for path in (tmp_path / "run/log/checkpoints").glob("*.ckpt"):
        states = SafeCheckpointIO().load_checkpoint(path)["state_dict"].values()
        assert all(tensor.isfinite().all() for tensor in states)


def test_unknown_policy(tiny_model_config, tmp_path):
    config = run_config(tmp_path, tiny_model_config(hidden_size=8, num_layers=1, data=True), on_non_finite="go on")
    with pytest.raises(InputError, match="on_non_finite: got 'go on'; give stop or skip"):
        run_training(config, MTEncDecModel)
    assert not (tmp_path / "run").exists()


def in_two(section: dict, policy: str, fault: str) -> tuple[str, list]:
    """Train in one of two processes, of which the second one has a bad batch; return the error and the weights."""
    guard = NonFiniteGuard(policy)
    model_class = faulty(fault=fault, ranks=(1,))
    try:
        model, _ = trained(model_class, OmegaConf.create(section), guard, steps=4, devices=2)
    except NonFiniteError as error:
        return str(error), []
    return f"skipped {guard.skipped}", [parameter.detach().numpy() for parameter in model.parameters()]


@pytest.mark.parametrize("fault", [FAULTS[1], *(pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS[::2])])
def test_two_processes_decide_alike(fault, tiny_model_config):
    """What one process sees, both act on: neither waits for the other."""
    section = OmegaConf.to_container(tiny_model_config(hidden_size=8, num_layers=1, data=True))
    errors = [result[0] for result in run_processes(in_two, section, "stop", fault)]
    assert all(error.startswith("step 2: the ") and "training stops" in error for error in errors)
    if "loss" in fault:
        assert "of another process" in errors[0]
        assert "of another process" not in errors[1]
    (first, weights), (second, others) = run_processes(in_two, section, "skip", fault)
    assert first == second == "skipped 1"
    assert all((one == other).all() for one, other in zip(weights, others, strict=True))
