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
"""A student that learns from the labels alone is a plain run, step by step: what differs later is the teacher's."""

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.training.trainer import seed_everything

STEPS = 6


@pytest.fixture(scope="module")
def train(tiny_trainer, smooth_student_config):
    """A function that trains one model from the same seed; returns its losses and its state after the last step."""

    def run(model_class, **section):
        seed_everything(1)
        trainer = tiny_trainer(STEPS, limit_val_batches=0)
        model = model_class(smooth_student_config(**section), trainer=trainer)
        losses, step = [], model.training_step

        def recording_step(*args):
            output = step(*args)
            losses.append(output["loss"].item())
            return output

        model.training_step = recording_step
        trainer.fit(model)
        assert len(losses) == STEPS
        return torch.tensor(losses), model.state_dict()

    return run


@pytest.fixture(scope="module")
def stock(train):
    return train(MTEncDecModel)


# A rounding apart: NeMo divides by the number of tokens plus 1e-6. A step moves a weight by some 2e-3.
LOSS_TOLERANCE = {"rtol": 1e-5, "atol": 0.0}
WEIGHT_TOLERANCE = {"rtol": 0.0, "atol": 2e-5}


def assert_same_weights(state, wanted) -> None:
    """Keys' biases are left out: the softmax cancels them, and Adam blows up the rounding that is their gradient."""
    names = [name for name in wanted if not name.endswith("key_net.bias")]
    assert len(names) > 30
    torch.testing.assert_close(
        {name: state[name] for name in names}, {name: wanted[name] for name in names}, **WEIGHT_TOLERANCE
    )


def test_the_labels_alone_give_the_run_of_stock_nemo(train, stock):
    losses, state = train(DistilledMTEncDecModel, objective={"nll": {"weight": 1}, "word_kd": {"weight": 0}})
    torch.testing.assert_close(losses, stock[0], **LOSS_TOLERANCE)
    assert state.keys() == stock[1].keys()
    assert_same_weights(state, stock[1])


def test_a_teacher_beside_it_shifts_neither_batches_nor_dropout(train, stock):
    """The teacher is opened and run at every step, with a weight too small to count."""
    losses, state = train(DistilledMTEncDecModel, objective={"word_kd": {"weight": 1e-30}})
    torch.testing.assert_close(losses, stock[0], **LOSS_TOLERANCE)
    assert_same_weights(state, stock[1])


def test_one_seed_gives_one_run(train):
    first, second = train(DistilledMTEncDecModel), train(DistilledMTEncDecModel)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(tensor, second[1][name]) for name, tensor in first[1].items())


def test_a_teacher_with_weight_gives_another_run(train, stock):
    _, state = train(DistilledMTEncDecModel)
    furthest = max((tensor - stock[1][name]).abs().max().item() for name, tensor in state.items())
    assert furthest > 10 * WEIGHT_TOLERANCE["atol"]
