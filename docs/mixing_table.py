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
"""Print the table of `docs/mixing.md`: epoch sizes and shares over five epochs, for processes and workers.

The corpora are made up: 4,000 gold pairs and 6,000 pseudo pairs of numbered words. Everything else is the code that
trains: files, batches, schedule, sampler, loader. `python docs/mixing_table.py` takes about a minute.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nemo.utils import logging

from nemo_distill.config import ComponentConfig, MixtureConfig
from nemo_distill.data.mixing import build_mixture_loader

EPOCHS = 5
SIZES = {"gold": 4000, "pseudo": 6000}
PROBABILITIES = {"gold": 0.34, "pseudo": 0.66}
HEADINGS = (
    *("processes", "workers", "batches of an epoch, each process", "gold, % of batches", "gold, % of target tokens"),
    *("each gold pair was seen", "each pseudo pair was seen", "same order again"),
)


class NumberedWords:
    """A tokenizer for words that are numbers: the id of each is its number and some."""

    pad_id, bos_id, eos_id, unk_id, vocab_size = 0, 1, 2, 3, 20_000

    def text_to_ids(self, text: str) -> list[int]:
        """Return one id for each word."""
        return [int(word) + 4 for word in text.split()]


def write_corpora(directory: Path) -> dict[str, ComponentConfig]:
    """Write the text files; the first word of a source is the number of its pair."""
    maker = random.Random(7)
    components = {}
    for name, size in SIZES.items():
        paths = {side: str(directory / f"{name}.{side}") for side in ("source", "target")}
        for side, path in paths.items():
            lines = ([number if side == "source" else 0, *range(maker.randint(3, 40))] for number in range(size))
            Path(path).write_text("".join(" ".join(map(str, line)) + "\n" for line in lines), "utf-8")
        components[name] = ComponentConfig(**paths)
    return components


def measure(components: dict[str, ComponentConfig], processes: int, workers: int) -> str:
    """Run five epochs of every process and return a line of the table."""
    mixture = MixtureConfig(components, PROBABILITIES, seed=1)
    train_ds = {"tokens_in_batch": 2000, "num_workers": workers}

    def run() -> tuple[list, list[Counter], Counter]:
        tokenizers = (NumberedWords(), NumberedWords())
        loaders = [build_mixture_loader(mixture, train_ds, *tokenizers, rank, processes) for rank in range(processes)]
        order, epochs, seen = [], [], Counter()
        for _ in range(EPOCHS):
            totals: Counter = Counter()
            for rank, loader in enumerate(loaders):
                dataset, number = loader.dataset, loader.sampler.epoch * len(loader.dataset) + rank
                for source, _, _, target_mask, _ in loader:
                    name = list(components)[dataset.draw(number).component]
                    numbers = (source[0, :, 1] - 4).tolist()
                    totals.update({f"{name} batches": 1, f"{name} tokens": int(target_mask.sum()), rank: 1})
                    seen.update((name, pair) for pair in numbers)
                    order.append((name, numbers))
                    number += processes
            epochs.append(totals)
        return order, epochs, seen

    order, epochs, seen = run()
    sizes = {epoch[rank] for epoch in epochs for rank in range(processes)}
    shares = {
        unit: [100 * epoch[f"gold {unit}"] / (epoch[f"gold {unit}"] + epoch[f"pseudo {unit}"]) for epoch in epochs]
        for unit in ("batches", "tokens")
    }
    times = {name: [seen[name, pair] for pair in range(size)] for name, size in SIZES.items()}
    cells = [
        *(processes, workers, " and ".join(map(str, sorted(sizes)))),
        *(f"{min(values):.1f} to {max(values):.1f}" for values in shares.values()),
        *(f"{min(values)} to {max(values)} times" for values in times.values()),
        "yes" if order == run()[0] else "NO",
    ]
    return row(cells)


def row(cells: Iterable) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print the table."""
    logging.set_verbosity(logging.ERROR)
    print(row(HEADINGS), "|---" * len(HEADINGS) + "|", sep="\n")
    with tempfile.TemporaryDirectory() as directory:
        components = write_corpora(Path(directory))
        for processes in (1, 2):
            for workers in (0, 2):
                print(measure(components, processes, workers), flush=True)


if __name__ == "__main__":
    main()
