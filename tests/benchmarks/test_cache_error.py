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
"""What does a student lose that sees k words of its teacher and a bucket, in place of the whole distribution?

    BENCH_MODEL=teacher.nemo BENCH_STUDENT=student.nemo BENCH_SOURCE=test.de BENCH_TARGET=test.en \\
        python -m pytest -m slow tests/benchmarks/test_cache_error.py

compares, token by token on real text, KL and gradient of k words with those of the whole vocabulary; without these
variables it takes models of random weights and made-up text. BENCH_SENTENCES=200 takes 200 sentences, and
BENCH_JSON=file.json writes the table there. Nothing is timed.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from nemo_distill.archives.restore import restore_model
from nemo_distill.data.vocabulary import check_vocabularies
from nemo_distill.losses.divergence import WordLevelKDLoss
from nemo_distill.losses.signals import TopKTargets
from nemo_distill.losses.top_k import top_k_loss
from nemo_distill.teachers.cache_format import token_dtype
from nemo_distill.teachers.frozen import FrozenTeacher

WORDS_KEPT = (4, 8, 16, 32, 64)
TEMPERATURES = (1.0, 2.0)
SENTENCES_A_BATCH = 16


def _logits(teacher, student, sources: list[str], targets: list[str]):
    """Yield the logits of both models over the real target tokens of a few sentences, [N, V], [N, V]."""
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
        inputs, labels = target[:, :-1], target[:, 1:]
        masks = [(ids != each.pad_id).int() for ids, each in zip((source, inputs), tokenizers, strict=True)]
        batch = [source, masks[0], inputs, masks[1], labels]
        real = labels != tokenizers[1].pad_id
        yield tuple(FrozenTeacher(model).logits(batch)[real] for model in (teacher, student))


def _targets(logits: torch.Tensor, k: int, temperature: float, half: bool) -> TopKTargets:
    """Return what a cache holds of the logits of N tokens, [N, V]."""
    top, best = logits.topk(k), logits.amax(-1, keepdim=True)
    kept = top.values - best
    normaliser = ((logits - best) / temperature).logsumexp(-1)
    return TopKTargets(top.indices, kept.half() if half else kept, normaliser)


def _seen_kl(log_p: torch.Tensor, targets: TopKTargets, temperature: float) -> torch.Tensor:
    """Return the KL of k words and a bucket of each token, [N], by its definition."""
    log_q, rest_q = targets.log_shares(temperature, log_p.dtype)
    rest_p = log_p.exp().scatter(-1, targets.ids, 0).sum(-1)
    words = (log_q.exp() * (log_q - log_p.gather(-1, targets.ids))).sum(-1)
    return words + torch.xlogy(rest_q, rest_q) - torch.xlogy(rest_q, rest_p)


def _gradient(logits: torch.Tensor, loss) -> torch.Tensor:
    """Return the gradient of each token's loss by its logits, [N, V]; `loss` is a mean over tokens."""
    logits = logits[None].clone().requires_grad_()
    return torch.autograd.grad(loss(logits) * logits.shape[1], logits)[0][0]


def _batch_sums(teacher_logits: torch.Tensor, student_logits: torch.Tensor, temperature: float) -> dict:
    """Return sums over N tokens: under None KL and gradient norm of the whole, else of each k what it misses."""
    kd, mask = WordLevelKDLoss(temperature, scale_by_temperature=False), torch.ones(1, len(teacher_logits)).bool()
    log_p, log_q = ((logits / temperature).log_softmax(-1) for logits in (student_logits, teacher_logits))
    whole = (log_q.exp() * (log_q - log_p)).sum(-1)
    gradient = _gradient(
        student_logits, lambda w: kd(student_logits=w, teacher_logits=teacher_logits[None], mask=mask)
    )
    sums = {None: torch.stack([torch.tensor(float(len(whole))), whole.sum(), gradient.norm(dim=-1).sum()])}
    for k, half in itertools.product(WORDS_KEPT, (False, True)):
        targets = _targets(teacher_logits, k, temperature, half)
        value = _seen_kl(log_p, targets, temperature)
        found = _gradient(
            student_logits, lambda w, t=targets: top_k_loss(student_logits=w, targets=t, mask=mask, kd=kd)
        )
        mass = log_q.gather(-1, targets.ids).exp().sum(-1)
        parts = value, (value - whole).abs(), (found - gradient).norm(dim=-1), mass
        sums[k, half] = torch.stack([part.sum() for part in parts])
    return sums


def _table(batches, temperature: float, vocabulary: int) -> list[dict]:
    """Return one row for each k, with logits in float32 and as stored: means over all tokens."""
    total: dict = {}
    for teacher_logits, student_logits in batches:
        for key, values in _batch_sums(teacher_logits, student_logits, temperature).items():
            total[key] = total.get(key, 0) + values.double()
    tokens, whole, gradient = total.pop(None).tolist()
    rows = []
    for (k, half), sums in total.items():
        seen, error, gradient_error, mass = sums.tolist()
        rows.append(
            {
                "temperature": temperature,
                "k": k,
                "logits": "float16" if half else "float32",
                "bytes_per_token": token_dtype(k, 1, vocabulary).itemsize + (0 if half else 2 * k),
                "tokens": int(tokens),
                "kl": whole / tokens,
                "kl_seen": seen / tokens,
                "mean_error": error / tokens,
                "relative_error": error / whole,
                "relative_gradient_error": gradient_error / gradient,
                "teacher_mass": mass / tokens,
            }
        )
    return rows


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
    return MTEncDecModel(config)


@pytest.mark.slow
def test_what_a_cache_leaves_out_of_a_real_teacher(translation_model, student, sentences, references, capsys) -> None:
    rows = []
    check_vocabularies(student, translation_model)
    for temperature in TEMPERATURES:
        batches = _logits(translation_model, student, sentences, references)
        rows += _table(batches, temperature, translation_model.decoder.vocab_size)
    with capsys.disabled():
        print(f"\n{rows[0]['tokens']} target tokens, vocabulary {translation_model.decoder.vocab_size}:")
        print("  temp.   k  logits   bytes/token   teacher's mass   KL seen   |error|   relative   of the gradient")
        for row in rows:
            print(
                f"  {row['temperature']:<4g}{row['k']:6}  {row['logits']:<9}{row['bytes_per_token']:9}"
                f"{row['teacher_mass']:17.4f}{row['kl_seen']:12.4f}{row['mean_error']:10.4f}"
                f"{row['relative_error']:10.2%}{row['relative_gradient_error']:14.2%}"
            )
    if "BENCH_JSON" in os.environ:
        Path(os.environ["BENCH_JSON"]).write_text(json.dumps(rows, indent=1) + "\n")
    for temperature, kind in itertools.product(TEMPERATURES, ("float32", "float16")):
        chosen = [row for row in rows if row["temperature"] == temperature and row["logits"] == kind]
        errors = [row["mean_error"] for row in chosen]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < errors[0]
        gradients = [row["relative_gradient_error"] for row in chosen]
        assert gradients == sorted(gradients, reverse=True)
