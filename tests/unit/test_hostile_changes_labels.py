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
"""Files that change while pseudo-labels are made or used: one error, no result, and no harm to what is finished."""

import json
from pathlib import Path

import pytest
from damage import contents

from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.errors import ArchiveError, InputError
from nemo_distill.labels import leak_check, teachers
from nemo_distill.labels.labelling import label
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.labels.teachers import pseudo_label
from nemo_distill.support import files, text_files
from nemo_distill.support.share import Share

OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 1, "progress": False}
LINES = [f"Satz {number} " + f"wort{number} " * 60_000 for number in range(4)]  # more than is read at once


@pytest.fixture
def text(tmp_path) -> Path:
    """A text of four long lines."""
    path = tmp_path / "input.de"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_input_that_changes_in_place(word_engine, text, tmp_path, world_size):
    """The shards are then of both texts; with the right one back, those of the other are made again."""
    label(word_engine, text, tmp_path / "undisturbed", **OPTIONS)
    right = text.read_bytes()

    class Changing(word_engine):
        def translate(self, *arguments):
            if self.calls == []:
                text.write_bytes(right.replace(b"wort2", b"wort7").replace(b"wort3", b"wort8"))
            return super().translate(*arguments)

    ranks = [Share(rank, world_size) for rank in reversed(range(world_size))]
    for share in ranks:
        text.write_bytes(right)
        with pytest.raises(InputError, match="input.de' has changed while it was in use"):
            label(Changing, text, tmp_path / "labels", share=share, **OPTIONS)
    assert not list((tmp_path / "labels").glob("[!.]*"))
    shards = sorted((tmp_path / "labels").glob(".shards-*/*.jsonl.gz"))
    assert len(shards) == 4
    assert any("wort8" in line for path in shards for line in text_files.read_lines(path))
    text.write_bytes(right)
    calls = []

    def open_engine():
        calls.append(word_engine())
        return calls[-1]

    for share in ranks:
        label(open_engine, text, tmp_path / "labels", share=share, **OPTIONS)
    made = [sentence[:6] for engine in calls for sentences, _ in engine.calls for sentence in sentences]
    assert "Satz 3" in made
    assert "Satz 0" not in made
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


def test_shards_of_another_text_at_the_end(word_engine, text, tmp_path):
    """A shard that comes to be another's after it was looked at is removed, and made by the next call."""
    label(word_engine, text, tmp_path / "undisturbed", **OPTIONS)

    class Swapping(word_engine):
        def translate(self, *arguments):
            if len(self.calls) == 3:
                one, two = (next((tmp_path / "labels").glob(f".shards-*/00000{place}.jsonl.gz")) for place in (0, 1))
                one.write_bytes(two.read_bytes())
            return super().translate(*arguments)

    with pytest.raises(InputError, match=r"000000.jsonl.gz', line 1: holds input line 2 where 1 belongs.* the same"):
        label(Swapping, text, tmp_path / "labels", **OPTIONS)
    assert len(list((tmp_path / "labels").glob(".shards-*/*.jsonl.gz"))) == 3
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("which", ["gold.en", "test.de"])
def test_gold_and_test_sets_that_change(word_engine, text, tmp_path, which):
    (tmp_path / "gold.en").write_text("x\ny\nz\nx\n")
    (tmp_path / "test.de").write_text("Satz eins\n")
    settings = SelectionSettings("closest-chrf", tmp_path / "gold.en", tests=[tmp_path / "test.de"])
    search = SearchSettings(num_hypotheses=2)
    label(word_engine, text, tmp_path / "undisturbed", search, settings, **OPTIONS)
    right = (tmp_path / which).read_bytes()

    class Changing(word_engine):
        def translate(self, *arguments):
            (tmp_path / which).write_bytes(right.replace(b"z", b"q"))
            return super().translate(*arguments)

    with pytest.raises(InputError, match=f"{which}' has changed while it was in use"):
        label(Changing, text, tmp_path / "labels", search, settings, **OPTIONS)
    assert not (tmp_path / "labels/source.txt").exists()
    (tmp_path / which).write_bytes(right)
    label(None, text, tmp_path / "labels", search, settings, **OPTIONS)  # decodes nothing
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


class Changing(SelectionSettings):
    """Settings that change a file once they have been checked."""

    file: Path

    def check(self, *arguments):
        super().check(*arguments)
        self.file.write_bytes(self.file.read_bytes().replace(b"Satz 1", b"Satz 2"))


def test_nbest_lists_that_change_while_they_are_read(word_engine, text, tmp_path):
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    right = (tmp_path / "labels/nbest.jsonl").read_bytes()
    Changing.file = tmp_path / "labels/nbest.jsonl"
    with pytest.raises(InputError, match="nbest.jsonl' has changed while it was in use"):
        select(tmp_path / "labels", tmp_path / "chosen", Changing(), progress=False)
    assert not list((tmp_path / "chosen").glob("[!.]*"))
    Changing.file.write_bytes(right)
    select(tmp_path / "labels", tmp_path / "chosen", progress=False)
    assert (tmp_path / "chosen/source.txt").read_bytes() == (tmp_path / "labels/source.txt").read_bytes()


def test_a_test_set_of_the_leak_check_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "train.de").write_text("eins\n")
    (tmp_path / "test.de").write_text("eins\nzwei\n")
    read, seen = text_files.read_lines, []
    monkeypatch.setattr(text_files, "read_lines", lambda path, *more: seen.append(path) or read(path, *more))
    report = leak_check.check_leaks([tmp_path / "train.de"], [tmp_path / "test.de"])
    assert seen == [tmp_path / "test.de"]
    assert (report.counts[0].test_lines, report.leaks) == (2, 1)


@pytest.mark.parametrize("engine", ["auto", "nemo"])
def test_a_teacher_that_is_swapped(tiny_teacher_path, random_model, tmp_path, monkeypatch, engine):
    path = tmp_path / "teacher.nemo"
    path.write_bytes(tiny_teacher_path.read_bytes())
    random_model(1).save_to(str(tmp_path / "other.nemo"))
    (tmp_path / "input.de").write_text("die Lampe ist offen\n")

    def swap(device):  # after the archive's hash was noted
        (tmp_path / "other.nemo").replace(path)
        return "cpu"

    monkeypatch.setattr(teachers, "choose_device", swap)
    with pytest.raises(ArchiveError, match=r"teacher.nemo has the SHA-256 .*, not"):
        pseudo_label([path], tmp_path / "input.de", tmp_path / "labels", engine=engine, progress=False)
    assert not list((tmp_path / "labels").glob("**/*.jsonl*"))


def test_the_tokenizers_of_the_manifest_are_those_of_the_teacher(tiny_teacher_path):
    good = files.sha256(tiny_teacher_path)
    assert set(teachers._tokenizer_hashes(tiny_teacher_path, good)) == {"encoder", "decoder"}
    with pytest.raises(ArchiveError, match="has the SHA-256"):
        teachers._tokenizer_hashes(tiny_teacher_path, "0" * 64)


@pytest.mark.parametrize("name", ["source.txt", "hypotheses.txt"])
def test_labels_that_have_changed_are_not_trained_on(word_engine, load_tiny_tokenizer, tmp_path, name):
    (tmp_path / "input.de").write_text("eine kurze Zeile\nnoch eine Zeile\n")
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    component = ComponentConfig(directory=str(tmp_path / "labels"))
    mixture = MixtureConfig(components={"pseudo": component})
    check_model_files({}, mixture)
    path = tmp_path / "labels" / name
    path.write_bytes(path.read_bytes().replace(b"ei", b"ie"))
    if name == "hypotheses.txt":
        path.write_bytes(path.read_bytes().replace(b"eniez", b"x").replace(b"enie", b"nein"))
    with pytest.raises(InputError, match=f"components.pseudo.directory: '.*{name}' has changed since it was written"):
        check_model_files({}, mixture)
    from nemo_distill.data.mixing.components import load_batches

    tokenizers = load_tiny_tokenizer(), load_tiny_tokenizer()
    for store in ({}, {"token_store": str(tmp_path / "tokens")}):
        with pytest.raises(InputError, match=f"{name}' has changed while it was in use"):
            load_batches("pseudo", component, {"tokens_in_batch": 100, **store}, *tokenizers, 1)


@pytest.mark.parametrize("content", ["{}", "[", '{"files": {"source.txt": {"sha256": 1}}}', '{"files": []}'])
def test_labels_with_a_damaged_manifest_are_not_trained_on(word_engine, tmp_path, content):
    (tmp_path / "input.de").write_text("eine kurze Zeile\n")
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    (tmp_path / "labels/manifest.json").write_text(content)
    mixture = MixtureConfig(components={"pseudo": ComponentConfig(directory=str(tmp_path / "labels"))})
    with pytest.raises(
        InputError,
        match=r"pseudo.directory: '.*manifest.json' (does not list|is not valid|is the manifest of)",
    ):
        check_model_files({}, mixture)


def test_labels_of_ones_own_need_no_manifest(word_engine, tmp_path):
    (tmp_path / "input.de").write_text("eine kurze Zeile\n")
    manifest, _ = label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    assert json.loads((tmp_path / "labels/manifest.json").read_text()) == manifest
    (tmp_path / "labels/manifest.json").unlink()
    (tmp_path / "labels/hypotheses.txt").write_text("mine\n")
    check_model_files({}, MixtureConfig(components={"p": ComponentConfig(directory=str(tmp_path / "labels"))}))
