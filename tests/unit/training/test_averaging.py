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
"""Which weights a run keeps: a moving average over its steps, the mean of its best checkpoints; by hand in float64."""

import math
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from slow_cases import slow

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError, StoppedBySignal
from nemo_distill.support.compat import lightning
from nemo_distill.support.finished_run import read_finished
from nemo_distill.training import run, validation
from nemo_distill.training.run import run_training
from nemo_distill.training.stopping import StopOnSignal
from nemo_distill.training.trainer import SafeCheckpointIO
from tests.short_runs import config_in

pl = lightning()
STEPS, DECAY, NAN = 6, 0.3, math.nan
PROJECTED = {"word_kd": {"weight": 1}, "hidden": {"weight": 1, "projection": True}}


class Killed(BaseException):
    """Ends a run as a kill does: nothing is written any more."""


class Watch(pl.Callback):
    """Notes the weights that train after each step, and those that each validation has; may end the run.

    Args:
        at: step and hook at which it ends, as `(4, "scored")`.
        how: what is called there.
    """

    def __init__(self, at: tuple[int, str] | None = None, how: Callable | None = None) -> None:
        self.trained: dict[int, dict[str, torch.Tensor]] = {}
        self.validated: dict[int, dict[str, torch.Tensor]] = {}
        self._at, self._how = at, how

    def _end(self, trainer, hook: str) -> None:
        if (trainer.global_step, hook) == self._at:
            self._how(trainer)

    def on_train_start(self, trainer, pl_module) -> None:
        if trainer.global_step == 0:
            self.trained[0] = {n: w.detach().clone() for n, w in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if not trainer.fit_loop._should_accumulate():
            self.trained[trainer.global_step] = {n: w.detach().clone() for n, w in pl_module.named_parameters()}

    def on_validation_batch_start(self, trainer, pl_module, *args) -> None:
        if trainer.state.fn == "fit":
            self.validated[trainer.global_step] = {n: w.detach().clone() for n, w in pl_module.named_parameters()}
            self._end(trainer, "validates")

    def on_validation_end(self, trainer, pl_module) -> None:
        if trainer.state.fn == "fit":
            self._end(trainer, "scored")


def killed(trainer) -> None:
    raise Killed


def signalled(trainer) -> None:
    (stopping,) = (each for each in trainer.callbacks if isinstance(each, StopOnSignal))
    stopping._received = signal.SIGTERM


@pytest.fixture
def train(student_config, tmp_path, monkeypatch):
    """A function that trains in `tmp_path / name`, watched; keywords are keys at the top of the configuration.

    Scores are those of `values`, validation by validation of a step each.
    """

    def run_it(
        name: str, values=range(STEPS), watch: Watch | None = None, student: bool = True, top_k: int = 1, **keys
    ):
        watch = watch or Watch()
        model = student_config(hidden_size=8, objective=PROJECTED, max_generation_delta=0)
        if not student:
            model.pop("distillation")
        config = config_in(tmp_path / name, model, **keys)
        config.trainer.max_steps, config.trainer.limit_val_batches = STEPS, 1
        params = {"monitor": "val_sacreBLEU", "save_top_k": top_k}
        config.exp_manager.checkpoint_callback_params = params
        config.trainer.accumulate_grad_batches = 2
        config.trainer.val_check_interval = 2
        build = run.build_trainer

        def watched(section):
            trainer = build(section)
            trainer.callbacks.insert(1, watch)  # behind ExactRestart, before what stops by signals
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(run, "build_trainer", watched)
            patch.setattr(
                validation,
                "_scores",
                lambda model, *rest: {"loss": 1.0, "sacreBLEU": float(values[model.trainer.global_step - 1])},
            )
            archive = run_training(config, DistilledMTEncDecModel if student else MTEncDecModel)
        return watch, archive

    return run_it


def weights(archive: Path) -> dict[str, torch.Tensor]:
    """Return those of an archive, as stock NeMo opens it."""
    model = MTEncDecModel.restore_from(str(archive))
    assert type(model) is MTEncDecModel
    return model.state_dict()


def checkpoints(archive: Path) -> dict[int, dict]:
    """Return the checkpoints of a run by their steps, without `last`."""
    paths = archive.parent.joinpath("log/checkpoints").glob("*.ckpt")
    found = [SafeCheckpointIO().load_checkpoint(path) for path in paths if not path.name.endswith("-last.ckpt")]
    return {each["global_step"]: each for each in found}


def closed_form(trained: dict[int, dict[str, torch.Tensor]], steps: int) -> dict[str, torch.Tensor]:
    """Return the average after so many steps as a weighted sum, in float64."""
    shares = [min(DECAY, (1 + step) / (10 + step)) for step in range(1, steps + 1)]
    rest = torch.tensor([1.0, *shares], dtype=torch.float64).flip(0).cumprod(0).flip(0)[1:].tolist()
    found = {name: each.double() * rest[0] for name, each in trained[0].items()}
    for step in range(1, steps + 1):
        after = rest[step] if step < steps else 1.0
        for name, each in trained[step].items():
            found[name] = found[name] + each.double() * (1 - shares[step - 1]) * after
    return found


def test_the_moving_average_is_the_closed_form(train, student_config):
    """What is validated, kept as best and saved; of a student with a projection, accumulating gradients."""
    watch, archive = train("run", values=[1, 2, 9, 3, 4, 5], ema=DECAY, keep="best")
    student = DistilledMTEncDecModel(student_config(hidden_size=8, objective=PROJECTED))
    names = {name for name, _ in student.named_parameters()}
    assert sum(name.startswith("objective.") for name in names) > 0
    for step in (1, 3, STEPS):
        wanted = closed_form(watch.trained, step)
        for name, each in watch.validated[step].items():
            # float32: difference, product and sum of a step are rounded to half a unit of weights below 2, 2**-24 each
            assert float((each.double() - wanted[name]).abs().max()) <= step * 2.0**-22, name
            assert not torch.equal(each, watch.trained[step][name]), name
    saved = weights(archive)
    for name, each in watch.validated[3].items():
        assert name.startswith("objective.") or torch.equal(saved[name], each)
    tied = [name for name in saved if name.endswith(("token_embedding.weight", "mlp.layer0.weight"))]
    assert len(tied) == 3
    assert all(torch.equal(saved[tied[0]], saved[name]) for name in tied)
    (best,) = checkpoints(archive).values()
    assert set(best["callbacks"]["MovingAverage"]["average"]) == names  # those of the student, not of its teacher
    for name, each in watch.trained[3].items():
        assert torch.equal(best["state_dict"][name], each)  # what a run goes on with


@pytest.mark.parametrize(
    ("values", "keep", "steps"),
    [
        ([1, 2, 9, 3, 4, 5], "best", [3]),
        ([9, NAN, NAN, NAN, NAN, 5], "average", [1, 6]),
        ([NAN] * STEPS, "best", [STEPS]),
        ([NAN] * STEPS, "average", [STEPS]),
    ],
)
def test_weights_of_a_validation_are_those_of_a_finite_score(train, values, keep, steps, monkeypatch):
    """Though `save_top_k` asks for no checkpoints; without any such score the last are kept, and a line says so."""
    warnings = []
    monkeypatch.setattr("nemo_distill.training.averaging.warn", warnings.append)
    watch, archive = train("run", values=values, keep=keep, student=False, top_k=0, average=3)
    saved = weights(archive)
    for name, each in saved.items():
        if name in watch.trained[1]:
            mean = sum(watch.trained[step][name].double() for step in steps) / len(steps)
            assert torch.equal(each, mean.to(each.dtype)), name
    reason = "no validation with a finite score has a checkpoint"
    none = f"keep: '{keep}', and {reason}: the weights of the last step are kept"
    assert [each for each in warnings if not each.startswith("mean of")] == ([none] if math.isnan(values[0]) else [])


def cut_best(trainer) -> None:
    path = Path(trainer.checkpoint_callback.best_model_path)
    path.write_bytes(path.read_bytes()[:1000])


def remove_best(trainer) -> None:
    Path(trainer.checkpoint_callback.best_model_path).unlink()


@pytest.mark.parametrize(("how", "keep"), [(cut_best, "best"), *slow((remove_best, "best"), (remove_best, "average"))])
def test_a_best_checkpoint_that_is_lost_is_passed_over_for_the_next(train, how, keep, monkeypatch):
    warnings = []
    monkeypatch.setattr("nemo_distill.training.averaging.warn", warnings.append)
    values, watch = [1, 8, 9, 3, 4, 5], Watch((STEPS, "scored"), how)
    watch, archive = train("run", values=values, watch=watch, keep=keep, student=False, top_k=2, average=2)
    saved = weights(archive)
    assert all(torch.equal(saved[name], each) for name, each in watch.trained[2].items())
    (line,) = warnings
    assert re.fullmatch(r"passing over .*step=3\.ckpt: .*", line)


def test_a_resumed_run_whose_best_checkpoint_is_lost_keeps_the_best_that_comes(train, tmp_path, caplog):
    keys = {"values": [1, 2, 9, 3, 5, 4], "keep": "best", "student": False}
    with pytest.raises(Killed):
        train("run", watch=Watch((4, "scored"), killed), **keys)
    (lost,) = (path for path in tmp_path.rglob("*.ckpt") if not path.name.endswith("-last.ckpt"))
    lost.unlink()
    watch, archive = train("run", **keys)
    assert list(watch.trained) == [4, 5, 6]
    saved = weights(archive)
    assert all(torch.equal(saved[name], each) for name, each in watch.trained[5].items())
    assert f"{lost}, one of the best checkpoints, is not there: the best are chosen without it" in caplog.text


def test_the_last_average_is_kept(train):
    watch, archive = train("run", ema=DECAY, keep="last", student=False)
    saved = weights(archive)
    assert all(torch.equal(saved[name], each) for name, each in watch.validated[STEPS].items())


@pytest.mark.parametrize(
    ("at", "how", "raised"),
    [
        ((4, "validates"), signalled, StoppedBySignal),  # whose checkpoint is written with the average in the model
        *slow(((4, "scored"), killed, Killed)),  # before the checkpoint of this validation
    ],
)
def test_a_stopped_run_goes_on_to_the_bit(train, at, how, raised):
    """Of a run with a moving average that keeps the mean of its best checkpoints, and ends by patience."""
    keys = {"ema": DECAY, "keep": "average", "average": 2, "patience": 2, "values": [5, 1, 7, 2, 3, 4]}
    whole, archive = train("whole", **keys)
    assert max(whole.trained) == 5
    with pytest.raises(raised):
        train("stopped", watch=Watch(at, how), **keys)
    again, resumed = train("stopped", **keys)
    assert list(again.trained)[-1] == 5
    for step, found in again.trained.items():
        assert all(torch.equal(each, whole.trained[step][name]) for name, each in found.items())
    for step, found in again.validated.items():
        assert all(torch.equal(each, whole.validated[step][name]) for name, each in found.items())
    one, other = weights(archive), weights(resumed)
    assert all(torch.equal(each, other[name]) for name, each in one.items())
    records = [read_finished(each.parent) for each in (archive, resumed)]
    assert {(each.steps, each.stopped_after, each.converged) for each in records} == {(5, 2, True)}


def test_the_mean_of_the_best_checkpoints(train, monkeypatch):
    """Rounded once, from float64; not of the last ones; no more files than are needed; scored and compared."""
    from nemo.utils import logging

    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *rest, **options: said.append(str(text)))
    values = [1, 8, 9, 2, 7, 3]
    watch, archive = train("run", values=values, keep="average", average=3)
    assert sorted(checkpoints(archive)) == [2, 3, 5]
    saved = weights(archive)
    for name in watch.trained[1]:
        if not name.startswith("objective."):
            mean = sum(watch.trained[step][name].double() for step in (2, 3, 5)) / 3
            assert torch.equal(saved[name], mean.float()), name
    (line,) = [each for each in said if each.startswith("nemo_distill: mean of the 3 best checkpoints: val_sacreBLEU")]
    assert line.endswith("3.0000, of the best alone 9.0000: the mean is worse, and keep=best is better here")
    assert read_finished(archive.parent).steps == STEPS  # that validation is none of the run's


def test_a_checkpoint_without_the_average_is_refused(train, tmp_path):
    keys = {"ema": DECAY, "keep": "last"}
    with pytest.raises(Killed):
        train("run", watch=Watch((3, "scored"), killed), **keys)
    for path in (tmp_path / "run/log/checkpoints").glob("*.ckpt"):
        content = SafeCheckpointIO().load_checkpoint(path)
        del content["callbacks"]["MovingAverage"]
        SafeCheckpointIO().save_checkpoint(content, path)
    with pytest.raises(InputError, match="ema: the checkpoint holds no moving average of these weights"):
        train("run", **keys)
