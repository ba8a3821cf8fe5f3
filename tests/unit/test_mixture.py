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
"""Students that train on a mixture."""

import logging as python_logging

import pytest
import torch
from nemo.utils import logging
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data.mixing.dataset import MixedDataset
from nemo_distill.errors import ConfigurationError, InputError

HYBRID = {"alpha_seq_nll": 0.5, "alpha_seq_kd": 1.5, "alpha_word_kd": 0.25}


@pytest.fixture
def mixed_config(student_config, tiny_corpus, tiny_pseudo):
    """A factory of student sections with a mixture of gold and pseudo pairs."""

    def build(objective, **mixture):
        gold = {"source": str(tiny_corpus / "train.de"), "target": str(tiny_corpus / "train.en")}
        components = {"gold": gold, "pseudo": {"directory": str(tiny_pseudo)}}
        config = student_config(objective=objective)
        config.distillation.mixture = {"components": components, **mixture}
        return config

    return build


@pytest.fixture
def nemo_log():
    """What NeMo's logger says."""
    messages = []
    handler = python_logging.Handler(python_logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())
    before = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    logging._logger.addHandler(handler)
    yield messages
    logging._logger.removeHandler(handler)
    logging.set_verbosity(before)


def gradient(model, batches, weights: dict[str, float]) -> torch.Tensor:
    """Return the gradient of the weighted terms, averaged over the batches."""
    model.zero_grad()
    for batch in batches:
        terms = model.distillation_terms(batch)
        (sum(weight * terms[name] for name, weight in weights.items()) / len(batches)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_an_epoch_of_hybrid_steps_is_the_hybrid_formula(mixed_config, nemo_log):
    """The mean gradient of the training steps is that of the three weighted terms, each on its own data."""
    model = DistilledMTEncDecModel(mixed_config({"hybrid": HYBRID, "computation": "plain"}, epoch_size=20)).eval()
    assert any("hybrid: 0.5 * NLL(gold) + 1.5 * NLL(pseudo) + 0.25 * WordKD gives" in line for line in nemo_log)
    assert any(
        "20 batches in an epoch for each of 1 processes; shares gold 0.25 (asked for 0.25;" in x for x in nemo_log
    )
    dataset, parts = model._train_ds, {0: [], 1: []}
    for number, batch in enumerate(model._train_dl):
        assert [item.shape[0] for item in batch] == [1] * 5  # as NeMo's own loader gives it
        parts[dataset.draw(number).component].append([item.squeeze(0) for item in batch])
    gold, pseudo = parts[0], parts[1]
    assert (len(gold), len(pseudo)) == (5, 15)
    seen = [len(part) / size for part, size in zip((gold, pseudo), dataset.schedule.sizes, strict=True)]
    assert any(f"a pair is seen in an epoch: gold {seen[0]:.2g}, pseudo {seen[1]:.2g}" in line for line in nemo_log)
    steps = gradient(model, gold + pseudo, {"loss": 1.0})
    formula = (
        gradient(model, gold, {"nll": HYBRID["alpha_seq_nll"]})
        + gradient(model, pseudo, {"nll": HYBRID["alpha_seq_kd"]})
        + gradient(model, gold + pseudo, {"word_kd": HYBRID["alpha_word_kd"]})
    )
    torch.testing.assert_close(steps, formula, rtol=1e-4, atol=1e-6)
    assert (steps - gradient(model, gold + pseudo, {"nll": 2.0})).norm() > 0.01 * steps.norm()


def test_a_student_of_pseudo_labels_trains_without_a_teacher(mixed_config, tiny_trainer):
    config = mixed_config({"word_kd": {"weight": 0}}, probabilities={"gold": 0.5, "pseudo": 0.5}, epoch_size=3)
    config.distillation.teacher = {}
    trainer = tiny_trainer(max_steps=7, use_distributed_sampler=True)
    model = DistilledMTEncDecModel(config, trainer=trainer)
    taken = []
    training_step = model.training_step
    model.training_step = lambda batch, batch_idx: taken.append(batch) or training_step(batch, batch_idx)
    trainer.fit(model)
    assert isinstance(trainer.train_dataloader.dataset, MixedDataset)
    expected = [model._train_ds[number] for number in range(7)]  # over the ends of epochs
    assert len(taken) == 7
    for batch, item in zip(taken, expected, strict=True):
        assert batch[0].squeeze(0).numpy().tolist() == item[0].tolist()


def test_without_a_mixture_data_are_those_of_nemo(student_config):
    assert not isinstance(DistilledMTEncDecModel(student_config())._train_ds, MixedDataset)


def test_bad_mixtures_end_before_any_work(mixed_config, tmp_path):
    probabilities = {"gold": 0.5, "pseudo": 0.4}
    with pytest.raises(ConfigurationError, match="mixture.probabilities: sum to 0.9; shares must sum to 1"):
        DistilledMTEncDecModel(mixed_config({}, probabilities=probabilities))
    config = mixed_config({}, probabilities={"gold": 0.5, "pseudo": 0.5})
    OmegaConf.update(config, "distillation.mixture.components.pseudo.directory", str(tmp_path))
    with pytest.raises(InputError, match="pseudo.directory: .* does not hold source.txt and hypotheses.txt"):
        DistilledMTEncDecModel(config)
