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
"""Short runs as they are seen from outside: real processes, their output timed."""

import os
import sys
import time

import pytest

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.costs import Rate
from nemo_distill.jobs.measuring import Observed, decoding_rate, disk_of, observe, sample, training_rate
from nemo_distill.support.memory import peak_memory

TRAINING = """
import sys, time
held = bytearray(60 << 20)
time.sleep(0.3)
for step in range(11):
    print(f"\\rtraining: {step:3d}%|#| {step}/10 [00:01<00:09,  3 steps/s, loss=2.1]", end="", file=sys.stderr)
    sys.stderr.flush()
    time.sleep(0.1)
time.sleep(0.4)
print("[NeMo I] validation set 0: loss 3.1, sacreBLEU 2.0", flush=True)
time.sleep(0.2)
"""


def test_a_training_is_timed_by_what_it_says():
    """Sleeps are lower bounds on any machine, however busy; the sum is the whole."""
    observed = observe([sys.executable, "-c", TRAINING], threads=1)
    assert observed.ended
    assert [step for _, step in observed.steps][-1] == 10
    rate = training_rate(observed, lines=20, imports=0.1, share=1.0)
    assert rate.step >= 0.09
    assert rate.start >= 0.25
    assert rate.validated >= 0.4 / 20
    assert rate.end >= 0.2
    assert rate.seconds(10, 1, 20) == pytest.approx(observed.seconds, rel=0.3)
    assert observed.memory > 60 << 20


def test_the_memory_is_that_of_the_run_not_of_this_process():
    """Linux counts for a new process what the one had that it was forked of: here torch and NeMo."""
    code = "import time; held = bytearray(30 << 20); time.sleep(1)"
    observed = observe([sys.executable, "-S", "-c", code], threads=1)
    assert 30 << 20 < observed.memory < 80 << 20 < peak_memory()


def test_text_that_was_not_read_counts():
    steps = [(10.0, 0), (11.0, 5), (12.0, 10)]
    observed = Observed(20.0, 0.0, True, steps, validated=14.0)
    rate = training_rate(observed, 100, imports=4.0, share=0.25)
    assert (rate.step, rate.validated, rate.end) == pytest.approx((0.2, 0.02, 6.0))
    assert rate.start == pytest.approx(4 + (10 - 4) / 0.25)


def test_the_start_of_an_epoch_is_no_step():
    """With few batches, as of a cache over a sample, epochs begin anew within the steps that are timed."""
    steps = [(float(now), step) for step, now in enumerate([10, 11, 12, 13, 14, 17, 18, 19, 22, 23])]
    assert training_rate(Observed(30.0, 0.0, True, steps, 25.0), 10, 4.0, 0.5).step == pytest.approx(9 / 5)
    assert training_rate(Observed(30.0, 0.0, True, steps, 25.0), 10, 4.0, 0.5, few=True).step == 1.0


def test_one_that_never_steps_is_told():
    with pytest.raises(InputError, match="in 60 s a short run came to no second step"):
        training_rate(Observed(60.0, 0.0, False, [(50.0, 0)]), 100, 4.0, 1.0)


def test_one_that_lasts_is_ended_with_what_it_came_to():
    start = time.monotonic()
    code = "import time; print('training:  10%|#| 1/10 [', flush=True); time.sleep(60)"
    observed = observe([sys.executable, "-c", code], threads=1, longest=1.5)
    assert not observed.ended
    assert observed.steps[0][1] == 1
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(("status", "kind"), [(2, InputError), (1, StageError)])
def test_a_stage_that_would_fail_fails_now(status, kind):
    code = f"import sys; print('give \\x1b[2J another path'); sys.exit({status})"
    with pytest.raises(kind, match=f"status {status}; it ended:\n  give .*another path") as error:
        observe([sys.executable, "-c", code], threads=1)
    assert "\x1b" not in str(error.value)
    assert observe([sys.executable, "-c", code], threads=1, may_fail=True).ended


def test_nothing_runs_on(tmp_path):
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    observe([sys.executable, "-c", code, str(tmp_path / "pid")], threads=1, longest=2.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_labels_from_two_sizes():
    few, many = Observed(5.0, 0.0), Observed(15.0, 0.0)
    assert decoding_rate(few, 10, many, 1010) == Rate(4.9, 0.01)
    cut = Observed(60.0, 0.0, ended=False)
    assert decoding_rate(few, 10, cut, 1000).each == pytest.approx(0.055)


def test_a_sample_keeps_pairs_together(tmp_path):
    files = []
    for language in ("de", "en"):
        path = tmp_path / f"train.{language}"
        path.write_text("".join(f"{number} {language}\n" for number in range(103)))
        files.append((path, tmp_path / "few" / path.name))
    assert sample(files, 103, 10) == 10
    source, target = ((tmp_path / "few" / f"train.{each}").read_text().splitlines() for each in ("de", "en"))
    assert len(source) == len(target) == 10
    assert [line.split()[0] for line in source] == [line.split()[0] for line in target]
    assert int(source[-1].split()[0]) - int(source[0].split()[0]) > 80
    assert sample(files, 103, 1000) == 103
    assert files[0][1].read_text() == files[0][0].read_text()
    assert disk_of(tmp_path / "few") == sum(len(path.read_bytes()) for path, _ in files)
