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
"""A teacher of an old release in every use: what each says of a pair is what that release would have said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from old_archives import plain_log_probs, sentencepiece_model, write_old_archive

from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.capture import CaptureSpec
from nemo_distill.cli.parser import main
from nemo_distill.config.section import TeacherConfig
from nemo_distill.decoding.exporting import open_export
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_records import to_levels, values_of
from nemo_distill.teachers.cached import CachedTeacher
from nemo_distill.teachers.frozen import FrozenTeacher, load_teacher_model

TOLERANCE = 1e-4
"""Nats a token: float32 against float64, and the order of sums of CTranslate2."""


@pytest.fixture(scope="module")
def text(tiny_corpus, tmp_path_factory) -> dict[str, Path]:
    """Eight pairs, short enough for the teacher, which reads single characters."""
    directory = tmp_path_factory.mktemp("text")
    lines = [(tiny_corpus / f"train.{language}").read_text("utf-8").splitlines() for language in ("de", "en")]
    pairs = [pair for pair in zip(*lines, strict=True) if max(map(len, pair)) < 50][:8]
    for place, language in enumerate(("de", "en")):
        (directory / f"test.{language}").write_text("".join(f"{pair[place]}\n" for pair in pairs), "utf-8")
    return {language: directory / f"test.{language}" for language in ("de", "en")}


@pytest.fixture(scope="module")
def old(text, tmp_path_factory) -> dict:
    """An archive of 1.0.0rc1 without `encoder.mask_future`: what is in it, `path`, and the `batch` of the pairs."""
    path = tmp_path_factory.mktemp("old") / "old.nemo"
    lines = [line for file in text.values() for line in file.read_text("utf-8").splitlines()]

    def change(section: dict) -> None:
        del section["encoder"]["mask_future"]

    # of single characters, spaces included, so that what is written reads back as the same pieces
    plain = {"model_type": "char", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
    pieces = sentencepiece_model(text=lines, vocab_size=100, hard_vocab_limit=False, **plain)
    written = write_old_archive(path, "1.0.0rc1", pieces, change, "sentencepiece")
    tokenizer = restore_model(path).encoder_tokenizer
    sides = [
        torch.nn.utils.rnn.pad_sequence(
            [torch.tensor([2, *tokenizer.text_to_ids(line), 3]) for line in file.read_text("utf-8").splitlines()], True
        )
        for file in text.values()
    ]
    inputs, labels = sides[1][:, :-1], sides[1][:, 1:]
    inputs = inputs * (labels != 0)
    batch = (sides[0], (sides[0] != 0).long(), inputs, (inputs != 0).long(), labels)
    return {**written, "path": path, "batch": batch, "tokenizer": tokenizer}


def expected_log_probs(old: dict) -> torch.Tensor:
    """Return log-probabilities of the words at the real target positions, [N, V]."""
    source, _, target, *_ = old["batch"]
    return plain_log_probs(old, source, target)[target != 0]


def test_live(old):
    """Distributions, and hidden states: a post-norm encoder's output is that of its last layer."""
    model = load_teacher_model(TeacherConfig(model_path=str(old["path"])))
    teacher, spec = FrozenTeacher(model), CaptureSpec("encoder._encoder.layers.1")
    teacher.capture([spec])
    outputs = teacher.outputs(old["batch"])
    found = outputs.signal.values[old["batch"][2] != 0].double().log_softmax(-1)
    assert (found - expected_log_probs(old)).abs().max() < TOLERANCE
    memory = plain_log_probs(old, *old["batch"][:1], old["batch"][2], states=True)
    assert (outputs.captures[spec].double() - memory)[old["batch"][1] != 0].abs().max() < TOLERANCE


def test_cache(old, text, tmp_path):
    options = ["--source", str(text["de"]), "--target", str(text["en"]), "--top-k", "4"]
    assert main(["cache", "--teacher", str(old["path"]), *options, "--output-dir", str(tmp_path / "cache")]) == 0
    teacher = CachedTeacher(LogitCache(tmp_path / "cache"), (old["tokenizer"],) * 2, 1.0)
    targets = teacher.outputs(old["batch"]).signal
    shares, _ = targets.log_shares(1.0, torch.float64)
    expected = expected_log_probs(old)
    best = expected.topk(4)  # which are rounded; the rest is of the logits as they are
    rounded = values_of(to_levels(best.values - best.values[..., :1])).double() + best.values[..., :1]
    whole = expected.double().scatter(-1, best.indices, rounded).logsumexp(-1, keepdim=True)
    found = np.abs(shares.numpy() - (rounded - whole).numpy())
    assert (found < 2e-3).mean() > 0.9  # a few logits lie between two levels
    assert found.max() < 0.1


@pytest.mark.parametrize("engine", ["ctranslate2", "nemo"])
def test_labels(engine, old, text, tmp_path):
    """The score of a hypothesis is that of the tokens that its text reads back as."""
    options = ["--input", str(text["de"]), "--engine", engine, "--max-length-delta", "2", "--max-repeats", "off"]
    options += [
        "--max-repeated",
        "off",
        "--max-length-ratio",
        "off",
        "--ignore-placeholders",
        "--keep-cut",
        "--keep-unknown",
        "--output-dir",
        str(tmp_path / "labels"),
    ]
    assert main(["pseudo-label", "--teacher", str(old["path"]), *options]) == 0
    rows = [json.loads(line) for line in (tmp_path / "labels/nbest.jsonl").read_text("utf-8").splitlines()]
    for row, source in zip(rows, old["batch"][0], strict=True):
        best = row["hypotheses"][0]
        target = torch.tensor([[2, *old["tokenizer"].text_to_ids(best["text"]), 3]])
        assert best["length"] >= target.shape[1] - 2 >= 10  # a hypothesis that was cut has no end
        each = plain_log_probs(old, source[None], target[:, :-1])[0].gather(-1, target[0, 1:, None])
        assert each[: best["length"]].sum() == pytest.approx(best["score"], abs=TOLERANCE * len(each))


def test_evaluate_export_and_init(old, text, tmp_path):
    evaluation = ["--test", f"test:{text['de']}:{text['en']}", "--beam-size", "1", "--output-dir", str(tmp_path / "e")]
    assert main(["evaluate", "--model", str(old["path"]), *evaluation]) == 0
    assert main(["export", "--model", str(old["path"]), "--output-dir", str(tmp_path / "export")]) == 0
    sentences = text["de"].read_text("utf-8").splitlines()
    engine = open_export(tmp_path / "export")
    settings = engine.default_settings
    found = dict(pair for batch in engine.translate(sentences, settings) for pair in batch)
    assert len(found) == len(sentences)
    student = tmp_path / "student.yaml"
    student.write_text(yaml.safe_dump({"encoder": {"num_layers": 1}, "decoder": {"num_layers": 1}}))
    init = ["--student", str(student), "--output", str(tmp_path / "student.nemo")]
    assert main(["init", "--teacher", str(old["path"]), *init]) == 0
    assert read_archive_config(tmp_path / "student.nemo").encoder.mask_future is False
