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
"""Print the table of `docs/scale.md`: hours and gigabytes of each stage for 1, 10 and 100 million pairs.

    python docs/scale_table.py                              # draws results/scale.png anew, too

Rates are those of results/scale.json, scale_cache.json (two CPU cores) and gpu.json (one H100); what was measured to
grow with n grows so. Labels are simulated as well: shards as `Share.own` hands them out, each as long as its sentences
take, processes that import first, and one GPU that is slower than the others.
"""

import json
import random
from pathlib import Path

from nemo_distill.support.quoting import size_text
from nemo_distill.support.share import Share

RESULTS = Path(__file__).parent / "results"
PAIRS = (10**6, 10**7, 10**8)
CLUSTERS = {"1 × 8": 8, "4 × 8": 32}
"""GPUs, by nodes times GPUs of a node."""
CORES = 64
"""Of a node; what streams is done by one node."""
SHARD_LINES = 5000
IMPORTS = 30.0
"""Seconds until a process has NeMo and the teacher."""


def rates() -> dict[str, float]:
    """Return what was measured: seconds of one core, or of one GPU, and bytes, each for a pair."""
    scale, cache, gpu = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("scale", "scale_cache", "gpu")
    )
    text, labels, index = scale["training text"][-1], scale["labels"][-1], cache["cache"][-1]
    step = gpu["step"]["milliseconds"]["temperature 1"]
    tokens = (text["store"]["disk"] / text["pairs"] - 24) / 4  # of a side, two bytes each; places and lengths beside
    batch = 8192 / tokens  # pairs
    return {
        "tokens": tokens,
        "text": text["text bytes"] / text["pairs"],
        "store": 2 * text["store"]["seconds"] / text["pairs"],
        "store bytes": text["store"]["disk"] / text["pairs"],
        "start": text["start"]["seconds"] / text["pairs"],
        "labels": 1 / gpu["decoding"]["sentences_per_second"]["CTranslate2 float16"],
        "filter": 2 * labels["filter, duplicates"]["seconds"] / labels["pairs"],
        "leak check": 2 * labels["leak check"]["seconds"] / labels["pairs"],
        "index": 2 * (index["choice"]["seconds"] + index["index"]["seconds"]) / index["pairs"],
        "cache": step["teacher forward"] / 1000 / batch,
        "cache bytes": 63 * tokens + 16,
        "epoch, plain": step["plain step"] / 1000 / batch,
        "epoch, live teacher": step["KD step"] / 1000 / batch,
    }


def simulated_labels(pairs: int, gpus: int, seconds: float, slower: float = 1.0, seed: int = 1) -> float:
    """Return the seconds until the last process has made its shards.

    Args:
        pairs: lines of the text.
        gpus: processes, one GPU each.
        seconds: of a GPU for a line, in the mean.
        slower: how many times as long the first GPU takes.
        seed: of the lengths.
    """
    generator = random.Random(seed)
    shards = range(-(-pairs // SHARD_LINES))
    deviation = seconds * SHARD_LINES**0.5 * 0.37  # 5 to 20 words: 12.5 in the mean, 4.6 the deviation of one line
    lengths = [generator.gauss(seconds * SHARD_LINES, deviation) for _ in shards]
    of_processes = [sum(lengths[number] for number in Share(rank, gpus).own(shards)) for rank in range(gpus)]
    of_processes[0] *= slower
    return IMPORTS + max(of_processes)


def _read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def table() -> list[str]:
    """Return the lines of the table."""
    rate = rates()
    columns = [(pairs, name, gpus) for pairs in PAIRS for name, gpus in CLUSTERS.items()]
    heading = [f"{pairs // 10**6} M, {name}" for pairs, name, _ in columns]
    rows = {
        "token store, one node": lambda pairs, gpus: _duration(rate["store"] * pairs / CORES),
        "token store: size": lambda pairs, gpus: size_text(rate["store bytes"] * pairs),
        "start of a training with it": lambda pairs, gpus: _duration(rate["start"] * pairs),
        "labels, beam 4, float16": lambda pairs, gpus: _duration(IMPORTS + rate["labels"] * pairs / gpus),
        "the same, simulated": lambda pairs, gpus: _duration(simulated_labels(pairs, gpus, rate["labels"])),
        "with one GPU 20 % slower": lambda pairs, gpus: _duration(simulated_labels(pairs, gpus, rate["labels"], 1.2)),
        "choice and filters, without copies, one node": lambda pairs, gpus: _duration(rate["filter"] * pairs / CORES),
        "leak check, one node": lambda pairs, gpus: _duration(rate["leak check"] * pairs / CORES),
        "cache: pairs and index, one node": lambda pairs, gpus: _duration(rate["index"] * pairs / CORES),
        "cache: the teacher's forward pass": lambda pairs, gpus: _duration(IMPORTS + rate["cache"] * pairs / gpus),
        "cache: size, 63 bytes a token": lambda pairs, gpus: size_text(rate["cache bytes"] * pairs),
        "an epoch without a teacher": lambda pairs, gpus: _duration(rate["epoch, plain"] * pairs / gpus),
        "an epoch with a live teacher": lambda pairs, gpus: _duration(rate["epoch, live teacher"] * pairs / gpus),
    }
    lines = [f"| | {' | '.join(heading)} |", f"|---|{'---:|' * len(columns)}"]
    for name, value in rows.items():
        lines.append(f"| {name} | {' | '.join(value(pairs, gpus) for pairs, _, gpus in columns)} |")
    return lines


def plot(path: Path) -> None:
    """Draw how the seconds of each stage grow with the pairs."""
    from matplotlib.figure import Figure

    scale, cache = map(_read, ("scale", "scale_cache"))
    curves = {
        "token store made": (scale["training text"], ["store"]),
        "start with it": (scale["training text"], ["start"]),
        "one epoch's order and batches": (scale["training text"], ["batches"]),
        "chosen and filtered, without copies": (scale["labels"], ["filter, duplicates"]),
        "leak check": (scale["labels"], ["leak check"]),
        "cache: pairs and index": (cache["cache"], ["choice", "index"]),
    }
    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (rows, keys) in curves.items():
        seconds = [sum(row[key]["seconds"] for key in keys) for row in rows]
        axes.plot([row["pairs"] for row in rows], seconds, marker="o", label=name)
    ends = (1e4, max(row["pairs"] for row in scale["training text"]))
    axes.plot(ends, [each * 1e-5 for each in ends], color="grey", linestyle=":", label="10 µs a pair")
    axes.set(xscale="log", yscale="log", xlabel="pairs", ylabel="seconds, two CPU cores")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    plot(RESULTS / "scale.png")
    print("\n".join(table()))
