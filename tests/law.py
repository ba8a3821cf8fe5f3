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
"""The law of pseudo-labels: read back as training reads them, they have the scores that nbest.jsonl gives.

    python tests/law.py --teacher teacher.nemo --input train.de --lines 1000 --output-dir law --beam-size 4

labels the first lines of a text with `nemo-distill pseudo-label`, to which all further options go, reads the labels
back as a mixture and as NeMo's `train_ds` do, and compares score and teacher-forced score, per token.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from nemo.collections.nlp.data import TranslationDataset

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.mixing.components import load_batches
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.support import files, text_files

TOLERANCE = 1e-3
"""Nats per token."""

Ids = list[list[int]]


def read_by_mixture(directory: Path, model) -> tuple[Ids, Ids]:
    """Return source and target ids of all lines, as a mixture reads pseudo-labels."""
    tokenizers = model.encoder_tokenizer, model.decoder_tokenizer
    component = ComponentConfig(directory=str(directory))
    batches = load_batches("labels", component, {"tokens_in_batch": 10_000, "clean": False}, *tokenizers, seed=0)
    return [row.tolist() for row in batches.sources], [row.tolist() for row in batches.targets]


def read_by_nemo(directory: Path, model) -> tuple[Ids, Ids]:
    """Return source and target ids of all lines, as NeMo's data set reads the same files."""
    [paths] = ComponentConfig(directory=str(directory)).text_files
    dataset = TranslationDataset(*paths, tokens_in_batch=10_000)
    dataset.batchify(model.encoder_tokenizer, model.decoder_tokenizer)
    found = {}
    for number, places in enumerate(dataset.batch_indices):
        for row, place in enumerate(places):
            pads = (model.encoder_tokenizer.pad_id, model.decoder_tokenizer.pad_id)
            found[place] = [
                [*itertools.takewhile(lambda id_, pad=pad: id_ != pad, dataset.batches[number][side][row].tolist())]
                for side, pad in zip(("src", "tgt"), pads, strict=True)
            ]
    sources, targets = zip(*(found[place] for place in sorted(found)), strict=True)
    return list(sources), list(targets)


def forced_scores(models: Sequence, sources: Ids, targets: Ids, batch: int = 64) -> list[float]:
    """Return the log-probability of each target, the models' probabilities averaged; float32, as in training."""
    order = sorted(range(len(sources)), key=lambda place: (len(sources[place]), len(targets[place])))
    scores = [0.0] * len(sources)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        tensors = []
        for rows in ([sources[place] for place in places], [targets[place] for place in places]):
            tensors.append(torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True))
            lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
            tensors.append((torch.arange(tensors[-1].shape[1]) < lengths).long())
        source, source_mask, target, mask = tensors
        with torch.no_grad():
            each = [model(source, source_mask, target[:, :-1], mask[:, 1:]).double() for model in models]
        mean = torch.stack(each).logsumexp(dim=0) - math.log(len(models))  # [B, L, V]
        chosen = mean.gather(2, target[:, 1:, None]).squeeze(2) * mask[:, 1:]
        for place, score in zip(places, chosen.sum(dim=1).tolist(), strict=True):
            scores[place] = score
    return scores


def kept_hypotheses(directory: Path) -> list:
    """Return the hypothesis that was chosen for each line that was kept, as nbest.jsonl has it."""
    dropped = {int(row.split("\t")[0]) for row in text_files.read_lines(directory / "dropped.tsv")[1:]}
    rows = [row for row in read_nbest(directory / "nbest.jsonl") if row.line not in dropped]
    [(_, target)] = ComponentConfig(directory=str(directory)).text_files
    texts = text_files.read_lines(target)
    return [
        next(one for one in row.hypotheses if getattr(one, "trained_text", one.text) == text)
        for row, text in zip(rows, texts, strict=True)
    ]


def differences(directory: Path, models: Sequence) -> dict[str, list[float]]:
    """Return |score - teacher-forced score| per token of each line, by what read the labels."""
    found, chosen = {}, kept_hypotheses(directory)
    for name, read in (("mixture", read_by_mixture), ("NeMo", read_by_nemo)):
        sources, targets = read(directory, models[0])
        scores = forced_scores(models, sources, targets)
        found[name] = [abs(one.score - score) / one.length for one, score in zip(chosen, scores, strict=True)]
    return found


def within(values: Sequence[float]) -> float:
    """Return the share of lines that keep the law."""
    return sum(value <= TOLERANCE for value in values) / len(values)


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Label, read back, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", nargs="+", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--lines", type=int, default=1000)
    args, options = parser.parse_known_args()
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    files.write_lines_atomic(output / "input.txt", text_files.read_lines(args.input)[: args.lines])
    labels = output / "labels"
    words = ["--teacher", *args.teacher, "--input", str(output / "input.txt"), "--output-dir", str(labels)]
    if cli.main(["pseudo-label", *words, *options]):
        raise SystemExit(2)
    models = [restore_model(path) for path in args.teacher]
    manifest = json.loads((labels / "manifest.json").read_text("utf-8"))
    say(f"engine {manifest['engine']}, lines {manifest['counts']}, read as others {manifest.get('read_back')}")
    for name, values in differences(labels, models).items():
        say(
            f"read by {name}: {len(values)} lines, per token: largest {max(values):.3g}, median "
            f"{statistics.median(values):.3g} nats; within {TOLERANCE}: {100 * within(values):.2f} %"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
