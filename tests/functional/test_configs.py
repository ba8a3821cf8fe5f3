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
"""Every YAML that is shipped: composed, trained for two steps, and of the size that it promises."""

import inspect
import types
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from slow_cases import quick

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.mixing.dataset import build_mixture_loader
from nemo_distill.data.tokenizer import name_libraries
from nemo_distill.errors import InputError
from nemo_distill.teachers.cache_writer import write_cache
from nemo_distill.training import trainer as lightning
from nemo_distill.training.run import run_training

CONFIGS = Path(__file__).parents[2] / "configs"
ENTRIES = {"train_nmt": MTEncDecModel, "distill": DistilledMTEncDecModel}
# Of slim_1x1 18.9 M are published, which does not fit the 21.9 M of slim_3x3: it is that less four layers (see below).
PUBLISHED = {"slim_1x1": 18.26e6, "wide_1x1": 95.0e6, "slim_3x3": 21.9e6, "wide_3x3": 153e6, "teacher_24x6": 468e6}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


MODELS = [name for name in names("model") if name != "base"]


@pytest.fixture(scope="module")
def tiny_cache(tiny_corpus, tiny_pseudo, tiny_teacher_path, tmp_path_factory) -> Path:
    """The teacher's outputs for the training text, which its archive's languages process, and for the labels."""
    directory = tmp_path_factory.mktemp("cache") / "cache"
    pair = str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en")
    labels = str(tiny_pseudo / "source.txt"), str(tiny_pseudo / "hypotheses.txt")
    write_cache([str(tiny_teacher_path)], [pair], directory, form="raw", labels=[labels])
    return directory


@pytest.fixture
def composed(tiny_corpus, tiny_tokenizer, tiny_teacher_path, tiny_pseudo, tiny_cache, tmp_path):
    """A function that composes an entry configuration as the scripts do, on the tiny corpus."""

    def build(entry: str, *overrides: str):
        given = [f"data.dir={tiny_corpus}", f"data.tokenizer={tiny_tokenizer}", f"output_dir={tmp_path / 'run'}"]
        if entry == "distill":
            given += [f"teacher={tiny_teacher_path}", f"pseudo={tiny_pseudo}", f"cache={tiny_cache}"]
        with initialize_config_dir(str(CONFIGS), version_base=None):
            return compose(entry, [*given, *overrides])

    return build


# Layers, dropout, heads and optimizer stay as shipped; only the widths shrink.
SHRUNK = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32", "model.encoder.num_attention_heads=2"]
LIKE_ITS_TEACHER = ["model.encoder.max_sequence_length=64"]  # what a student that starts from it must share
TWO_STEPS = ["trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.enable_progress_bar=false"]
TWO_STEPS.append("model.max_generation_delta=3")  # an untrained model ends no hypothesis before it has to


def test_the_groups_are_those_of_the_entries():
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {"data", "distillation", "model", "trainer"}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(ENTRIES)
    assert set(PUBLISHED) <= set(MODELS)


# Of those that differ little, such as one with a cache in place of a live teacher, one trains in the quick suite.
FURTHER_APART = ("distilbert", "hinton", "hybrid_nbest", "interpolation", "low_data", "recommended")
FURTHER_APART += ("recommended_disturbed", "recommended_unlabelled")
# `deep_tiny_6x2` trains for the other deep ones, which differ in numbers alone; unit/jobs/test_sizes.py composes all.
TRAINED = [name for name in MODELS if not name.startswith(("deep_base", "deep_medium"))]


@pytest.mark.parametrize("model", quick(TRAINED, "deep_tiny_6x2", "small_3x3", "tiny_1x1"))
def test_every_model_trains(composed, model):
    config = composed("train_nmt", f"model={model}", *SHRUNK, *TWO_STEPS)
    layers = OmegaConf.load(CONFIGS / "model" / f"{model}.yaml")
    restored = MTEncDecModel.restore_from(str(run_training(config, MTEncDecModel)))
    assert len(restored.encoder.encoder.layers) == layers.encoder.num_layers
    assert len(restored.decoder.decoder.layers) == layers.decoder.num_layers


@pytest.mark.parametrize("distillation", quick(names("distillation"), *FURTHER_APART))
def test_every_objective_trains(composed, distillation):
    config = composed("distill", f"distillation={distillation}", *SHRUNK, *TWO_STEPS, *LIKE_ITS_TEACHER)
    archive = run_training(config, DistilledMTEncDecModel)
    assert "distillation" not in MTEncDecModel.restore_from(str(archive)).cfg


def test_what_is_recommended_has_no_dropout_but_what_is_asked_for(composed):
    """Of any model: most files say 0.1. The plain twin keeps it."""
    rates = [f"{kind}_dropout" for kind in ("embedding", "ffn", "attn_score", "attn_layer")]
    for side in ("encoder", "decoder"):
        section = composed("distill", "distillation=recommended", "model=small_3x3").model[side]
        assert [section[rate] for rate in rates] == [0.0] * 4
        plain = composed("train_nmt", "model=small_3x3").model[side]
        assert [plain[rate] for rate in rates] == [0.1] * 4
    asked = composed("distill", "distillation=recommended", "model=small_3x3", "model.encoder.ffn_dropout=0.2").model
    assert (asked.encoder.ffn_dropout, asked.decoder.ffn_dropout) == (0.2, 0.2)


def test_what_is_recommended_reads_a_cache_where_one_is_given(composed):
    """Beside the archive, which the start needs; `test_every_objective_trains` has both, this one trains without."""
    given = ["distillation=recommended", *SHRUNK, *TWO_STEPS, *LIKE_ITS_TEACHER]
    for cache in ([], ["cache=???"]):
        config = composed("distill", *given, *cache)
        section = DistillationConfig.from_section(OmegaConf.to_container(config.model.distillation, resolve=True))
        assert (section.teacher.cache is None) == bool(cache)
        assert section.teacher.has_model
        assert (section.init.from_teacher, section.init.width) == ("every_nth", "project")
    run_training(config, DistilledMTEncDecModel)


READ = {"seq_level": "pseudo", "interpolation": "pseudo", "interpolation_nbest": "pseudo", "nll": ""}
READ |= {
    "hinton_cached": "cache",
    "hybrid": "teacher pseudo",
    "hybrid_cached": "pseudo cache",
    "hybrid_nbest": "teacher pseudo",
    "low_data": "teacher pseudo",
    "recommended_disturbed": "teacher pseudo",
    "recommended_unlabelled": "teacher pseudo",
    "semi_supervised": "teacher pseudo",
}


@pytest.mark.parametrize("distillation", names("distillation"))
def test_an_objective_asks_only_for_what_it_reads(composed, distillation):
    preset = f"distillation={distillation}"
    needed = READ.get(distillation, "teacher").split()
    config = composed("distill", preset, "teacher=???", "pseudo=???", "cache=???", *SHRUNK, *TWO_STEPS)
    if needed:
        with pytest.raises(InputError, match=f"^no value for {', '.join(needed)}; give {needed[0]}="):
            run_training(config, DistilledMTEncDecModel)
    else:
        run_training(config, DistilledMTEncDecModel)


def test_semi_supervised_hears_the_teacher_and_little_gold(composed, load_tiny_tokenizer):
    """As its header says: the word-level term on every batch, a tenth of them gold, no source disturbed."""
    config = composed("distill", "distillation=semi_supervised", *SHRUNK).model
    section = DistillationConfig.from_section(OmegaConf.to_container(config.distillation, resolve=True))
    assert section.objective.word_kd.weight == section.objective.nll.weight == 1
    assert section.mixture.probabilities == pytest.approx({"gold": 0.1, "pseudo": 0.9})
    tokenizer = load_tiny_tokenizer()
    settings = {"tokens_in_batch": 32, "max_seq_length": 128, "clean": True}
    dataset = build_mixture_loader(section.mixture, settings, tokenizer, tokenizer).dataset
    draws = [dataset.draw(number).component for number in range(len(dataset))]
    assert draws.count(0) == round(0.1 * len(draws))
    assert dataset.noise is None


@pytest.mark.parametrize("entry", ENTRIES)
def test_defaults_of_the_entries(composed, entry):
    config = composed(entry)
    assert config.trainer.accelerator == "cpu"
    assert config.model.label_smoothing == 0
    assert config.keep == "best"
    if entry == "distill":
        assert config.model.distillation.objective.word_kd.weight > 0
        assert config.model.distillation.objective.nll.weight > 0


def test_gpu_trainer(composed, monkeypatch):
    """Composed, and built as if two GPUs were there: DDP over NCCL, without Apex."""
    config = composed("distill", "trainer=gpu").trainer
    assert config.accelerator == "gpu"
    assert config.precision == "bf16-mixed"
    arguments = {}
    known = inspect.signature(lightning.pl.Trainer)
    trainer = types.SimpleNamespace(max_epochs=-1, check_val_every_n_epoch=None, world_size=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lightning.inspect, "signature", lambda _: known)
    monkeypatch.setattr(lightning.pl, "Trainer", lambda **given: arguments.update(given) or trainer)
    lightning.build_trainer(config)
    assert type(arguments["strategy"]).__name__ == "DDPStrategy"
    assert arguments["strategy"]._process_group_backend == "nccl"
    assert arguments["strategy"]._ddp_kwargs == {"find_unused_parameters": True}
    assert set(config) <= set(known.parameters)


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_sizes(composed, model):
    """Parameter counts with a vocabulary of 32,000 pieces, as published."""
    config = composed("train_nmt", f"model={model}").model
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True) | {"train_ds": None, "validation_ds": None})
    name_libraries(config)
    with torch.device("meta"):
        built = MTEncDecModel(config)
    hidden, vocabulary = config.encoder.hidden_size, built.decoder_vocab_size
    if model == "slim_1x1":  # two encoder layers and two decoder layers: attention, feed-forward, norms
        attention, feed_forward, norm = 4 * (256 * 256 + 256), 2 * 256 * 1024 + 256 + 1024, 2 * 256
        further = 2 * (attention + feed_forward + 2 * norm) + 2 * (2 * attention + feed_forward + 3 * norm)
        assert PUBLISHED["slim_3x3"] - further == pytest.approx(PUBLISHED[model], rel=0.01)
    # Two tables of embeddings, the target's shared with the head, and the head's bias.
    missing = (32_000 - vocabulary) * (2 * hidden + 1)
    assert sum(parameter.numel() for parameter in built.parameters()) + missing == pytest.approx(
        PUBLISHED[model], rel=0.01
    )
