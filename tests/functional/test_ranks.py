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
"""Two processes train as one does on both their batches: tokens count alike, wherever they are."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from processes import run_processes
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.capture import CaptureSpec
from nemo_distill.losses import ObjectiveInputs, ObjectiveTerm
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.training.trainer import build_trainer, seed_everything

STEPS = 3
NO_DROPOUT = {
    f"{part}.{kind}": 0.0
    for part in ("encoder", "decoder")
    for kind in ("embedding_dropout", "ffn_dropout", "attn_score_dropout", "attn_layer_dropout")
}


class SourceTerm(ObjectiveTerm):
    """A recipe's term over source tokens, of the embedding of each."""

    mean_over = "source"
    needs_logits = True

    student_captures = (CaptureSpec("encoder._embedding"),)

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        (captured,) = inputs.student_captures.values()
        states = captured[inputs.source_mask]  # [N, H]
        return states.square().sum() / max(len(states), 1)


class Entropy(ObjectiveTerm):
    """A recipe's term over target tokens; reads whole logits."""

    needs_logits = True

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        log_probs = inputs.log_probs[inputs.mask]  # [N, V]
        return (log_probs.exp() * log_probs).sum() / max(len(log_probs), 1)


OBJECTIVES = {
    "lean": {"word_kd": {"weight": 2.0, "temperature": 2.0}},
    "plain": {"computation": "plain", "word_kd": {"weight": 2.0, "divergence": "reverse_kl"}},
    "nll": {"word_kd": {"weight": 0.0}},
    "hidden": {"hidden": {"weight": 1.0, "distance": "mse", "projection": True}},
    "attention": {"attention": {"weight": 1.0, "encoder": "last", "decoder": "last", "cross": "last"}},
    "terms": {"terms": [{"_target_": f"{__name__}.{name}", "weight": 0.5} for name in ("SourceTerm", "Entropy")]},
}
QUICK, LONG = ("hidden", "cached"), ("lean", "plain", "nll", "attention", "terms")


class Batches(Dataset):
    """Batches as the loader of NeMo gives them."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        return self.batches[number]


def joined(batches: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Return the rows of several batches as one; the padding id is 0, as that of masks."""
    items = []
    for arrays in zip(*batches, strict=True):
        width = max(array.shape[1] for array in arrays)
        items.append(np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]))
    return tuple(items)


def train(
    section: dict,
    batches: list,
    model_class=DistilledMTEncDecModel,
    devices: int = 1,
    accumulate: int = 1,
    precision: str = "32-true",
) -> dict:
    """Train once on each batch in this process, or with others; return weights and what was logged."""
    settings = {
        "accelerator": "cpu",
        "devices": devices,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accumulate_grad_batches": accumulate,
        "precision": precision,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    seed_everything(1)
    trainer = build_trainer(OmegaConf.create(settings))
    model = model_class(OmegaConf.create(section), trainer=trainer)
    data = Batches(batches)
    own = DistributedSampler(data, devices, trainer.global_rank, shuffle=False)  # batch 0 is for process 0, and so on
    model._train_dl = DataLoader(data, batch_size=1, sampler=own)
    logged, step = [], model.training_step

    def recording_step(*arguments):
        output = step(*arguments)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        logged.append(metrics | {"own": output["loss"].item()})
        return output

    model.training_step = recording_step
    trainer.fit(model)
    for metrics in logged:
        metrics.pop("lr", None)
    return {"weights": {name: tensor.numpy() for name, tensor in model.state_dict().items()}, "logged": logged}


def train_all(sections: Mapping[str, dict], *arguments, **keywords) -> dict[str, dict]:
    """Train a model of each section."""
    return {name: train(section, *arguments, **keywords) for name, section in sections.items()}


@pytest.fixture(scope="module")
def halves(student_config) -> list[tuple[np.ndarray, ...]]:
    """Two batches for each step, the first for process 0; they have very different numbers of tokens."""
    data = DistilledMTEncDecModel(student_config())._train_ds
    batches = []
    for step in range(STEPS):
        short, long = data[step], data[len(data) - 1 - step]
        pair = [tuple(item[:2] for item in short), long]
        batches += pair if step % 2 else pair[::-1]
    counts = [int((batch[4] != 0).sum()) for batch in batches]
    assert all(max(pair) > 3 * min(pair) for pair in zip(counts[::2], counts[1::2], strict=True))
    return batches


@pytest.fixture(scope="module")
def wholes(halves) -> list[tuple[np.ndarray, ...]]:
    return [joined(halves[place : place + 2]) for place in range(0, len(halves), 2)]


@pytest.fixture(scope="module")
def sections(smooth_student_config, tiny_corpus, tiny_teacher_path, tmp_path_factory) -> dict[str, dict]:
    """The `model` section of each objective, smooth, without dropout; NLL and word-level KD from a cache too."""

    def section(objective, **overrides) -> dict:
        built = smooth_student_config(objective=objective, **NO_DROPOUT, **overrides)
        built.optim = {"name": "sgd", "lr": 0.2}
        return OmegaConf.to_container(built)

    built = {name: section(objective) for name, objective in OBJECTIVES.items()}
    built["cached"] = section(OBJECTIVES["lean"])
    text = [(str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))]
    cache = tmp_path_factory.mktemp("cache") / "cache"
    write_cache([str(tiny_teacher_path)], text, cache, CacheSettings(8, [2.0]))
    built["cached"]["distillation"]["teacher"] = {"cache": str(cache)}
    return built


def furthest(weights: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> float:
    assert weights.keys() == others.keys()
    return max(float(np.abs(array - others[name]).max()) for name, array in weights.items())


@pytest.mark.parametrize("names", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])
def test_two_processes_are_one_with_both_batches(sections, halves, wholes, names):
    """Dropout is off, and each process has another number of tokens than the other, at each step."""
    chosen = {name: sections[name] for name in names}
    together = run_processes(train_all, chosen, halves, DistilledMTEncDecModel, 2)
    alone = train_all(chosen, wholes)
    for name, wanted in alone.items():
        first, second = (result[name] for result in together)
        assert furthest(first["weights"], second["weights"]) == 0, name  # the same bits in both
        assert furthest(first["weights"], wanted["weights"]) < 2e-6, name
        for result, other in zip(first["logged"], second["logged"], strict=True):
            assert result["own"] != other["own"]  # they had different batches
            assert {**result, "own": 0} == {**other, "own": 0}  # and log what is true of both
        for result, metrics in zip(first["logged"], wanted["logged"], strict=True):
            shared = metrics.keys() - {"own"}
            assert {metric: result[metric] for metric in shared} == pytest.approx(
                {metric: metrics[metric] for metric in shared}, rel=2e-5
            )
        assert len(first["logged"]) == len(wanted["logged"]) == STEPS


def test_stock_nemo_weighs_processes_not_tokens(sections, halves, wholes):
    """Why the above is no matter of course: what it holds to is some hundred times nearer than this."""
    section = {"nll": sections["nll"]}
    first, second = run_processes(train_all, section, halves, MTEncDecModel, 2)
    assert furthest(first["nll"]["weights"], second["nll"]["weights"]) == 0
    assert furthest(first["nll"]["weights"], train_all(section, wholes, MTEncDecModel)["nll"]["weights"]) > 2e-4


def test_a_process_without_a_token_counts_for_nothing(sections, halves, wholes):
    """Its batch is padding alone, at one step in the one process, at the next in the other."""
    padding = tuple(np.zeros((1, 3), dtype=item.dtype) for item in halves[0])
    batches = [halves[0], padding, padding, halves[1], padding, padding, *halves[2:4]]
    chosen = {name: sections[name] for name in ("hidden",)}
    first, _ = run_processes(train_all, chosen, batches, DistilledMTEncDecModel, 2)
    wanted = train_all(chosen, [halves[0], halves[1], padding, wholes[1]])
    for name in chosen:
        assert furthest(first[name]["weights"], wanted[name]["weights"]) < 2e-6, name
        assert first[name]["logged"][2]["train_loss"] == pytest.approx(wanted[name]["logged"][2]["train_loss"])


def test_gradients_accumulate_over_batches_and_processes(sections, halves, wholes):
    """A step is that on the mean of its batches' losses; each batch, over all processes, counts the same."""
    section = sections["hidden"]
    first, second = run_processes(train, section, halves[:4], DistilledMTEncDecModel, 2, 2)
    assert furthest(first["weights"], second["weights"]) == 0
    seed_everything(1)
    model = DistilledMTEncDecModel(OmegaConf.create(section))
    untrained = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    for whole in wholes[:2]:
        (model.distillation_terms([torch.as_tensor(item) for item in whole])["loss"] / 2).backward()
    for parameter in model.parameters():
        parameter.data -= 0.2 * parameter.grad
    wanted = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert furthest(first["weights"], wanted) < 2e-6  # one step, not two
    assert furthest(wanted, untrained) > 1e-3


def test_mixed_precision_in_two_processes(sections, halves, wholes):
    section = sections["hidden"]
    first, second = run_processes(train, section, halves, DistilledMTEncDecModel, 2, 1, "bf16-mixed")
    assert furthest(first["weights"], second["weights"]) == 0
    assert {array.dtype for array in first["weights"].values()} == {np.dtype("float32")}
    wanted = [metrics["train_loss"] for metrics in train(section, wholes)["logged"]]
    found = [metrics["train_loss"] for metrics in first["logged"]]
    assert found == pytest.approx(wanted, rel=0.02)
    assert found != pytest.approx(wanted, rel=1e-6)  # it did compute in bfloat16, whose sums may agree by chance once
