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
"""What says what a run is, and what how it runs."""

import pytest

from nemo_distill.training.identity import identity, may_grow, why_not_longer

WHAT = {
    "name": "a",
    "seed": 1,
    "model": {"train_ds": {"tokens_in_batch": 8}, "encoder_tokenizer": {"library": "yttm"}},
    "trainer": {"precision": 32, "accumulate_grad_batches": 2, "val_check_interval": 5, "max_time": "1"},
    "exp_manager": {
        "checkpoint_callback_params": {"monitor": "val_loss"},
        "create_checkpoint_callback": False,
        "create_early_stopping_callback": True,
        "early_stopping_callback_params": {"patience": 1},
        "resume_from_checkpoint": "other.ckpt",
    },
}
HOW = {
    "model": {"train_ds": {"num_workers": 4}},
    "trainer": {"devices": 8, "num_nodes": 2},
    "data": {"dir": "a", "num_workers": 4},
    "teacher": "t.nemo",
    "exp_manager": {"create_tensorboard_logger": True, "max_time_per_run": "1", "step_timing_kwargs": {"a": 1}},
}
FILES = {"model": {"train_ds": {"src_file_name": "a"}, "encoder_tokenizer": {"tokenizer_model": "m"}}}


def joined(*parts):
    """One configuration of several."""
    found = {}
    for part in parts:
        for key, value in part.items():
            found[key] = joined(found.get(key, {}), value) if isinstance(value, dict) else value
    return found


def test_identity_is_what_is_run():
    assert identity(joined(WHAT, HOW, FILES)) == WHAT
    assert identity(joined(WHAT, HOW, FILES), are_files_noted=False) == joined(WHAT, FILES)


def test_every_key_of_a_model_that_is_not_known_counts():
    model = {"model": {"new_ds": {"x": {"num_workers": 1}}, "optim": {"lr": 1}, "num_workers": 2}}
    assert identity(model) == model


def test_no_start_is_the_same_said_and_unsaid():
    model = {"model": {"distillation": {"objective": 1}}}
    assert identity(joined(model, {"model": {"distillation": {"init": None}}})) == model
    started = joined(model, {"model": {"distillation": {"init": {"from_teacher": "first"}}}})
    assert identity(started) == started


def test_only_more_steps_are_the_same_run():
    def trainer(steps):
        return {"trainer": {"max_steps": steps, "precision": 32}}

    for before, now, grown in ((2, 4, 4), (4, 2, 4), (4, 4, 4), (-1, 4, -1), (4, -1, -1), (True, 4, True)):
        assert may_grow(trainer(before), trainer(now)) == trainer(grown)
    for odd in ({}, {"trainer": None}, {"trainer": {"max_steps": "2"}}):
        assert may_grow(odd, trainer(4)) == odd


def test_only_more_patience_is_the_same_run():
    for before, now, grown in ((2, 4, 4), (4, 2, 4), (2, None, None), (None, 2, None)):
        found = may_grow({"patience": before}, {"patience": now})
        assert found.get("patience") == grown
    assert identity({"patience": None, "ema": None, "average": 5}) == {}  # what earlier configurations left unsaid
    assert identity({"patience": 2, "ema": 0.9, "average": 3}) == {"patience": 2, "ema": 0.9, "average": 3}


@pytest.mark.parametrize(
    ("schedule", "may"),
    [
        (None, True),
        ({"name": "InverseSquareRootAnnealing", "warmup_steps": 2}, True),
        ({"name": "InverseSquareRootAnnealing", "warmup_ratio": 0.1}, False),
        ({"name": "CosineAnnealing", "max_steps": 100}, False),  # which NeMo overwrites
        ({"name": "WarmupAnnealing"}, False),
        ({"name": "OfARecipe"}, False),
    ],
)
def test_no_more_steps_where_the_learning_rate_follows_from_their_number(schedule, may):
    before, now = ({"model": {"optim": {"sched": schedule}}, "trainer": {"max_steps": steps}} for steps in (2, 4))
    assert may_grow(before, now) == (now if may else before)
    assert bool(why_not_longer(before, now)) == (not may)
    assert not why_not_longer(now, now)
