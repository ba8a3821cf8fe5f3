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
import collections
import multiprocessing
import os
import random
import signal
import time

import pytest
from slow_cases import slow

from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError, StorageError
from nemo_distill.labels import choosing, filtering
from nemo_distill.labels.choosing import Chooser, write_selection
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.nbest import NBest, nbest_line, table_cell
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import files

WORDS = ["die", "Lampe", "ist", "offen", "{name}", "kaputt", "neu", "alt", "und", "nicht", "mehr", "da", "%s"]
TEXTS = ("source.txt", "hypotheses.txt", "source.tok.txt", "hypotheses.tok.txt")


@pytest.fixture
def rows():
    """Two thousand lines, many of them again and again, with up to three hypotheses and both forms of text."""
    generator = random.Random(2)

    def text() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(0, 5)))

    sentences = [text() for _ in range(60)]
    translations = [text().upper() for _ in range(60)]

    def hypothesis(place: int) -> Hypothesis:
        chosen = generator.choice(translations)
        mark = generator.choice([None, None, "other segmentation"])
        return Hypothesis(chosen, -1.0 - place, 5, f"{chosen} ." if generator.random() < 0.5 else None, mark)

    return [
        NBest(
            line,
            generator.choice(sentences),
            tuple(hypothesis(place) for place in range(generator.randint(0, 3))),
            cut=generator.random() < 0.05,
        )
        for line in range(1, 2001)
    ]


@pytest.fixture
def nbest(rows, tmp_path):
    files.write_lines_atomic(tmp_path / "nbest.jsonl", map(nbest_line, rows))
    return tmp_path / "nbest.jsonl"


@pytest.fixture
def gold(rows, tmp_path):
    generator = random.Random(4)
    path = tmp_path / "gold.en"
    path.write_text("".join(f"{' '.join(generator.choices(WORDS, k=3)).upper()}\n" for _ in rows))
    return path


@pytest.fixture
def write(nbest, tmp_path, monkeypatch):
    """A function that chooses into a directory, with so many processes; returns its files and the counts."""

    def run(name: str, settings: SelectionSettings, processes: int, lines: int = 2000):
        monkeypatch.setattr(choosing, "_BLOCK_BYTES", 9000)
        monkeypatch.setattr(choosing, "available_cores", lambda: processes)
        facts = write_selection(nbest, files.sha256(nbest), tmp_path / name, settings, lines, False, processed=True)
        return {path.name: path.read_text("utf-8") for path in (tmp_path / name).iterdir()}, facts

    (tmp_path / "out").mkdir()
    return run


def one_by_one(rows, settings, references) -> tuple[dict[str, str], dict]:
    """Choose as it reads: line by line, with a set of the pairs that are kept."""
    chooser, seen, texts = Chooser(settings), set(), collections.defaultdict(str)
    texts["dropped.tsv"] = "line\treason\tsource\thypothesis\n"
    dropped: dict[str, int] = collections.Counter()
    for row, reference in zip(rows, references, strict=True):
        chosen, reason = chooser.choose(row, reference)
        text = chosen[0].text if chosen else ""
        if settings.filters.drop_duplicates and reason is None:
            chosen = [one for one in chosen if (row.source, one.text) not in seen]
            reason = None if chosen else filtering.DUPLICATE
        if reason is None:
            for one in chosen:
                seen.add((row.source, one.text))
                forms = (row.source, one.text, row.source, one.text if one.processed is None else one.processed)
                for name, form in zip(TEXTS, forms, strict=True):
                    texts[name] += f"{form}\n"
        else:
            dropped[reason] += 1
            texts["dropped.tsv"] += "\t".join((str(row.line), reason, table_cell(row.source), table_cell(text))) + "\n"
    return dict(texts), dict(dropped)


@pytest.mark.parametrize("drop_duplicates", [True, *slow(False)])
@pytest.mark.parametrize(("measure", "keep"), [("best", 1), ("best", 3), ("closest-chrf", 1), ("closest-chrf", 2)])
def test_blocks_and_processes_change_nothing(write, rows, gold, drop_duplicates, measure, keep):
    filters = FilterSettings(drop_duplicates=drop_duplicates, round_trip=True)
    target = None if measure == "best" else gold
    settings = SelectionSettings(measure, target, filters=filters, keep=keep)
    references = [""] * len(rows) if target is None else gold.read_text().splitlines()
    texts, dropped = one_by_one(rows, settings, references)
    assert {*TEXTS, "dropped.tsv"} == texts.keys()
    assert (filtering.DUPLICATE in dropped) == drop_duplicates
    assert {filtering.ROUND_TRIP, filtering.EMPTY, filtering.PLACEHOLDERS, filtering.SOURCE_TOO_LONG} < dropped.keys()
    for processes in (1, 3):
        found, facts = write("out", settings, processes)
        assert found == texts
        assert facts["counts"]["dropped"] == dropped
        assert facts["counts"]["kept"] + sum(dropped.values()) == facts["counts"]["lines"] == 2000
        assert facts["counts"].get("pairs", facts["counts"]["kept"]) == texts["source.txt"].count("\n")
        assert (texts["source.txt"].count("\n") > facts["counts"]["kept"]) == (keep > 1)


def test_a_fault_is_called_by_its_line_and_nothing_is_written(write, nbest, tmp_path):
    lines = nbest.read_text("utf-8").splitlines()
    lines[1700] = lines[1700].replace('"line": 1701', '"line": 1702')
    nbest.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    for processes in (1, 3):
        with pytest.raises(InputError, match=r"nbest.jsonl', line 1701: holds input line 1702 where 1701 belongs"):
            write("out", SelectionSettings(), processes)
    assert not os.listdir(tmp_path / "out")


def test_other_numbers_of_lines(write, tmp_path):
    with pytest.raises(InputError, match="have 2000 lines, not 2001 as the input has"):
        write("out", SelectionSettings(), 2, lines=2001)
    assert not os.listdir(tmp_path / "out")


def test_a_killed_worker_is_said(write, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "_choose_block", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(StorageError, match="was killed, perhaps for want of memory; run the same command again"):
        write("out", SelectionSettings(), 2)
    assert not os.listdir(tmp_path / "out")


def test_what_is_kept_and_dropped_is_shown_as_it_goes(write, nbest, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NEMO_DISTILL_PROGRESS", "1e-6")
    settings = SelectionSettings(filters=FilterSettings(drop_duplicates=True))
    write("out", settings, 2)
    assert "selecting" not in capsys.readouterr().err
    facts = write_selection(nbest, files.sha256(nbest), tmp_path / "out", settings, 2000, True)
    shown = capsys.readouterr().err
    counts = facts["counts"]
    assert f"{counts['kept']} kept ({counts['kept'] / 20:.1f} %), " in shown
    assert f"{filtering.EMPTY_SOURCE} {counts['dropped'][filtering.EMPTY_SOURCE]}, " in shown
    assert " lines/s" in shown


def test_killed_at_random_moments(rows, nbest, word_engine, tmp_path, monkeypatch):
    """Whatever is left, the next run writes what an undisturbed one does."""
    from nemo_distill.labels.given import label_given

    (tmp_path / "input.de").write_text("".join(f"{row.source}\n" for row in rows))
    (tmp_path / "given.jsonl").write_text("".join(f"{nbest_line(row)}\n" for row in rows))
    label_given(tmp_path / "given.jsonl", tmp_path / "input.de", tmp_path / "labels", progress=False)
    settings = SelectionSettings(filters=FilterSettings(drop_duplicates=True))
    choose_block, context, generator = choosing._choose_block, multiprocessing.get_context("fork"), random.Random(8)
    monkeypatch.setattr(choosing, "_BLOCK_BYTES", 9000)
    monkeypatch.setattr(choosing, "available_cores", lambda: 2)
    select(tmp_path / "labels", tmp_path / "undisturbed", settings, progress=False)
    monkeypatch.setattr(choosing, "_choose_block", lambda *block: (time.sleep(0.02), choose_block(*block))[1])
    for _ in range(5):
        process = context.Process(target=select, args=(tmp_path / "labels", tmp_path / "out", settings))
        process.start()
        time.sleep(generator.uniform(0.05, 0.4))
        process.kill()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "out/manifest.json").exists()
    select(tmp_path / "labels", tmp_path / "out", settings, progress=False)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("out", "undisturbed")
    ]
    assert contents[0] == contents[1]
