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
"""What a run's configuration says of its text, what contradicts it, and the processes that wait for it."""

import copy
import json
import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data.processing import process_files
from nemo_distill.errors import InputError
from nemo_distill.labels.given import label_given
from nemo_distill.training import text as module
from nemo_distill.training.directory import refuse_other_run
from nemo_distill.training.text import read_run_text
from nemo_distill.training.text_settings import logging as settings_log
from nemo_distill.training.text_settings import origin_model


@pytest.fixture(scope="module")
def tokenized(tiny_corpus, tmp_path_factory) -> Path:
    """The tiny corpus with its full stops apart."""
    directory = tmp_path_factory.mktemp("tokenized")
    for path in tiny_corpus.iterdir():
        (directory / path.name).write_text(path.read_text("utf-8").replace(".", " ."), "utf-8")
    return directory


@pytest.fixture
def configuration(tiny_model_config, tiny_teacher_path, tiny_corpus):
    """A factory of the plain configuration of a run: `data` section, dotted keys of the model section."""

    def build(data: dict, corpus: Path = tiny_corpus, **overrides) -> dict:
        languages = {"src_language": "ignore", "tgt_language": "ignore"}
        teacher = {"distillation": {"teacher": {"model_path": str(tiny_teacher_path)}}}
        model = OmegaConf.to_container(tiny_model_config(data=True, **{**languages, **teacher, **overrides}))
        for section in ("train_ds", "validation_ds"):
            for key in ("src_file_name", "tgt_file_name"):
                if isinstance(model[section][key], str):
                    model[section][key] = model[section][key].replace(str(tiny_corpus), str(corpus))
        return {"data": {"source": "de", "target": "en", **data}, "model": model}

    return build


def test_text_that_is_read_as_it_is(configuration, tmp_path):
    """The model's section stays, and the run is that of a version without these keys."""
    plain = configuration({"processing": "none", "processed": False})
    before = copy.deepcopy(plain)
    text = read_run_text(plain)
    assert "text" not in plain
    assert plain["data"] == {"source": "de", "target": "en"}
    with text.prepared(tmp_path, overwrite=False) as model:
        assert model == before["model"]
    assert not list(tmp_path.iterdir())


def test_what_cannot_begin_leaves_nothing(configuration, tmp_path):
    """Text that was processed for it goes again; where it was stopped, it stays, and the directory is free."""
    text = read_run_text(configuration({"processing": "teacher"}))
    with pytest.raises(InputError, match="no such optimizer"), text.prepared(tmp_path, False) as model:
        assert model["train_ds"]["src_file_name"] == str(tmp_path / "text/train.source")
        raise InputError("no such optimizer")
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), text.prepared(tmp_path, False):
        raise KeyboardInterrupt
    assert (tmp_path / "text/manifest.json").is_file()
    refuse_other_run(tmp_path, tmp_path / "tiny.nemo", {}, overwrite=False)
    (tmp_path / "text/manifest.json").write_text('{"request": {"verb": "mine"}}')
    with pytest.raises(InputError, match="text' is not what a run makes there; move it away"):
        refuse_other_run(tmp_path, tmp_path / "tiny.nemo", {}, overwrite=False)


def test_other_processes_wait_for_the_first(configuration, tiny_corpus, tmp_path, monkeypatch):
    text = read_run_text(configuration({"processing": "teacher"}))
    raw = list(text.raw.values())
    monkeypatch.setenv("RANK", "1")
    first = threading.Thread(
        target=lambda: (time.sleep(0.3), process_files(raw, text.processing[None], tmp_path / "text"))
    )
    first.start()
    with text.prepared(tmp_path, False) as model:
        assert Path(model["validation_ds"]["tgt_file_name"]).is_file()
        assert (model["src_language"], model["tgt_language"]) == ("de", "en")
    first.join()
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    late = text.prepared(tmp_path / "elsewhere", False)
    with pytest.raises(TimeoutError, match="the first process has not written the text"), late:
        pass


def test_text_that_others_may_be_reading_stays(configuration, tmp_path):
    """Processes of a run that overwrites its like take the text that is there, before the first one has looked."""
    text = read_run_text(configuration({"processing": "teacher"}))
    with text.prepared(tmp_path, False):
        (tmp_path / "config.yaml").touch()
    inodes = {path.name: path.stat().st_ino for path in (tmp_path / "text").iterdir()}
    with text.prepared(tmp_path, True):
        assert {path.name: path.stat().st_ino for path in (tmp_path / "text").iterdir()} == inodes
    (tmp_path / "text/train.source").unlink()
    with text.prepared(tmp_path, True):
        assert (tmp_path / "text/train.source").is_file()


def test_labels_of_raw_text(configuration, tiny_corpus, tmp_path):
    """What somebody else wrote names no processors."""
    label_given(tiny_corpus / "train.en", tiny_corpus / "train.de", tmp_path / "labels")
    manifest = json.loads((tmp_path / "labels/manifest.json").read_text("utf-8"))
    # as of a teacher that is not NeMo's
    manifest["request"]["languages"] = {"source": "deu_Latn", "target": "eng_Latn"}
    (tmp_path / "labels/manifest.json").write_text(json.dumps(manifest), "utf-8")
    components = {"pseudo": {"directory": str(tmp_path / "labels")}}
    section = {
        "objective": {"nll": {"weight": 1.0}, "word_kd": {"weight": 0.0}},
        "mixture": {"components": components},
    }
    plain = configuration({"processing": "teacher"}, distillation=section)
    assert not read_run_text(plain).processing
    plain = configuration({"processing": "none"}, distillation=section, src_language="de", tgt_language="en")
    with pytest.raises(InputError, match="looks raw"):
        read_run_text(plain)


@pytest.mark.parametrize(
    ("data", "overrides", "corpus", "message"),
    [
        ({"processing": "moses"}, {}, "raw", "data.processing: got 'moses'; give teacher, languages, none"),
        ({"processing": "none", "processed": "yes"}, {}, "raw", "data.processed: got 'yes'; give true or false"),
        ({"processing": "teacher"}, {}, "tokenized", r"model.train_ds.src_file_name: .* give data.processed=true"),
        ({"processing": "teacher", "processed": True}, {}, "raw", "is said to be processed, and looks raw"),
        (
            {"processing": "teacher"},
            {"validation_ds.processed": True},
            "raw",
            r"model.validation_ds.src_file_name: .* is said to be processed, and looks raw .*\n.*tgt_file_name",
        ),
        (
            {"processing": "none"},
            {"src_language": "de", "tgt_language": "en"},
            "raw",
            r"looks raw, but model.src_language de is for text that MosesProcessor de .* data.processing=languages",
        ),
        ({"processing": "teacher"}, {"src_language": "fr"}, "raw", "model.src_language: got fr, and the teacher's"),
        (
            {"processing": "teacher"},
            {"distillation.teacher": {"model_path": "no.nemo"}},
            "raw",
            "distillation.teacher.model_path: 'no.nemo' does not exist",
        ),
        (
            {"processing": "teacher"},
            {"distillation.teacher.source_language": "no language"},
            "raw",
            "distillation.teacher.source_language: got 'no language'; give a code such as de",
        ),
        ({"processing": "languages", "source": "d/e"}, {}, "raw", "'d/e' is no source language; give data.source"),
        (
            {"processing": "teacher"},
            {"distillation.mixture": {"components": {"a": {"metadata_file": "x", "processed": True}}}},
            "raw",
            "components.a.processed: is said of source and target alone; leave it out",
        ),
    ],
)
def test_what_does_not_fit(configuration, tokenized, tiny_corpus, data, overrides, corpus, message):
    plain = configuration(data, tokenized if corpus == "tokenized" else tiny_corpus, **overrides)
    with pytest.raises(InputError, match=message):
        read_run_text(plain)


def test_languages_that_are_said_of_the_teacher(configuration, tokenized, tiny_corpus, monkeypatch):
    """They go before its archive's; `ignore` is raw text, about which tokenized text gets a warning."""
    raw = {f"distillation.teacher.{side}_language": "ignore" for side in ("source", "target")}
    plain = configuration({"processing": "teacher"}, **raw)
    assert not read_run_text(plain).raw
    plain = configuration({"processing": "teacher"}, **raw, tgt_language="en")
    with pytest.raises(InputError, match="tgt_language: got en, and the teacher's target text is read as it is; give"):
        read_run_text(plain)
    french = {"distillation.teacher.source_language": "fr"}
    assert read_run_text(configuration({"processing": "teacher"}, **french)).languages() == {
        "source": "fr",
        "target": "en",
    }
    own = {"src_language": "cs", "distillation": {}}
    assert read_run_text(configuration({"processing": "languages"}, **own)).languages()["source"] == "cs"
    warnings = []
    monkeypatch.setattr(settings_log, "warning", warnings.append)
    read_run_text(configuration({"processing": "teacher"}, tokenized, **raw))
    assert len(warnings) == 4
    assert "looks tokenized, and model.src_language names no language" in warnings[0]


def test_a_recipe_that_reads_raw_text_is_warned(student_config, tokenized, monkeypatch):
    """NeMo's convention: training reads processed text. Without `data.processing` the model looks at it itself."""
    warnings = []
    monkeypatch.setattr(settings_log, "warning", warnings.append)
    config = student_config(hidden_size=8)
    config.train_ds.src_file_name = str(tokenized / "train.de")
    DistilledMTEncDecModel(config)
    warnings = [each for each in warnings if "looks raw" in each]
    assert [each.split(": '")[0] for each in warnings] == [
        "nemo_distill: model.train_ds.tgt_file_name",
        "nemo_distill: model.validation_ds.src_file_name",
        "nemo_distill: model.validation_ds.tgt_file_name",
    ]
    assert "Process it with `nemo-distill preprocess`, or give model.tgt_language=ignore" in warnings[0]


@pytest.mark.parametrize("mode", ["languages", "teacher"])
@pytest.mark.parametrize("is_raw", [True, False])
def test_labels_of_other_languages_are_refused(mode, is_raw, configuration, tiny_corpus, tokenized, tmp_path):
    """They would have set the languages of a student without a teacher, and the processors of its gold text."""
    corpus = tiny_corpus if is_raw else tokenized
    label_given(corpus / "train.en", corpus / "train.de", tmp_path / "labels", progress=False)
    manifest = json.loads((tmp_path / "labels/manifest.json").read_text("utf-8"))
    for name in ["source", "hypotheses"] if not is_raw else []:
        (tmp_path / f"labels/{name}.tok.txt").write_bytes((tmp_path / f"labels/{name}.txt").read_bytes())
        manifest["files"][f"{name}.tok.txt"] = manifest["files"][f"{name}.txt"]
    section = {
        "objective": {"nll": {"weight": 1.0}, "word_kd": {"weight": 0.0}},
        "mixture": {"components": {"pseudo": {"directory": str(tmp_path / "labels")}}},
    }
    for target in ("eng_Latn", "zh"):
        manifest["request"]["languages"] = {"source": "de", "target": target}
        (tmp_path / "labels/manifest.json").write_text(json.dumps(manifest), "utf-8")
        plain = configuration({"processing": mode}, distillation=section)
        if target == "eng_Latn":
            read_run_text(plain)
            continue
        with pytest.raises(
            InputError, match="labels of .*manifest.json have the target language zh, and the run has en"
        ):
            read_run_text(plain)


@pytest.mark.parametrize("mode", ["languages", "teacher"])
def test_raw_labels_are_processed(mode, configuration, tiny_corpus, tokenized, tmp_path):
    """Of a teacher that is no NeMo model: by the languages of the run. Tokenized ones stay as they are."""

    def read(corpus: Path, *data, **keys):
        labels = tmp_path / f"labels-{corpus.name}"
        label_given(corpus / "train.en", corpus / "train.de", labels, progress=False)
        plain = configuration(*data, **keys)
        plain["model"]["distillation"]["mixture"] = {"components": {"pseudo": {"directory": str(labels)}}}
        return labels, plain, read_run_text(plain)

    labels, plain, text = read(tiny_corpus, {"processing": mode})
    before = copy.deepcopy(plain["model"])
    with text.prepared(tmp_path / mode, overwrite=False) as model:
        component = model["distillation"]["mixture"]["components"]["pseudo"]
        assert component["labels"] == str(labels)
        assert component.keys() == {"source", "target", "labels"}
        for side, name in (("source", "source.txt"), ("target", "hypotheses.txt")):
            expected = [
                text.processing[None].process(side, line) for line in (labels / name).read_text("utf-8").splitlines()
            ]
            assert Path(component[side]).read_text("utf-8").splitlines() == expected
            assert expected[0].endswith(" .")
    assert plain["model"] == before
    stored = {**plain, "model": model}
    assert origin_model(stored) == origin_model(plain)

    _, _, text = read(tokenized, {"processing": mode})
    assert {place.processed for place in text.places if place.of_labels} == {True}
    with pytest.raises(InputError, match=r"components.pseudo.source: .* looks raw.* nothing tokenizes it here"):
        read(tiny_corpus, {"processing": "none"}, tokenized, src_language="de", tgt_language="en")


def test_each_set_of_a_multilingual_model_is_processed_as_its_language(configuration, tmp_path):
    """French keeps its apostrophe with the article, English does not; one file may be read for several languages."""
    files = {"en": "It isn't red, is it?", "fr": "L'eau n'est pas rouge, non?", "de": "Ist das rot, oder?"}
    for language, line in files.items():
        (tmp_path / language).write_text(f"{line}\n" * 20, "utf-8")
    data = {
        "multilingual": True,
        "src_language": ["de", "fr"],
        "validation_ds.src_file_name": [str(tmp_path / "fr"), str(tmp_path / "de")],
        "validation_ds.tgt_file_name": [str(tmp_path / "en")] * 2,
        "validation_ds.languages": ["fr", "de"],
        "distillation.mixture.components": {
            name: {"source": str(tmp_path / name), "target": str(tmp_path / "en"), "language": name}
            for name in ("fr", "de")
        },
        "distillation.mixture.probabilities": {"fr": 0.5, "de": 0.5},
    }
    plain = configuration({"processing": "languages"}, **data)
    with read_run_text(plain).prepared(tmp_path / "run", False) as model:
        section, components = model["validation_ds"], model["distillation"]["mixture"]["components"]
        read = [Path(path).read_text("utf-8").splitlines()[0] for path in section["src_file_name"]]
        assert read == ["L' eau n' est pas rouge , non ?", "Ist das rot , oder ?"]
        assert Path(components["fr"]["source"]).read_text("utf-8").startswith("L' eau")
        assert Path(components["de"]["target"]).read_text("utf-8").startswith("It isn 't red , is it ?")
        assert (model["src_language"], model["tgt_language"]) == (["de", "fr"], "en")
    assert plain["text"] == {"languages": {"source": ["de", "fr"], "target": "en"}}
    with pytest.raises(InputError, match="'.*/fr' looks raw.* model.src_language fr .* MosesProcessor fr"):
        read_run_text(configuration({"processing": "none"}, **data))
    data["distillation.mixture.components"]["de"]["language"] = "it"
    with pytest.raises(InputError, match="components.de.language: got 'it', and the model's are de, fr"):
        read_run_text(configuration({"processing": "languages"}, **data))
