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
"""Print how often the feed-forward neurons of models are active on a text, and what the text costs them.

    python docs/neuron_activity.py --source data/valid.de --target data/valid.en teacher.nemo student.nemo

The table of `docs/studies.md`, What a slim student starts from. Of text as the models' training read it: nothing is
done to it before it is cut into tokens.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging

LONGEST, BATCH = 48, 200


def padded(rows: list[list[int]], pad: int) -> torch.Tensor:
    """Return sentences as one tensor, [sentences, tokens]."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)


def activity(model: MTEncDecModel, sources: list[str], targets: list[str]) -> tuple[dict[str, torch.Tensor], float]:
    """Return for each feed-forward block the share of the tokens for which each neuron is active, and nats a token."""
    active, counts, nats, labels = {}, {}, 0.0, 0
    pads = {"encoder": model.encoder_tokenizer.pad_id, "decoder": model.decoder_tokenizer.pad_id}
    real: dict[str, torch.Tensor] = {}

    def note(path: str, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        mask = real[path.partition(".")[0]]
        active[path] = active.get(path, 0) + (output[mask] > 0).sum(0)
        counts[path] = counts.get(path, 0) + int(mask.sum())

    named = [(path, module) for path, module in model.named_modules() if path.endswith(".dense_in")]
    hooks = [module.register_forward_hook(partial(note, path)) for path, module in named]
    for first in range(0, len(sources), BATCH):
        rows = {}
        for side, lines in (("encoder", sources), ("decoder", targets)):
            tokenizer = getattr(model, f"{side}_tokenizer")
            ids = map(tokenizer.text_to_ids, lines[first : first + BATCH])
            rows[side] = padded(
                [[tokenizer.bos_id, *each[: LONGEST - 2], tokenizer.eos_id] for each in ids], pads[side]
            )
        source, target, words = rows["encoder"], rows["decoder"][:, :-1], rows["decoder"][:, 1:]
        real = {"encoder": source != pads["encoder"], "decoder": target != pads["decoder"]}
        with torch.no_grad():
            scores = model(source, real["encoder"].long(), target, real["decoder"].long())
        said = words != pads["decoder"]
        nats -= scores.gather(-1, words[..., None])[..., 0][said].sum().item()
        labels += int(said.sum())
    for hook in hooks:
        hook.remove()
    return {path: active[path] / counts[path] for path in active}, nats / labels


def main() -> None:
    """Print a row for each block of each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.nemo")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    sources, targets = (path.read_text("utf-8").splitlines() for path in (arguments.source, arguments.target))
    print("| model | nats a token | block | active, mean | below 1 % of the words | below 0.1 % |")
    print("|---|---:|---|---:|---:|---:|")
    for path in arguments.models:
        shares, nats = activity(MTEncDecModel.restore_from(str(path)).eval(), sources, targets)
        for block, share in shares.items():
            rare = [f"{100 * (share < limit).float().mean():.0f} %" for limit in (0.01, 0.001)]
            print(f"| {path.stem} | {nats:.3f} | {block} | {100 * share.mean():.1f} % | {rare[0]} | {rare[1]} |")


if __name__ == "__main__":
    main()
