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

import json

import pytest

from nemo_distill.data.tokens.store import LARGE_TEXT
from nemo_distill.errors import InputError
from nemo_distill.support.compressed import compress
from nemo_distill.training.inputs import (
    INPUTS_FILE,
    has_large_text,
    input_hashes,
    note_inputs,
    refuse_changed_inputs,
)


@pytest.fixture
def model(tmp_path):
    """A model section whose files lie in the directory of the test."""

    def write(name: str, content: str) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    for name in ("labels/source.txt", "labels/hypotheses.txt", "cache/manifest.json"):
        write(name, name)
    pair = {"src_file_name": write("a.de", "eins"), "tgt_file_name": [write("a.en", "one")]}
    return {
        "encoder_tokenizer": {"tokenizer_model": write("tokenizer.model", "pieces")},
        "decoder_tokenizer": {"tokenizer_model": None},
        "train_ds": {"src_file_name": "not read"},
        "validation_ds": pair,
        "test_ds": None,
        "distillation": {
            "teacher": {"model_path": [write("t.nemo", "weights")], "cache": str(tmp_path / "cache")},
            "init": {"from_nemo": write("i.nemo", "weights")},
            "mixture": {
                "components": {
                    "gold": {"source": [write("g.de", "zwei")], "target": write("g.en", "two")},
                    "pseudo": {"directory": str(tmp_path / "labels")},
                    "odd": None,
                }
            },
        },
    }


FILES = {
    "tokenizer.model": "encoder_tokenizer.tokenizer_model",
    "a.de": "validation_ds.src_file_name",
    "a.en": "validation_ds.tgt_file_name",
    "t.nemo": "distillation.teacher.model_path",
    "i.nemo": "distillation.init.from_nemo",
    "cache/manifest.json": "distillation.teacher.cache",
    "g.de": "distillation.mixture.components.gold.source",
    "labels/hypotheses.txt": "distillation.mixture.components.pseudo.directory",
}


@pytest.mark.parametrize("name", FILES)
def test_a_run_does_not_go_on_with_another_file(model, tmp_path, name):
    run = tmp_path / "run"
    refuse_changed_inputs(run, input_hashes(model))
    note_inputs(run, input_hashes(model))
    refuse_changed_inputs(run, input_hashes(model))
    content = (tmp_path / name).read_text()
    (tmp_path / name).write_text("changed")
    with pytest.raises(InputError, match=f"was begun with other files for model.{FILES[name]}: they have changed"):
        refuse_changed_inputs(run, input_hashes(model))
    (tmp_path / name).write_text(content)
    refuse_changed_inputs(run, input_hashes(model))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("place", ["train_ds", "distillation.mixture.components.gold"])
def test_a_run_does_not_go_on_with_other_shards(tmp_path, named, place):
    """Of which the metadata says how many batches there are, and their names at most."""
    shard, metadata = tmp_path / "a.tar", tmp_path / "metadata.json"
    shard.write_text("one")
    metadata.write_text(json.dumps({"num_batches": 1} | ({} if named else {"tar_files": ["a.tar"]})))
    model: dict = {"metadata_file": str(metadata)} | ({"tar_files": str(shard)} if named else {})
    for key in reversed(place.split(".")):
        model = {key: model}
    note_inputs(tmp_path, input_hashes(model))
    refuse_changed_inputs(tmp_path, input_hashes(model))
    shard.write_text("two")
    with pytest.raises(InputError, match=f"was begun with other files for model.{place}.tar_files: they have changed"):
        refuse_changed_inputs(tmp_path, input_hashes(model))
    note_inputs(tmp_path, {f"{place}.metadata_file": input_hashes(model)[f"{place}.metadata_file"]})
    refuse_changed_inputs(tmp_path, input_hashes(model))  # begun by a version that did not note them


def test_the_place_of_a_file_does_not_count(model, tmp_path):
    note_inputs(tmp_path, input_hashes(model))
    (tmp_path / "a.de").rename(tmp_path / "b.de")
    model["validation_ds"]["src_file_name"] = str(tmp_path / "b.de")
    refuse_changed_inputs(tmp_path, input_hashes(model))


@pytest.mark.parametrize("section", [{}, {"distillation": 3}, {"train_ds": []}, {"distillation": {"teacher": "x"}}])
def test_wrong_types_are_left_to_those_who_read_them(section):
    assert input_hashes(section) == {}


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": [1]}', "x"])
def test_a_damaged_note(model, tmp_path, content):
    (tmp_path / INPUTS_FILE).write_text(content)
    with pytest.raises(InputError, match="inputs.json' is (damaged; remove it|not valid JSON)"):
        refuse_changed_inputs(tmp_path, input_hashes(model))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_text_is_large_by_what_is_in_it(tmp_path, suffix, missing):
    """Not by the few kilobytes that it takes, compressed."""
    half = b"a line of text\n" * (LARGE_TEXT // 30)
    for name, content in (("a.de", half), ("a.en", half.ljust(LARGE_TEXT - len(half) - missing, b"\n"))):
        (tmp_path / f"{name}{suffix}").write_bytes(compress(content, suffix))
    names = {f"{side}_file_name": str(tmp_path / f"a.{end}{suffix}") for side, end in (("src", "de"), ("tgt", "en"))}
    assert has_large_text({"train_ds": names}) == (not missing)
    assert not has_large_text({"validation_ds": names})
    assert not has_large_text({"train_ds": {**names, "tgt_file_name": [str(tmp_path), str(tmp_path / "absent")]}})
