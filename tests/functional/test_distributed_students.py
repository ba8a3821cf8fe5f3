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
"""Every kind of student trains in two processes: the teacher stays outside and as it was, frozen parts stay frozen."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from processes import run_processes
from slow_cases import slow

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.training.trainer import build_trainer, seed_everything

TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,
    "max_steps": 3,
    "val_check_interval": 2,
}
FROZEN = "decoder._decoder.layers.0.first_sub_layer."


def teacher_models(model: DistilledMTEncDecModel) -> list[torch.nn.Module]:
    """Return the models of a live teacher or of an ensemble; none where there is a cache."""
    members = getattr(model._teacher, "members", [model._teacher])
    return [member.model for member in members if member.model is not None]


def numbers(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def equal(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return some.keys() == others.keys() and all(np.array_equal(array, others[name]) for name, array in some.items())


def train(sections: dict[str, dict], directory: Path, devices: int) -> dict[str, dict]:
    """Train a student of each section, with validation on the way, and say what became of it."""
    found = {}
    for name, section in sections.items():
        seed_everything(1)
        trainer = build_trainer(OmegaConf.create({**TRAINER, "devices": devices}))
        model = DistilledMTEncDecModel(OmegaConf.create(section), trainer=trainer)
        for path, parameter in model.named_parameters():
            parameter.requires_grad_(not path.startswith(FROZEN))
        flags = {path: parameter.requires_grad for path, parameter in model.named_parameters()}
        before = [numbers(each) for each in teacher_models(model)]
        student = numbers(model)
        wrapped, step = set(), model.training_step

        def watching_step(*arguments, step=step, trainer=trainer, wrapped=wrapped):
            wrapped.update(id(parameter) for parameter in trainer.strategy.model.parameters())
            return step(*arguments)

        model.training_step = watching_step
        trainer.fit(model)
        trainer.save_checkpoint(directory / f"{name}.ckpt")
        model.save_to(str(directory / f"{name}.nemo"))
        trained = {id(each) for group in trainer.optimizers[0].param_groups for each in group["params"]}
        after = numbers(model)
        found[name] = {
            "weights": after,
            "moved": not equal(student, after),
            "frozen_same": all(
                np.array_equal(student[path], after[path]) for path in after if path.startswith(FROZEN)
            ),
            "flags_same": flags == {path: each.requires_grad for path, each in model.named_parameters()},
            "own": wrapped == {id(parameter) for parameter in model.parameters()} and trained <= wrapped,
            "teachers": len(before),
            "teachers_same": all(map(equal, before, map(numbers, teacher_models(model)))),
            "teachers_frozen": not any(p.requires_grad for each in teacher_models(model) for p in each.parameters()),
            "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
        }
    return found


@pytest.fixture(scope="module")
def sections(student_config, tiny_corpus, tiny_pseudo, tiny_tarred, tiny_teacher_path, tmp_path_factory):
    """A function that returns the `model` sections of the kinds of students, by name."""
    directory = tmp_path_factory.mktemp("teachers")
    text = [(str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))]
    projected = {"hidden": {"weight": 1.0, "projection": True}, "attention": {"weight": 1.0}}

    def section(objective=None, distillation=None, **overrides) -> dict:
        config = student_config(objective=objective, **overrides)
        config.validation_ds.src_file_name = str(tiny_corpus / "test.de")
        config.validation_ds.tgt_file_name = str(tiny_corpus / "test.en")
        config.beam_size = 1
        return OmegaConf.to_container(OmegaConf.merge(config, {"distillation": distillation or {}}))

    def projected_section() -> dict:
        return section(projected)

    def initialised_section() -> dict:
        return section({"hidden": {"weight": 1.0}}, {"init": {"from_teacher": "every_nth"}}, hidden_size=32)

    def ensemble_section() -> dict:
        other = MTEncDecModel.restore_from(str(tiny_teacher_path))
        other.decoder.embedding.token_embedding.weight.data *= 1.1
        other.save_to(str(directory / "other.nemo"))
        return section(None, {"teacher": {"model_path": [str(tiny_teacher_path), str(directory / "other.nemo")]}})

    def cached_section() -> dict:
        write_cache([str(tiny_teacher_path)], text, directory / "cache", CacheSettings(8, [1.0]))
        built = section()
        built["distillation"]["teacher"] = {"cache": str(directory / "cache")}
        return built

    def mixed_section() -> dict:
        components = {"gold": {"metadata_file": str(tiny_tarred)}, "pseudo": {"directory": str(tiny_pseudo)}}
        shares = {"gold": 0.5, "pseudo": 0.5}
        return section(None, {"mixture": {"components": components, "probabilities": shares}})

    makers = {
        "projected": projected_section,
        "initialised": initialised_section,
        "ensemble": ensemble_section,
        "cached": cached_section,
        "mixed": mixed_section,
    }
    return lambda *names: {name: makers[name]() for name in names}


def check(results: list[dict[str, dict]], directory: Path, teachers: dict[str, int]) -> None:
    for name, count in teachers.items():
        for result in (each[name] for each in results):
            assert equal(result["weights"], results[0][name]["weights"]), name  # the same bits in every process
            told = ("moved", "frozen_same", "flags_same", "own", "teachers_same", "teachers_frozen")
            assert {key: result[key] for key in told} == dict.fromkeys(told, True), name
            assert result["teachers"] == count
            assert {"train_loss", "val_loss", "val_sacreBLEU"} <= result["metrics"].keys()
        checkpoint = torch.load(directory / f"{name}.ckpt", weights_only=False)
        assert checkpoint["state_dict"].keys() == results[0][name]["weights"].keys()
        assert not [path for path in checkpoint["state_dict"] if "teacher" in path]
        assert sum(group["params"] != [] for group in checkpoint["optimizer_states"][0]["param_groups"])
        restored = numbers(MTEncDecModel.restore_from(str(directory / f"{name}.nemo")))
        student = {
            path: array for path, array in results[0][name]["weights"].items() if not path.startswith("objective.")
        }
        assert equal(restored, student), name


@pytest.mark.parametrize("devices", [2, *slow(1)])
def test_a_partly_frozen_student_with_projections(sections, tmp_path, devices):
    chosen = sections("projected")
    results = run_processes(train, chosen, tmp_path, devices, world_size=devices)
    check(results, tmp_path, {"projected": 1})
    assert any(path.startswith("objective.") for path in results[0]["projected"]["weights"])


@pytest.mark.slow
def test_students_of_every_kind(sections, tmp_path):
    """Started from the teacher's layers; of an ensemble; of a cache; on a mixture with a tarred set."""
    teachers = {"initialised": 1, "ensemble": 2, "cached": 0, "mixed": 1}
    check(run_processes(train, sections(*teachers), tmp_path, 2), tmp_path, teachers)


def take_batches(section: dict, epochs: int) -> list[list[list[list[int]]]]:
    """Return the target sentences that this process trains on, epoch by epoch, as token ids without padding."""
    seed_everything(1)
    only = {"max_steps": -1, "max_epochs": epochs, "val_check_interval": None, "limit_val_batches": 0}
    trainer = build_trainer(OmegaConf.create({**TRAINER, **only, "devices": 2, "check_val_every_n_epoch": 1}))
    model = DistilledMTEncDecModel(OmegaConf.create(section), trainer=trainer)
    taken, step = [[] for _ in range(epochs)], model.training_step

    def recording_step(batch, batch_idx):
        labels, mask = batch[4].squeeze(0), batch[3].squeeze(0).bool()
        taken[trainer.current_epoch] += [[row[own].tolist() for row, own in zip(labels, mask, strict=True)]]
        return step(batch, batch_idx)

    model.training_step = recording_step
    trainer.fit(model)
    return taken


def test_the_ordinary_loader_gives_every_pair_in_every_epoch(sections, tiny_corpus):
    """Only what is left over of a last round is taken again, so that both processes have equally many batches."""
    section = sections("projected")["projected"]
    section["distillation"]["objective"] = {"word_kd": {"weight": 0}}
    section["train_ds"]["tokens_in_batch"] = 900
    first, second = run_processes(take_batches, section, 2)
    sizes = set()
    for own, other in zip(first, second, strict=True):
        assert len(own) == len(other)
        batches = Counter(str(batch) for batch in own + other)
        sizes.add(len(batches))
        assert sum(batches.values()) - len(batches) <= 1
        assert sum(len(batch) for batch in {str(batch): batch for batch in own + other}.values()) == 160
    assert len(sizes) == 1
    assert first[0] != first[1]  # another order in each epoch
