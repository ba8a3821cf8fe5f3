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
"""What a job says of its texts before anything runs."""

import json

import pytest

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.texts import check_texts, corpus_faults, leaks


def write(directory, **texts: list[str]) -> list:
    """Write texts by the names of their files, `train_de` as train.de, and return the paths."""
    paths = []
    for name, lines in texts.items():
        paths.append(directory / name.replace("_", "."))
        paths[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return paths


def test_pairs_of_a_test_set_in_the_training_text_are_counted_once_each(tmp_path):
    source, target = write(tmp_path, train_de=["a", "b", "c", "b", ""], train_en=["A", "B", "C", "B", ""])
    test = write(
        tmp_path, test_de=["b ", "c", "b", "", "d"], test_en=["B", "X", "B", "", "D"], more_en=["-", "C", *"---"]
    )
    [line] = leaks((source, target), {"test": test, "other": [test[0], source.with_name("test.en")][:1]})
    assert line.startswith("test set test: 2 of its pairs are in the training text too")
    assert leaks((source, target), {"test": [test[0], test[0]]}) == []


def test_paths_of_a_recipe_are_relative_to_the_working_directory(tiny_corpus, tmp_path, monkeypatch):
    recipe = {"corpus": tiny_corpus.name, "tests": {"t": [f"{tiny_corpus.name}/test.{code}" for code in ("de", "en")]}}
    (tmp_path / "recipe.yaml").write_text(json.dumps({**recipe, "runs": {"plain": {"plain": True}}}))
    monkeypatch.chdir(tiny_corpus.parent)
    Graph(read_recipe(tmp_path / "recipe.yaml"), tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"the corpus '{tiny_corpus.name}' does not exist"):
        Graph(read_recipe(tmp_path / "recipe.yaml"), tmp_path / "out")


def test_decomposed_letters_are_told_once(tmp_path):
    pair = write(tmp_path, test_de=["a", "Tu\u0308r"], test_en=["A", "Door"])
    more = write(tmp_path, more_en=["É", "Porte"])
    [line] = check_texts([pair, [pair[0], *more]])
    assert line.startswith(f"'{pair[0]}': line 2: letters are decomposed (NFD")


def test_a_job_tells_of_them(tiny_corpus, tmp_path, monkeypatch, capfd):
    for split in ("train", "valid", "test"):
        for code in ("de", "en"):
            (tmp_path / f"{split}.{code}").write_text((tiny_corpus / f"{split}.{code}").read_text("utf-8"), "utf-8")
    recipe = {
        "teacher": {"model": "small_1x1", "steps": 4},
        "student": {"steps": 4},
        "runs": {"plain": {"plain": True}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    pair = [(tiny_corpus / f"test.{code}").read_text("utf-8").splitlines()[0] for code in ("de", "en")]
    for line, code in zip(pair, ("de", "en"), strict=True):
        with (tmp_path / f"train.{code}").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    graph = Graph(read_recipe(tmp_path / "recipe.yaml", {"corpus": str(tmp_path)}, []), tmp_path / "out")
    assert [line.partition(":")[0] for line in graph.leaks()] == ["test set test"]
    monkeypatch.setattr("nemo_distill.jobs.stages.run_stages", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(
            ["run", str(tmp_path / "recipe.yaml"), "--corpus", str(tmp_path), "--output-dir", str(tmp_path / "out")]
        )
    assert "of its pairs are in the training text too, and its score is the better for it" in capfd.readouterr().out


def test_a_corpus_that_is_compressed_is_told_so(tmp_path):
    write(tmp_path, train_de=["a"], train_en=["A"], valid_de=["a"], valid_en=["A"], test_de=["a"])
    (tmp_path / "test.en.gz").write_bytes(b"")
    [fault] = corpus_faults(tmp_path, "de", "en")
    assert fault == f"'{tmp_path}' lacks test.en, and has test.en.gz; decompress what is compressed"
    (tmp_path / "test.en.gz").unlink()
    [fault] = corpus_faults(tmp_path, "de", "en")
    assert fault.endswith(
        "lacks test.en; a corpus has train, valid and test files per language; it has train.de, train.en: say which "
        "languages, --source and --target"
    )
