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
"""Caches, students and pseudo-labels look whether the teacher knows their text."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data import agreement
from nemo_distill.data.samples import samples_of
from nemo_distill.decoding import SearchSettings
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.labels import SelectionSettings, pseudo_label
from nemo_distill.labels.agreement import _lines_at
from nemo_distill.support.compat import lightning
from nemo_distill.support.texts import Texts
from nemo_distill.teachers import CacheSettings, write_cache

pl = lightning()
SWAPPED = "source and target are the wrong way round"


@pytest.fixture(autouse=True)
def text_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 160 pairs of the tiny corpus are as many as a verdict needs."""
    monkeypatch.setattr(agreement, "SAMPLE", 100)


@pytest.fixture
def paths(tiny_corpus) -> tuple[str, str]:
    """The training text, German and English."""
    return str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the library logs."""
    from nemo.utils import logging

    lines: list[str] = []
    monkeypatch.setattr(logging, "info", lambda text, *rest, **options: lines.append(str(text)))
    monkeypatch.setattr(logging, "warning", lambda text, *rest, **options: lines.append(str(text)))
    return lines


def fit(student) -> None:
    """Begin to train, as a trainer does."""
    student.trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    student.on_fit_start()


def test_a_cache_of_swapped_files_is_not_made(tiny_teacher_path, paths, tmp_path):
    said = []
    with pytest.raises(TeacherError, match=f"{SWAPPED}.*--force"):
        write_cache([str(tiny_teacher_path)], [paths[::-1]], tmp_path / "cache", CacheSettings(), announce=said.append)
    assert not (tmp_path / "cache/shards").exists()
    assert not (tmp_path / "cache/manifest.json").exists()
    assert "the other way round" in said[-1]
    manifest, _ = write_cache([str(tiny_teacher_path)], [paths[::-1]], tmp_path / "cache", CacheSettings(), force=True)
    assert manifest["agreement"][0]["nats"] > 3


def test_a_cache_notes_what_its_teacher_makes_of_each_text(
    tiny_teacher_path, student_config, paths, tiny_pseudo, tmp_path, said
):
    labels = str(tiny_pseudo / "source.txt"), str(tiny_pseudo / "hypotheses.txt")
    write_cache([str(tiny_teacher_path)], [paths], tmp_path / "cache", CacheSettings(), labels=[labels])
    gold, pseudo = json.loads((tmp_path / "cache/manifest.json").read_text())["agreement"]
    assert 10 * gold["nats"] < gold["shuffled_nats"]
    assert gold["pairs"] > 100
    assert gold["nats"] < pseudo["nats"] < pseudo["shuffled_nats"]  # "This" in place of "The"
    student = DistilledMTEncDecModel(
        student_config(data=True, **{"distillation.teacher": {"cache": str(tmp_path / "cache")}})
    )
    fit(student)
    assert any(f"cached text 1 of 2: {gold['nats']:.2f} nats" in line for line in said)
    for number, noted in enumerate((gold, pseudo), 1):
        told = f"cached text {number} of 2: the teacher needs only {noted['nats']:.2f} nats"
        assert any(told in line for line in said) == (noted["nats"] < 0.3)
    assert gold["nats"] < 0.3 < pseudo["nats"]  # so that there is one of each


def swapped(config, corpus, tmp_path):
    """Return a student's configuration whose training files are the wrong way round."""
    for split in ("train", "valid"):
        for one, other in (("de", "en"), ("en", "de")):
            shutil.copy(corpus / f"{split}.{one}", tmp_path / f"{split}.{other}")
    config.train_ds.src_file_name, config.train_ds.tgt_file_name = (str(tmp_path / f"train.{x}") for x in ("de", "en"))
    return config


def test_a_student_does_not_learn_from_swapped_files(student_config, tiny_corpus, tmp_path, said):
    student = DistilledMTEncDecModel(swapped(student_config(data=True), tiny_corpus, tmp_path))
    with pytest.raises(TeacherError, match=rf"(?s)the training text: {SWAPPED}.*on_disagreement: warn"):
        fit(student)
    config = swapped(student_config(data=True), tiny_corpus, tmp_path)
    config.distillation.teacher.on_disagreement = "warn"
    fit(DistilledMTEncDecModel(config))
    assert any(SWAPPED in line for line in said)


def test_the_part_of_a_mixture_that_is_told_of_is_the_one_that_is_wrong(student_config, tiny_corpus, tiny_pseudo):
    """Whatever order its components and their shares are named in."""
    gold = {"source": str(tiny_corpus / "train.en"), "target": str(tiny_corpus / "train.de")}
    config = student_config()
    config.distillation.mixture = {
        "components": {"pseudo": {"directory": str(tiny_pseudo)}, "unused": {**gold}, "gold": gold},
        "probabilities": {"gold": 0.5, "unused": 0.0, "pseudo": 0.5},
    }
    with pytest.raises(TeacherError, match=f"gold: {SWAPPED}"):
        fit(DistilledMTEncDecModel(config))


def test_the_other_processes_stop_with_the_first_one(student_config, monkeypatch, said):
    student = DistilledMTEncDecModel(student_config(data=True))
    student.trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    monkeypatch.setattr("nemo_distill.mixin.is_global_rank_zero", lambda: False)
    monkeypatch.setattr(student.trainer.strategy, "broadcast", lambda own, src=0: own or "told by the first")
    with pytest.raises(TeacherError, match="told by the first"):
        student.on_fit_start()
    assert not any("does the teacher know" in line for line in said)


def test_nothing_random_is_drawn_and_the_student_is_untouched(student_config, said):
    student = DistilledMTEncDecModel(student_config(data=True))
    before, weights = torch.get_rng_state(), [each.clone() for each in student.parameters()]
    fit(student)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(*each) for each in zip(weights, student.parameters(), strict=True))
    assert any("the training text: 0." in line for line in said)


def test_a_sample_is_what_training_has_in_memory(student_config, tiny_corpus, tmp_path, monkeypatch):
    """For it the text was read, and tokenized, once more; batches are sorted by length, the sample is in its order."""
    config, text = student_config(), {}
    for side, key in (("de", "src_file_name"), ("en", "tgt_file_name")):
        lines = (tiny_corpus / f"train.{side}").read_text("utf-8").splitlines()
        text[side] = ["", *lines[:50], "", *lines[50:]]  # two that training leaves out
        (tmp_path / side).write_text("\n".join(text[side]) + "\n", "utf-8")
        config.train_ds[key] = str(tmp_path / side)
    student = DistilledMTEncDecModel(config)
    for module in ("files", "text_files"):
        monkeypatch.setattr(f"nemo_distill.support.{module}.open_regular", None)
    (sample,) = samples_of(student._train_ds)
    assert len(sample.pairs) == len(sample.lines) == 160
    assert sample.lines[:4] == [1, 2, 3, 4]
    assert sample.lines[48:54] == [49, 50, 52, 53, 54, 55]
    tokenizers = (student.encoder_tokenizer, student.decoder_tokenizer)
    for line, pair in zip(sample.lines, sample.pairs, strict=True):
        for side, tokenizer, ids in zip(("de", "en"), tokenizers, pair, strict=True):
            assert ids.tolist() == [tokenizer.bos_id, *tokenizer.text_to_ids(text[side][line]), tokenizer.eos_id]


def test_lines_are_taken_out_of_a_text_without_the_rest(tmp_path):
    (tmp_path / "text").write_bytes(b"a\nb\r\n\nd\ne\n\xff\n")  # what comes after the last is not looked at
    text = Texts([tmp_path / "text"])
    assert _lines_at(text, [1, 2, 4]) == ["b", "", "e"]
    assert _lines_at(text, []) == []


def test_each_component_of_a_mixture_is_told_of(student_config, tiny_pseudo, paths, tmp_path, said):
    mixture = {
        "components": {"gold": {"source": paths[0], "target": paths[1]}, "pseudo": {"directory": str(tiny_pseudo)}},
        "probabilities": {"gold": 0.5, "pseudo": 0.5},
    }
    fit(DistilledMTEncDecModel(student_config(data=True, **{"distillation.mixture": mixture})))
    assert [name for name in ("gold", "pseudo") if any(f"this text? {name}:" in line for line in said)] == [
        "gold",
        "pseudo",
    ]
    mixture["components"]["pseudo"] = {"source": paths[1], "target": paths[0]}
    with pytest.raises(TeacherError, match=f"pseudo: {SWAPPED}"):
        fit(DistilledMTEncDecModel(student_config(data=True, **{"distillation.mixture": mixture})))


@pytest.mark.parametrize("engine", ["nemo", "ctranslate2"])
def test_labels_are_not_chosen_by_gold_text_of_other_lines(tiny_teacher_path, paths, tmp_path, engine, said):
    lines = Path(paths[1]).read_text("utf-8").splitlines()
    gold = tmp_path / "gold.en"
    gold.write_text("\n".join([*lines[1:], lines[0]]) + "\n", encoding="utf-8")
    selection = SelectionSettings(select="closest-bleu", target=str(gold))
    search = SearchSettings(beam_size=2, num_hypotheses=2)
    with pytest.raises(InputError, match="the lines do not belong together.*--force"):
        pseudo_label([tiny_teacher_path], paths[0], tmp_path / "labels", search, selection, engine=engine)
    selection = SelectionSettings(select="closest-bleu", target=paths[1])
    pseudo_label([tiny_teacher_path], paths[0], tmp_path / "others", search, selection, engine=engine)
    assert any("where the same are shuffled" in line for line in said)
