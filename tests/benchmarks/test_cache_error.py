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
"""What does a student lose that learns from what a cache keeps, in place of the teacher's whole distributions?

    BENCH_MODEL=teacher.nemo BENCH_STUDENT=student.nemo BENCH_SOURCE=test.de BENCH_TARGET=test.en \\
        python -m pytest -m slow tests/benchmarks/test_cache_error.py

compares, on real text, the word-level term and its gradient with those of the teacher's unrounded distributions;
without these variables it takes models of random weights and made-up text. BENCH_SENTENCES=200 takes 200 sentences,
and BENCH_JSON=file.json writes the table there. Nothing is timed.
"""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from nemo_distill.archives.restore import restore_model
from nemo_distill.data.vocabulary import check_vocabularies
from nemo_distill.losses.divergence import WordLevelKDLoss
from nemo_distill.losses.top_k import kept_loss
from nemo_distill.teachers.cache_records import Records

TEMPERATURES = (1.0, 2.0, 5.0)
KEPT = ((8, 0), (24, 0), (64, 0), (1, 22), (4, 19), (8, 15), (16, 7), (8, 56))
"""Best words, and drawn ones: the 24 and 23 words take 63 bytes a token with a vocabulary of 4,000."""
SENTENCES_A_BATCH = 128


def _batches(teacher, student, sources: list[str], targets: list[str]):
    """Yield the logits of both models over the real target tokens of some sentences, [N, V].

    The student's have a graph.
    """
    tokenizers = teacher.encoder_tokenizer, teacher.decoder_tokenizer
    for start in range(0, len(sources), SENTENCES_A_BATCH):
        source, target = (
            pad_sequence(
                [
                    torch.tensor([tokenizer.bos_id, *tokenizer.text_to_ids(line), tokenizer.eos_id])
                    for line in lines[start : start + SENTENCES_A_BATCH]
                ],
                True,
                tokenizer.pad_id,
            )
            for tokenizer, lines in zip(tokenizers, (sources, targets), strict=True)
        )
        inputs, real = target[:, :-1], target[:, 1:] != tokenizers[1].pad_id
        masks = [(ids != each.pad_id).int() for ids, each in zip((source, inputs), tokenizers, strict=True)]
        found = []
        for model in (teacher, student):
            with torch.set_grad_enabled(model is student):
                states = model.encoder(input_ids=source, encoder_mask=masks[0])
                states = model.decoder(
                    input_ids=inputs, decoder_mask=masks[1], encoder_embeddings=states, encoder_mask=masks[0]
                )
                found.append(model.log_softmax.mlp.layer0(states[real]))
        yield tuple(found)


def _gradients(total: torch.Tensor, logits: torch.Tensor, parameters) -> list[torch.Tensor]:
    """Return the gradient of a sum over tokens by each logit, [N, V], and by all parameters, [P]."""
    by_logits, *by_parameters = torch.autograd.grad(total, [logits, *parameters], retain_graph=True)
    return [by_logits, torch.cat([each.flatten() for each in by_parameters])]


class _Errors:
    """Sums over batches of what one way of keeping finds."""

    def __init__(self, temperature: float, top_k: int, sampled: int, vocabulary: int) -> None:
        self.records = Records(top_k, sampled, TEMPERATURES, vocabulary)
        self.column, self.kd = TEMPERATURES.index(temperature), WordLevelKDLoss(temperature)
        self.value = self.wanted_value = self.tokens_error = self.tokens_norm = 0.0
        self.batches, self.found, self.wanted, self.tokens = [], 0, 0, 0

    def add(self, encoded: np.ndarray, logits: torch.Tensor, parameters, whole: tuple) -> None:
        value, (by_logits, by_parameters) = whole
        mask = torch.ones(1, len(logits), dtype=torch.bool)
        targets = self.records.targets(encoded, self.column, "cpu")
        total = kept_loss(student_logits=logits[None], targets=targets, mask=mask, kd=self.kd) * len(logits)
        found = _gradients(total, logits, parameters)
        self.value, self.wanted_value = self.value + total.item(), self.wanted_value + value
        self.tokens_error += (found[0] - by_logits).norm(dim=1).sum().item()
        self.tokens_norm += by_logits.norm(dim=1).sum().item()
        self.batches.append(((found[1] - by_parameters).norm() / by_parameters.norm()).item())
        self.found, self.wanted = self.found + found[1], self.wanted + by_parameters
        self.tokens += len(logits)

    def row(self) -> dict:
        return {
            "temperature": self.kd.temperature,
            "top_k": self.records.top_k,
            "sampled": self.records.sampled,
            "bytes_per_token": self.records.dtype.itemsize,
            "tokens": self.tokens,
            "batches": len(self.batches),
            "kl": self.wanted_value / self.tokens,
            "kl_error": self.value / self.wanted_value - 1,
            "gradient_error_of_tokens": self.tokens_error / self.tokens_norm,
            "gradient_error_of_batches": sum(self.batches) / len(self.batches),
            "gradient_error_of_text": ((self.found - self.wanted).norm() / self.wanted.norm()).item(),
        }


def _table(teacher, student, sources: list[str], targets: list[str]) -> list[dict]:
    vocabulary = teacher.decoder.vocab_size
    kinds = [*KEPT, (vocabulary, 0)]
    errors = [_Errors(temperature, *kept, vocabulary) for temperature in TEMPERATURES for kept in kinds]
    parameters = [parameter.requires_grad_() for parameter in student.parameters()]
    for number, (teacher_logits, logits) in enumerate(_batches(teacher, student, sources, targets)):
        uniform = np.random.default_rng(number).random(len(logits))
        encoded = {kept: Records(*kept, TEMPERATURES, vocabulary).encode(teacher_logits, uniform) for kept in kinds}
        mask, whole = torch.ones(1, len(logits), dtype=torch.bool), {}
        for temperature in TEMPERATURES:
            kd = WordLevelKDLoss(temperature)
            total = kd(student_logits=logits[None], teacher_logits=teacher_logits[None], mask=mask) * len(logits)
            whole[temperature] = total.item(), _gradients(total, logits, parameters)
        for each in errors:
            kept = each.records.top_k, each.records.sampled
            each.add(encoded[kept], logits, parameters, whole[each.kd.temperature])
    return [each.row() for each in errors]


@pytest.fixture
def student(model_config):
    """The model of BENCH_STUDENT, else tiny_1x1 with random weights."""
    from nemo.collections.nlp.models import MTEncDecModel
    from omegaconf import open_dict

    if "BENCH_STUDENT" in os.environ:
        return restore_model(os.environ["BENCH_STUDENT"])
    config = model_config("tiny_1x1")
    with open_dict(config):
        del config["train_ds"], config["validation_ds"]
    torch.manual_seed(1)
    return MTEncDecModel(config).eval()


@pytest.mark.slow
def test_what_a_cache_leaves_out_of_a_real_teacher(translation_model, student, sentences, references, capsys) -> None:
    check_vocabularies(student, translation_model)
    rows = _table(translation_model, student, sentences, references)
    with capsys.disabled():
        print(f"\n{rows[0]['tokens']} target tokens in {rows[0]['batches']} batches:")
        print(
            "  temp.  best  drawn  bytes/token     KL   its error   error of the gradient: by logits   batch    text"
        )
        for row in rows:
            print(
                f"  {row['temperature']:<4g}{row['top_k']:7}{row['sampled']:7}{row['bytes_per_token']:13}"
                f"{row['kl']:9.4f}{row['kl_error']:11.2%}{row['gradient_error_of_tokens']:33.1%}"
                f"{row['gradient_error_of_batches']:10.1%}{row['gradient_error_of_text']:8.1%}"
            )
    if "BENCH_JSON" in os.environ:
        Path(os.environ["BENCH_JSON"]).write_text(json.dumps(rows, indent=1) + "\n")
    for temperature in TEMPERATURES:
        kept = {(row["top_k"], row["sampled"]): row for row in rows if row["temperature"] == temperature}
        errors = [kept[k, 0]["gradient_error_of_tokens"] for k in (8, 24, 64)]
        assert errors == sorted(errors, reverse=True)
        for few, more in itertools.pairwise([(8, 15), (8, 56)]):
            assert kept[more]["gradient_error_of_batches"] < kept[few]["gradient_error_of_batches"]
        if rows[0]["batches"] >= 4:  # what is drawn averages out
            assert kept[8, 15]["gradient_error_of_text"] < 0.8 * kept[8, 15]["gradient_error_of_batches"]
