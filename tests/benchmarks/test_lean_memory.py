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
"""Peak memory and time of NLL and word-level KD, plain and lean, forward and backward, at 4 k and 32 k words.

The loss alone: last decoder states and output heads come in, gradients of the student's go out. On a CPU the peak is
what the kernel counts as resident (VmHWM, reset before the pass) above what was resident before it, in a process of
its own that has run a small batch before; on a GPU it is torch's own count. Beside the loss stands a plain NLL head:
`cross_entropy(linear(states))`, without a teacher. A live teacher adds its own head's product to any such loss, so the
time of the lean loss is compared with the two together as well.

LEAN_TOKENS=256 LEAN_VOCABULARIES=1000 LEAN_WIDTHS=64,64 makes it small.
"""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nemo_distill.config.section import NLLConfig, ObjectiveConfig, WordKDConfig
from nemo_distill.losses import DistillationObjective, HeadInput, Logits, ObjectiveInputs, StudentLogits

REPOSITORY = Path(__file__).resolve().parents[2]
TOKENS = int(os.environ.get("LEAN_TOKENS", 4096))
VOCABULARIES = [int(each) for each in os.environ.get("LEAN_VOCABULARIES", "4000,32000").split(",")]
WIDTHS = [int(each) for each in os.environ.get("LEAN_WIDTHS", "256,256").split(",")]  # student, teacher
IS_SMALL = any(name.startswith("LEAN_") for name in os.environ)
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", 5))
PUBLISHED_WIDTHS = ([1024, 1024], [256, 1024])  # wide and slim student, teacher 24x6
LARGEST_MEMORY, LARGEST_TIME = 0.1, 1.3
LARGEST_MEMORY_GPU = 0.35  # of 2 ** 27 logits, where a chunk has 2 ** 25
CASES = (
    "NLL head",
    "teacher head",
    "plain NLL",
    "lean NLL",
    "plain NLL + KD",
    "lean NLL + KD",
    "lean NLL + cached KD",
)


def loss_of(case: str, tokens: int, vocabulary: int, widths: list[int], device: str, temperature: float):
    """Return a function that runs one forward and backward pass of a case on random states and weights."""
    generator = torch.Generator(device).manual_seed(0)

    def head(width: int) -> HeadInput:
        shapes = ((tokens // 32, 32, width), (vocabulary, width), (vocabulary,))
        return HeadInput(*(torch.randn(shape, generator=generator, device=device) / 8 for shape in shapes))

    student, teacher = (head(width) for width in widths)
    labels = torch.randint(vocabulary, (tokens // 32, 32), generator=generator, device=device)
    parameters = list(vars(student).values())
    word_kd = WordKDConfig(1.0 if "KD" in case else 0.0, temperature)
    objective = DistillationObjective(ObjectiveConfig(nll=NLLConfig(1.0), word_kd=word_kd))
    mask = torch.ones_like(labels).bool()
    kept = _top_k(teacher, temperature) if "cached" in case else None

    def run() -> None:
        if case == "teacher head":
            with torch.no_grad():
                teacher.logits()
            return
        for tensor in parameters:
            tensor.grad = None
            tensor.requires_grad_()
        if case == "NLL head":
            F.cross_entropy(student.logits().flatten(0, 1), labels.flatten()).backward()
            return
        if case.startswith("lean"):
            signals = student, kept or teacher
        else:
            logits = student.logits()
            with torch.no_grad():
                said = kept or (Logits(teacher.logits()) if "KD" in case else None)
            signals = StudentLogits(logits, logits.log_softmax(-1)), said
        objective(ObjectiveInputs(labels, mask, *signals))["loss"].backward()

    return run


def _top_k(teacher: HeadInput, temperature: float):
    """Return what a cache holds of a teacher, a few tokens at a time."""
    from nemo_distill.losses import TopKTargets

    parts = []
    for states in teacher.states.flatten(0, 1).split(64):
        logits = HeadInput(states, teacher.weight, teacher.bias).logits()
        top = logits.topk(16)
        best = top.values[:, :1]
        normaliser = ((logits - best) / temperature).logsumexp(-1)
        parts.append((top.indices, (top.values - best).half(), normaliser))
    return TopKTargets(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _status(field: str) -> int:
    """Return a field of this process's memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def peak_memory(arguments: dict) -> int:
    """Return the bytes that one pass takes above what was there before it."""
    on_gpu = arguments["device"] == "cuda"
    loss_of(**{**arguments, "tokens": 64})()
    run = loss_of(**arguments)
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that it counts when it is taken again
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at what is resident
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _peak_in_a_process(arguments: dict) -> int:
    command = [sys.executable, __file__, json.dumps(arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def _measure(vocabulary: int, widths: list[int], device: str, temperature: float) -> tuple[dict, dict]:
    """Return the peak in bytes and the times in seconds of every case, run in turn."""
    shared = {
        "tokens": TOKENS,
        "vocabulary": vocabulary,
        "widths": widths,
        "device": device,
        "temperature": temperature,
    }
    measure = peak_memory if device == "cuda" else _peak_in_a_process
    peaks = {case: measure({"case": case, **shared}) for case in CASES}
    runs = {case: loss_of(case, **shared) for case in CASES}
    seconds = {case: [] for case in CASES}
    for index in range(ROUNDS + 1):
        for case, run in runs.items():
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if index:  # the first round warms up
                seconds[case].append(time.perf_counter() - start)
    return peaks, seconds


def _report(peaks: dict, seconds: dict, title: str) -> dict[str, float]:
    """Print the table; return the ratios that count."""
    floor = [sum(each) for each in zip(seconds["NLL head"], seconds["teacher head"], strict=True)]

    def ratio(case: str, reference: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(seconds[case], reference, strict=True))

    print(f"\n{title}: peak memory, seconds, over the NLL head")
    for case in CASES:
        print(
            f"  {case:<22}{peaks[case] / 1e6:9.1f} MB{statistics.median(seconds[case]):9.3f} s"
            f"{ratio(case, seconds['NLL head']):7.2f} x"
        )
    ratios = {
        "memory": peaks["lean NLL + KD"] / peaks["plain NLL + KD"],
        "NLL": ratio("lean NLL", seconds["NLL head"]),
        "cached": ratio("lean NLL + cached KD", seconds["NLL head"]),
        "live": ratio("lean NLL + KD", seconds["NLL head"]),
        "live over both heads": ratio("lean NLL + KD", floor),
        "live over plain": ratio("lean NLL + KD", seconds["plain NLL + KD"]),
        "cached over plain": ratio("lean NLL + cached KD", seconds["plain NLL + KD"]),
    }
    print(f"  lean / plain NLL + KD: memory {ratios['memory']:.3f}")
    print(f"  lean NLL + KD / (NLL head + teacher head): time {ratios['live over both heads']:.2f}")
    return ratios


def _check(ratios: dict[str, float]) -> None:
    if IS_SMALL:
        pytest.skip("the ratios of small sizes are printed, and say little")
    assert ratios["memory"] <= LARGEST_MEMORY
    assert max(ratios["NLL"], ratios["cached"], ratios["live over both heads"]) <= LARGEST_TIME


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_lean_loss_on_a_cpu(vocabulary: int, temperature: float, capsys) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the other tests keep to one
    measured = _measure(vocabulary, WIDTHS, "cpu", temperature)
    with capsys.disabled():
        ratios = _report(*measured, f"{vocabulary} words, {TOKENS} tokens, widths {WIDTHS}, τ = {temperature:g}, CPU")
    _check(ratios)


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("widths", PUBLISHED_WIDTHS)
def test_lean_loss_at_the_published_sizes(widths: list[int], capsys) -> None:
    """Teacher of 468 M parameters, students of 95 M and 21.9 M: the widths of their heads over 32 k words."""
    measured = _measure(32000, widths, "cuda", 1.0)
    with capsys.disabled():
        ratios = _report(*measured, f"32000 words, {TOKENS} tokens, widths {widths}, {torch.cuda.get_device_name()}")
    assert ratios["memory"] <= LARGEST_MEMORY_GPU
    assert max(ratios["live over plain"], ratios["cached over plain"]) <= 1


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(peak_memory(json.loads(sys.argv[1])))
