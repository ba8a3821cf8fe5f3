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
"""When a run had converged, who says so, and where it is kept."""

import json
from types import SimpleNamespace

import pytest
import torch

from nemo_distill.errors import InputError
from nemo_distill.support.files import sha256
from nemo_distill.support.finished_run import FINISHED, read_finished, run_of
from nemo_distill.support.validations import VALIDATIONS, Validation, read_validations
from nemo_distill.training import convergence, run_training, validation
from nemo_distill.training.convergence import ScoreHistory, check_patience, has_converged, without_gain
from tests.short_runs import config_in


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([20.0, 24.0, 25.1, 25.0], "max", True),
        ([20.0, 24.0, 25.0, 25.1], "max", False),
        ([3.0, 2.0, 2.1], "min", True),
        ([3.0, 2.1, 2.0], "min", False),
        ([7.0], "max", False),
        ([5.0, 5.0], "max", False),  # as good as the best is no sign of an end
        ([1.0, 2.0, 3.0, 4.0, *[5.0] * 6], "max", True),
        ([*range(20), 18.5], "max", False),  # one step back of many forward
        ([*range(10), 9.3, 9.0, 9.2, 9.1, 9.0, 9.2, 9.1, 9.3, 9.0, 9.1], "max", True),
        ([30, 31, 32, 33, 33.2, 32.9, 33.1, 33.0], "max", True),
    ],
)
def test_the_scores_tell(values, mode, expected):
    assert has_converged(values, mode) is expected


def test_scores_come_through_checkpoints_and_nothing_else_does():
    history, other = ScoreHistory(), ScoreHistory()
    history.scores = [(10, 1.5), (20, 2.5)]
    other.load_state_dict(history.state_dict())
    assert other.scores == history.scores
    for state in ({}, {"scores": 7}, {"scores": [["a", 1.0], [1], [1, "b"], None]}):
        other.load_state_dict(state)
        assert other.scores == []


def test_time_goes_on_where_a_run_goes_on(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(convergence.time, "monotonic", lambda: now[0])

    def begin(state: dict) -> tuple[ScoreHistory, SimpleNamespace]:
        trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, global_step=0, checkpoint_callback=None)
        trainer.state = SimpleNamespace(fn="fit")
        trainer.callback_metrics = {"val_loss": torch.tensor(2.5), "val_sacreBLEU": torch.tensor(7.0)}
        history = ScoreHistory(tmp_path)
        history.load_state_dict(state)
        history.on_train_start(trainer, None)
        return history, trainer

    def validate(history: ScoreHistory, trainer: SimpleNamespace, step: int, clock: float) -> None:
        now[0], trainer.global_step = clock, step
        history.on_validation_end(trainer, None)

    history, trainer = begin({})
    validate(history, trainer, 10, 130.0)
    now[0] = 140.0
    kept = history.state_dict()  # a checkpoint behind the first validation
    validate(history, trainer, 20, 160.0)
    assert [(each.step, each.seconds) for each in read_validations(tmp_path)] == [(10, 30.0), (20, 60.0)]
    (tmp_path / VALIDATIONS).unlink()  # as NeMo moves it away
    now[0] = 1000.0
    history, trainer = begin(kept)
    assert read_validations(tmp_path) == [Validation(10, 30.0, 7.0, 2.5)]
    validate(history, trainer, 20, 1015.0)
    assert [(each.step, each.seconds) for each in read_validations(tmp_path)] == [(10, 30.0), (20, 55.0)]
    for state in ({"validations": 3, "seconds": "x"}, {"validations": [[1], [1, 2, 3, 4], None], "seconds": -1.0}):
        history.load_state_dict(state)
        assert history.validations == []
        assert history.state_dict()["seconds"] == pytest.approx(now[0] - 1000.0)


def test_a_trainer_that_goes_on_says_anew_what_its_scores_tell(monkeypatch):
    """What was said behind the first fit stood behind the second one too, and the clock began anew."""
    now = [0.0]
    monkeypatch.setattr(convergence.time, "monotonic", lambda: now[0])
    trainer = SimpleNamespace(sanity_checking=False, global_step=0, checkpoint_callback=None, lightning_module=None)
    trainer.state, history = SimpleNamespace(fn="fit"), ScoreHistory()

    def fit(losses: dict[int, float]) -> list[float]:
        history.setup(trainer, None, "fit")
        history.on_train_start(trainer, None)
        for step, loss in losses.items():
            now[0] += 10
            trainer.global_step, trainer.callback_metrics = step, {"val_loss": torch.tensor(loss)}
            history.on_validation_end(trainer, None)
        history.on_train_end(trainer, None)
        now[0] += 1000  # until somebody goes on
        return [each.seconds for each in history.validations]

    assert fit({1: 3.0, 2: 3.5}) == [10.0, 20.0]
    assert (history.converged, history.loss_rise, history.least_loss_at) == (True, 0.1667, 1)
    assert fit({3: 2.5}) == [10.0, 20.0, 30.0]
    assert (history.converged, history.loss_rise, history.least_loss_at) == (False, None, None)


def test_a_run_says_and_notes_that_it_was_still_improving(student_config, tmp_path, monkeypatch):
    from nemo.collections.nlp.models import MTEncDecModel
    from nemo.utils import logging

    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *rest, **options: said.append(str(text)))
    model = student_config(data=True)
    model.pop("distillation", None)
    model.max_generation_delta = 3
    config = config_in(tmp_path / "run", model)
    config.trainer.max_steps, config.trainer.enable_checkpointing = 4, True
    config.trainer.val_check_interval = 2
    config.exp_manager.checkpoint_callback_params = {"monitor": "val_loss", "mode": "min", "save_top_k": 1}
    archive = run_training(config, MTEncDecModel)
    (line,) = [each for each in said if "not converged" in each]
    assert "best val_loss" in line
    assert "at step 4, of 2 validations" in line
    noted = read_finished(tmp_path / "run")
    assert (noted.converged, noted.taught, noted.start) == (False, False, "random")
    first, second = read_validations(tmp_path / "run")
    assert (first.step, second.step) == (2, 4)
    assert 0 < first.seconds < second.seconds
    assert f"best val_loss {min(first.loss, second.loss):.4f}" in line
    assert 0 <= second.bleu <= 100
    assert run_of(archive, sha256(archive)).converged is False
    assert run_of(archive, "0" * 64) is None  # another archive has taken its place
    config.trainer.max_steps = 6  # the longer run goes on from the checkpoint
    run_training(config, MTEncDecModel)
    longer = read_validations(tmp_path / "run")
    assert longer[:2] == [first, second]
    assert longer[2].step == 6
    assert second.seconds < longer[2].seconds
    noted = json.loads((tmp_path / "run" / FINISHED).read_text())
    del noted["converged"]  # as an earlier version left it
    (tmp_path / "run" / FINISHED).write_text(json.dumps(noted))
    assert run_of(archive, sha256(archive)).converged is None


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([], "max", 0),
        ([1.0], "max", 0),
        ([3.0, 3.0], "max", 1),
        ([3, 1, 2, 2.9], "max", 3),
        ([3, 1, 2, 0.9], "min", 0),
    ],
)
def test_validations_without_a_better_score_are_counted(values, mode, expected):
    assert without_gain(values, mode) == expected


@pytest.fixture
def scored_run(student_config, tmp_path, monkeypatch):
    """A function that trains a plain model, validated after each step with given scores; returns archive and steps."""
    from nemo.collections.nlp.models import MTEncDecModel

    def train(values, patience, steps=8, losses=None, schedule=None, **overrides):
        model, trained = student_config(hidden_size=8, max_generation_delta=0), []
        model.pop("distillation")
        model.optim.update({"sched": schedule} if schedule else {})
        config = config_in(tmp_path / "run", model, patience=patience, keep="best")
        config.trainer.max_steps, config.trainer.limit_val_batches = steps, 1
        config.exp_manager.checkpoint_callback_params = {"monitor": "val_sacreBLEU", "mode": "max", "save_top_k": 1}
        for key, value in overrides.items():
            config.trainer[key] = value

        def scores(model, *others):
            trained.append(model.trainer.global_step)
            place = model.trainer.global_step - 1
            return {"loss": losses[place] if losses else 1.0, "sacreBLEU": float(values[place])}

        monkeypatch.setattr(validation, "_scores", scores)
        return run_training(config, MTEncDecModel), trained

    return train


RISING_THEN_FLAT = [1, 2, 5, 4, 5, 3, 6, 7]


def test_a_run_ends_with_its_patience_and_goes_on_with_more_of_it(scored_run, monkeypatch):
    from nemo.utils import logging

    said = []
    monkeypatch.setattr(logging, "info", lambda text, *rest, **options: said.append(str(text)))
    archive, validated = scored_run(RISING_THEN_FLAT, 2)
    assert validated == [1, 2, 3, 4, 5]
    assert [each for each in said if "converged: stopped after 2 validations without gain at step 5" in each]
    noted = read_finished(archive.parent)
    assert (noted.converged, noted.stopped_after, noted.steps) == (True, 2, 5)
    before = archive.read_bytes()
    assert scored_run(RISING_THEN_FLAT, 2)[1] == []
    assert scored_run(RISING_THEN_FLAT, 2, steps=20)[1] == []  # the limit is none of its end
    assert archive.read_bytes() == before
    with pytest.raises(InputError, match=r"holds another run, made with patience 2 \(now 1\)"):
        scored_run(RISING_THEN_FLAT, 1)
    archive, validated = scored_run(RISING_THEN_FLAT, 3)
    assert validated == [6]
    assert read_finished(archive.parent).stopped_after == 3
    archive, validated = scored_run(RISING_THEN_FLAT, None)
    assert validated == [7, 8]
    assert read_finished(archive.parent).stopped_after is None


def test_a_run_goes_on_while_its_loss_still_falls(scored_run):
    """A score of few sentences stands still by chance; both must, for as long."""
    archive, validated = scored_run([5, 4, 4, 4, 4, 4, 4, 4], 2, losses=[3, 2, 1, 1, 2, 1, 1, 1])
    assert max(validated) == 5
    assert read_finished(archive.parent).stopped_after == 2


def test_a_loss_that_rises_is_noted_and_said(scored_run, monkeypatch):
    """BLEU goes on rising: it is what keeps a run going, and tells nothing of this."""
    said = []
    monkeypatch.setattr(convergence, "warn", said.append)
    archive, _ = scored_run([1, 2, 3, 4, 5, 6, 7, 8], None, losses=[3, 2.5, 2, 2.01, 2.1, 2.2, 2.3, 2.4])
    noted = read_finished(archive.parent)
    assert (noted.loss_rise, noted.least_loss_at) == (0.2, 3)
    assert [each for each in said if "least at step 3, and is 20 % above" in each]


def test_a_loss_that_rises_with_the_learning_rate_says_nothing_of_the_text(scored_run, monkeypatch):
    said = []
    monkeypatch.setattr(convergence, "warn", said.append)
    schedule = {"name": "WarmupAnnealing", "warmup_steps": 8}
    archive, _ = scored_run([1] * 8, None, losses=[3, 2.5, 2, 2.01, 2.1, 2.2, 2.3, 2.4], schedule=schedule)
    assert read_finished(archive.parent).loss_rise is None
    assert [each for each in said if "step 3, and the learning rate rose until the end: the warm-up is 8" in each]
    assert not [each for each in said if "by heart" in each]


@pytest.mark.parametrize(
    ("scores", "found"), [([0, 0, 0], "they tell no trend"), ([0, 1, 2], "the run was still improving when it ended")]
)
def test_a_run_that_has_not_converged_is_told_with_its_reason(scored_run, monkeypatch, scores, found):
    said = []
    monkeypatch.setattr(convergence, "warn", said.append)
    archive, _ = scored_run(scores, None, steps=3)
    assert read_finished(archive.parent).converged is False
    assert any(f"of 3 validations: not converged, {found}, and what" in each for each in said)


@pytest.mark.parametrize("losses", [[3, 2, 2.01, 2.019], [3, 2, 4, 2], [2, 2, 2, 2], [0, 0, 1, 1], [-1, -2, -1, -1]])
def test_a_loss_that_does_not_rise(losses):
    assert convergence.loss_rise([Validation(step, 0.0, 1.0, loss) for step, loss in enumerate(losses)]) == (
        None,
        None,
    )


def test_the_fewest_steps_are_made_before_patience_counts(scored_run):
    archive, validated = scored_run([9, 1, 2, 3, 4, 5, 6, 7], 1, min_steps=6, min_epochs=0)
    assert max(validated) == 6
    assert read_finished(archive.parent).stopped_after == 5


@pytest.mark.parametrize(("patience", "steps"), [(2, 5), (None, 8)])
def test_a_run_killed_before_its_archive_ends_where_it_would_have(scored_run, patience, steps):
    """Nothing is trained again, and the mark of its end is not lost."""
    archive, _ = scored_run(RISING_THEN_FLAT, patience)
    noted = read_finished(archive.parent)
    assert noted.converged is not None
    archive.unlink()
    (archive.parent / FINISHED).unlink()
    archive, validated = scored_run(RISING_THEN_FLAT, patience)
    assert validated == []
    again = read_finished(archive.parent)
    assert (again.converged, again.stopped_after, again.steps) == (noted.converged, noted.stopped_after, steps)


def test_patience_that_could_not_wait():
    def config(name="InverseSquareRootAnnealing", monitor="val_sacreBLEU", **schedule):
        model = {"validation_ds": {"a": 1}, "optim": {"sched": {"name": name, **schedule}}}
        return {
            "patience": 3,
            "model": model,
            "exp_manager": {"checkpoint_callback_params": {"monitor": monitor}},
        }

    check_patience(config())
    check_patience({**config("WarmupAnnealing"), "patience": None})
    without = config()
    without["model"] = {"optim": {}}
    for wrong in (config(monitor="train_loss"), config(monitor="lr"), without):
        with pytest.raises(InputError, match="patience: counts validations .* such as val_sacreBLEU"):
            check_patience(wrong)
    for wrong in (config("WarmupAnnealing"), config("CosineAnnealing"), config("WarmupPolicy", warmup_ratio=0.1)):
        with pytest.raises(InputError, match=r"patience: model.optim.sched \(\w+\) lays .*=WarmupPolicy"):
            check_patience(wrong)


def test_patience_counts_the_loss_of_the_set_whose_score_it_counts():
    """Not that of the first one, which may fall for ever."""
    history = ScoreHistory(patience=2)
    callback = SimpleNamespace(monitor="val_loss_dl_index_1", mode="min")
    trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, global_step=0, checkpoint_callback=callback)
    trainer.state, trainer.should_stop = SimpleNamespace(fn="fit"), False
    trainer.fit_loop = SimpleNamespace(_can_stop_early=True)
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda value, all: value)
    for step in range(1, 4):
        trainer.global_step = step
        trainer.callback_metrics = {
            "val_loss": torch.tensor(5.0 - step),
            "val_loss_dl_index_1": torch.tensor(2.0),
            "val_sacreBLEU_dl_index_1": torch.tensor(7.0),
        }
        history.on_validation_end(trainer, None)
        assert trainer.should_stop is (step == 3)
    assert [(each.bleu, each.loss) for each in history.validations] == [(7.0, 2.0)] * 3
