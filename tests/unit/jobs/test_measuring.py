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
from pathlib import Path

import pytest

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.costs import Rate
from nemo_distill.jobs.measuring import Observed, disk_of, observe, sample, text_rate, training_rate
from nemo_distill.support.memory import peak_memory

ROOT = Path(__file__).parents[3]
TRAINING = """
import os, time
held = bytearray(60 << 20)
os.environ["NEMO_DISTILL_PROGRESS"] = "0.01"
from nemo_distill.support.progress_bar import progress_bar
for _ in progress_bar("tokenizing train.de", 4, iterable=range(4)):
    time.sleep(0.05)
time.sleep(0.3)
with progress_bar("training", 10, "steps") as bar:
    for step in range(10):
        time.sleep(0.1)
        bar.update()
    time.sleep(0.4)
    print("[NeMo I] validation set 0: loss 3.1, sacreBLEU 2.0", flush=True)
    time.sleep(0.3)
    print("`Trainer.fit` stopped: `max_steps=10` reached.", flush=True)
time.sleep(0.2)
"""


def test_a_training_is_timed_by_what_it_says(monkeypatch):
    """Half of each sleep is asked for: a line may be read late, whatever the machine, and then what follows it looks
    shorter. The sum is the whole."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    observed = observe([sys.executable, "-c", TRAINING], threads=1)
    assert observed.ended
    assert [step for _, step in observed.steps][-1] == 10
    rate = training_rate(observed, lines=20, share=1.0)
    assert rate.step >= 0.1 / 2
    assert rate.start >= (4 * 0.05 + 0.3) / 2
    assert rate.validated >= 0.4 / 2 / 20
    assert rate.saved >= 0.3 / 2
    assert rate.end >= 0.2 / 2
    assert rate.seconds(10, 1, 20) == pytest.approx(observed.seconds, rel=0.3)
    assert observed.memory > 60 << 20
    tokenized = training_rate(observed, lines=20, share=0.01).start - rate.start
    assert tokenized == pytest.approx(99 * observed.spent("tokenizing")[1])
    assert tokenized >= 99 * 3 * 0.05 / 2


def seen(steps: list[tuple[float, int]], **others) -> Observed:
    """Return what was seen of a training."""
    progress = {"training": steps, "tokenizing train.de": [(4.0, 0), (5.0, 500), (6.0, 1000)]}
    return Observed(20.0, 0.0, True, progress, {"training": 24, "tokenizing train.de": 1000}, **others)


def test_the_memory_is_that_of_the_run_not_of_this_process():
    """Linux counts for a new process what the one had that it was forked of: here torch and NeMo."""
    code = "import time; held = bytearray(30 << 20); time.sleep(1)"
    observed = observe([sys.executable, "-S", "-c", code], threads=1)
    assert 30 << 20 < observed.memory < 80 << 20 < peak_memory()


def test_text_that_was_not_read_counts():
    """Of the start only what showed that it reads text: opening a teacher takes no longer for more text."""
    observed = seen([(10.0, 0), (11.0, 5), (12.0, 10)], validated=14.0, fitted=17.0)
    rate = training_rate(observed, 100, share=0.25)
    assert (rate.step, rate.validated, rate.saved, rate.end) == pytest.approx((0.2, 0.02, 3.0, 3.0))
    assert rate.start == pytest.approx(8 + 2 / 0.25)
    assert rate.seconds(1000, 5, 1000) == pytest.approx(16 + 200 + 5 * (20 + 3) + 3)


def test_a_training_that_never_came_to_its_validation_says_so():
    rate = training_rate(seen([(10.0, 0), (11.0, 5), (12.0, 10)]), 100, share=1.0)
    assert (rate.start, rate.step, rate.validated) == pytest.approx((10.0, 0.2, None))


def test_the_start_of_an_epoch_is_no_step():
    """With few batches, as of a cache over a sample, epochs begin anew within the steps that are timed."""
    steps = [(float(now), step) for step, now in enumerate([10, 11, 12, 13, 14, 17, 18, 19, 22, 23])]
    assert training_rate(seen(steps, validated=25.0), 10, 0.5).step == pytest.approx(9 / 5)
    assert training_rate(seen(steps, validated=25.0), 10, 0.5, few=True).step == 1.0


def test_one_that_never_steps_is_told():
    with pytest.raises(InputError, match="in 60 s a short run came to no second step"):
        training_rate(Observed(60.0, 0.0, False, {"training": [(50.0, 0)]}, {"training": 24}), 100, 1.0)


def test_one_that_lasts_is_ended_with_what_it_came_to():
    start = time.monotonic()
    code = "import time; print('training: 1 of 10 steps (10 %)', flush=True); time.sleep(60)"
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


LABELS = """
import os, time
os.environ["NEMO_DISTILL_PROGRESS"] = "0.01"
from nemo_distill.support.progress_bar import progress_bar
with progress_bar("pseudo-labels", 1000, "sentences") as bar:
    time.sleep(0.5)  # a model is opened
    bar.unpause()
    bar.refresh()
    for _ in range(5):
        time.sleep(0.1)
        bar.update(200)
with progress_bar("selecting", 1000, "lines") as bar:
    time.sleep(0.2)
    bar.update(1000)
time.sleep(0.3)
"""


def test_labels_by_what_they_say_of_their_progress(monkeypatch):
    """Between two runs, the noise of their starts was as long as the work of the larger one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    observed = observe([sys.executable, "-c", LABELS], threads=1)
    rate = text_rate(observed, 1000)
    assert rate.fixed >= (0.5 + 0.3) / 2
    assert rate.each >= (5 * 0.1 + 0.2) / 2 / 1000
    assert rate.seconds(1000) == pytest.approx(observed.seconds, rel=0.01)
    assert rate.seconds(1_000_000) == pytest.approx(1000 * observed.spent()[1], rel=0.01)


def test_labels_that_did_not_come_to_their_end():
    events = {"pseudo-labels": [(10.0, 0), (30.0, 100), (50.0, 200)]}
    observed = Observed(60.0, 0.0, False, events, {"pseudo-labels": 1000})
    assert text_rate(observed, 1000).each == pytest.approx(0.2)
    assert text_rate(Observed(60.0, 0.0, False), 1000) == Rate(0.0, 0.06)


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
