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
import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import CHRF

from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels.choosing import Chooser
from nemo_distill.labels.minimum_risk import expected_utilities
from nemo_distill.labels.nbest import NBest, nbest_line
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import files

ROOT = Path(__file__).parents[3]
WORDS = ["the", "red", "cat", "{name}", "x", "電脑", "壊れた", "e\u0301té", "\U0001f600", "a\u00a0b", "\u200b", "."]


@pytest.fixture
def lists():
    """Lists of one to six texts, some of which come again, one with other spaces, or have no letter."""
    generator = random.Random(3)

    def texts() -> list[str]:
        found = [" ".join(generator.choices(WORDS, k=generator.randint(0, 6))) for _ in range(generator.randint(1, 4))]
        return found + generator.choices([*found, found[0].replace(" ", "  ")], k=2)

    return [texts() for _ in range(60)]


def by_definition(texts: list[str]) -> list[float]:
    """Return the mean of sacreBLEU's chrF of each text against all."""
    metric = CHRF()
    scores = [[metric.sentence_score(text, [other]).score for other in texts] for text in texts]
    return [sum(row) / len(row) for row in scores]


def chosen(texts: list[str], **settings) -> tuple[str, str | None]:
    hypotheses = tuple(Hypothesis(text, -float(place), 5) for place, text in enumerate(texts))
    found, reason = Chooser(SelectionSettings("mbr", **settings)).choose(NBest(1, "die rote Katze", hypotheses))
    return found[0].text, reason


def test_utilities_are_means_of_sacrebleus_chrf(lists):
    for texts in lists:
        if all("".join(text.split()) for text in texts):
            assert expected_utilities(texts) == pytest.approx(by_definition(texts), rel=1e-14)
    assert expected_utilities([]) == []
    assert expected_utilities(["a", "a"]) == [100.0, 100.0]


def test_the_one_that_is_most_like_all_is_kept():
    texts = ["the moon is red", "the red cat sits", "the red cat sat", "a red cat sat"]
    assert chosen(texts) == ("the red cat sat", None)
    assert max(by_definition(texts)) == by_definition(texts)[2]


def test_what_is_said_more_often_counts_more():
    texts = ["the red cat sat", "the red cat sits", "the blue dog ran", "the blue dog ran", "the blue dog ran"]
    assert chosen(texts)[0] == "the blue dog ran"
    assert chosen(texts[:3])[0] == "the red cat sits"


@pytest.mark.parametrize("texts", [["red bird", "blue cat"], ["a red cat", "a red car"], ["same", "same"]])
def test_of_equals_the_likelier_is_kept(texts):
    """Two texts of one length are as like each other one way as the other way."""
    assert chosen(texts)[0] == texts[0]
    assert chosen(texts[::-1])[0] == texts[1]


def test_the_order_of_the_list_decides_nothing_else(lists):
    generator = random.Random(4)
    for texts in lists:
        before = dict(zip(texts, expected_utilities(texts), strict=True))
        shuffled = generator.sample(texts, len(texts))
        assert dict(zip(shuffled, expected_utilities(shuffled), strict=True)) == before


def test_refused_hypotheses_are_passed_over_but_heard():
    texts = ["the red cat sat", "die red Katz"]
    assert chosen(texts) == ("the red cat sat", None)
    assert chosen([*texts, "die rote Katze", "die rote Katze"]) == ("die red Katz", None)


def test_nothing_to_compare_with(tmp_path):
    with pytest.raises(InputError, match="target: got 'gold.en' with select mbr; leave it out"):
        SelectionSettings("mbr", "gold.en")
    with pytest.raises(InputError, match="select mbr chooses among hypotheses, but num_hypotheses is 1"):
        SelectionSettings("mbr").check(3, 1)


def test_processes_forked_from_one_that_compares_do_not_wait(lists):
    """The threads of the library are not in a forked process."""
    before = [expected_utilities(texts) for texts in lists[:8]]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(expected_utilities, lists[:8]).get(30) == before


SCRIPT = """
import sys
from pathlib import Path
from nemo_distill.labels import choosing
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import files
nbest, out, lines = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
choosing._BLOCK_BYTES = 4000
sha256 = files.sha256(nbest)
for processes in (3, 1, 3):
    choosing.available_cores = lambda: processes
    directory = out / str(len(list(out.iterdir())))
    directory.mkdir()
    choosing.write_selection(nbest, sha256, directory, SelectionSettings("mbr"), lines, False)
    print("fastchrf" in sys.modules)
"""


def test_processes_change_nothing(lists, tmp_path):
    rows = [
        NBest(line, "die rote Katze", tuple(Hypothesis(text, -float(place), 9) for place, text in enumerate(texts)))
        for line, texts in enumerate(lists * 2, start=1)
    ]
    files.write_lines_atomic(tmp_path / "nbest.jsonl", map(nbest_line, rows))
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", SCRIPT, tmp_path / "nbest.jsonl", tmp_path / "out", str(len(rows))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True", "True"]  # the first process compares where it works alone
    several, one, again = (
        {path.name: path.read_text() for path in (tmp_path / "out" / each).iterdir()} for each in "012"
    )
    assert several == one == again
    kept = several["hypotheses.txt"].splitlines()
    assert len(kept) > 50
    likeliest = [next((text for text in texts if text.strip()), "") for texts in lists * 2]
    assert len(set(kept) - set(likeliest)) > 10


def test_chosen_anew_from_labels(word_engine, tmp_path):
    from nemo_distill.decoding.engine import SearchSettings
    from nemo_distill.labels.labelling import label

    (tmp_path / "input.de").write_text("eine kurze Zeile hier und dort\nnoch eine lange Zeile\n")
    options = {"teacher": {"teachers": ["words"]}, "progress": False}
    search = SearchSettings(beam_size=5, num_hypotheses=5)
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", search, **options)
    manifest, _ = select(tmp_path / "labels", tmp_path / "chosen", SelectionSettings("mbr"), progress=False)
    assert (tmp_path / "chosen/hypotheses.txt").read_text() == "enie ezruk elieZ reih dnu\nhcon enie egnal\n"
    assert manifest["request"]["select"] == "mbr"
    assert manifest["request"]["target"] is None
    assert select(tmp_path / "labels", tmp_path / "chosen", SelectionSettings("mbr"), progress=False)[1]
