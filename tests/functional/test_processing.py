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
"""Students of a teacher of Moses text, from raw corpora: the example script from its first call to its last."""

import re
import runpy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from nemo.collections.common.tokenizers.moses_tokenizers import MosesProcessor
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from short_runs import TINY

from nemo_distill import cli
from nemo_distill.archives.restore import read_archive_config
from nemo_distill.data.processing import RawFile, process_files
from nemo_distill.data.processors import Processing
from nemo_distill.support.incoming import read_json
from nemo_distill.support.manifest import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def distil(monkeypatch, capsys, tiny_corpus, tiny_tokenizer, tmp_path):
    """A function that calls examples/distill.py, or another script, here; returns exit status and message."""

    def run(*overrides: str, script: str = "distill.py") -> tuple[int, str]:
        main = runpy.run_path(str(ROOT / "examples" / script))["main"]
        data = [f"data.dir={tiny_corpus}", f"data.tokenizer={tiny_tokenizer}", f"output_dir={tmp_path / 'run'}"]
        with initialize_config_dir(str(ROOT / "configs"), version_base=None):
            config = compose(script.removesuffix(".py"), [*TINY, "data.tokens_in_batch=400", *data, *overrides])
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        try:
            main(config)
        except SystemExit as stop:
            errors = capsys.readouterr().err
            return stop.code, errors[errors.index(f"{script}: ") :]
        return 0, ""

    return run


@pytest.fixture(scope="module")
def processed_corpus(tiny_corpus, tmp_path_factory) -> Path:
    """The tiny corpus as Moses text."""
    directory = tmp_path_factory.mktemp("processed") / "corpus"
    sides = {"de": "source", "en": "target"}
    raw = [
        RawFile(str(tiny_corpus / f"{split}.{language}"), f"{split}.{language}", side)
        for split in ("train", "valid")
        for language, side in sides.items()
    ]
    process_files(raw, Processing("de", "en"), directory)
    return directory


@pytest.fixture
def labels(processed_corpus, tmp_path) -> Path:
    """Pseudo-labels as training reads them, of a teacher whose languages their manifest names."""
    contents = {
        "source.tok.txt": (processed_corpus / "train.de").read_bytes(),
        "hypotheses.tok.txt": (processed_corpus / "train.en").read_bytes().replace(b"The ", b"This "),
    }
    write_run(tmp_path / "pseudo", {"verb": "made up"}, contents, {"languages": {"source": "de", "target": "en"}})
    return tmp_path / "pseudo"


def test_a_live_teacher(distil, tiny_corpus, tiny_teacher_path, tmp_path):
    """Raw text is processed once, as NeMo does it; the run stays that of its raw text, and goes on with it."""
    arguments = [f"teacher={tiny_teacher_path}"]
    assert distil(*arguments) == (0, "")
    run, archive = tmp_path / "run", tmp_path / "run/student.nemo"
    for name, language, split in (("train.source", "de", "train"), ("valid.target", "en", "valid")):
        moses = MosesProcessor(language)
        raw = (tiny_corpus / f"{split}.{language}").read_text("utf-8").splitlines()
        wanted = "".join(f"{moses.tokenize(moses.normalize(line))}\n" for line in raw)
        assert (run / "text" / name).read_text("utf-8") == wanted
        assert wanted != (tiny_corpus / f"{split}.{language}").read_text("utf-8")
    student = MTEncDecModel.restore_from(str(archive))
    assert (student.cfg.src_language, student.cfg.tgt_language) == ("de", "en")
    assert type(student.source_processor) is MosesProcessor
    stored = OmegaConf.load(run / "config.yaml")
    assert stored.model.train_ds.src_file_name == str(tiny_corpus / "train.de")
    assert stored.text == {"languages": {"source": "de", "target": "en"}}

    times = {path: path.stat().st_mtime_ns for path in [archive, *(run / "text").iterdir()]}
    assert distil(*arguments) == (0, "")
    archive.unlink()
    run.rename(tmp_path / "moved")  # its checkpoints name the text at its old place
    assert distil(*arguments, f"output_dir={tmp_path / 'moved'}") == (0, "")
    moved = tmp_path / "moved"
    assert (moved / "student.nemo").is_file()
    del times[archive]
    assert all((moved / "text" / path.name).stat().st_mtime_ns == time for path, time in times.items())
    assert not list(moved.glob("log/checkpoints/*step=4*"))

    status, errors = distil(*arguments, f"output_dir={moved}", "data.processing=none", "model.src_language=ignore")
    assert (status, "already holds another run" in errors, "text." in errors) == (2, True, True)
    other = [*arguments, f"output_dir={moved}", "overwrite=true", "seed=2"]
    assert distil(*other) == (0, "")
    assert (moved / "text/train.source").is_file()
    raw_teacher = ["+model.distillation.teacher.source_language=ignore"]
    raw_teacher += ["+model.distillation.teacher.target_language=ignore"]
    assert distil(*other, *raw_teacher) == (0, "")
    assert not (moved / "text").exists()
    assert "text" not in OmegaConf.load(moved / "config.yaml")


def test_a_cache_of_the_same_files_serves_raw_and_processed_text(
    distil, tiny_corpus, processed_corpus, tiny_teacher_path, tmp_path, capsys
):
    """Every pair of the student's training is in it, or the run would not begin."""
    command = ["cache", "--teacher", str(tiny_teacher_path), "--top-k", "4", "--output-dir"]

    def files(directory: Path) -> list[str]:
        return ["--source", str(directory / "train.de"), "--target", str(directory / "train.en")]

    assert cli.main([*command, str(tmp_path / "raw"), *files(tiny_corpus)]) == 0
    assert cli.main([*command, str(tmp_path / "processed"), *files(processed_corpus), "--processed"]) == 0
    manifests = [read_json(tmp_path / name / "manifest.json") for name in ("raw", "processed")]
    assert manifests[0]["files"] == manifests[1]["files"]
    assert manifests[0]["request"]["languages"] == {"source": "de", "target": "en"}
    capsys.readouterr()
    for text, option, message in (
        (processed_corpus, [], "train.de' looks tokenized already .* give --processed"),
        (tiny_corpus, ["--processed"], "train.de' looks raw .* leave it out"),
    ):
        assert cli.main([*command, str(tmp_path / "no"), *files(text), *option]) == 2
        assert re.search(message, capsys.readouterr().err)
    assert distil("distillation=hinton_cached", f"cache={tmp_path / 'raw'}") == (0, "")
    assert read_archive_config(tmp_path / "run/student.nemo").src_language == "de"
    languages = ["--source-lang", "ignore", "--target-lang", "ignore"]
    assert cli.main([*command, str(tmp_path / "as_it_is"), *files(tiny_corpus), *languages]) == 0
    unlike = ["distillation=hinton_cached", f"cache={tmp_path / 'as_it_is'}", f"output_dir={tmp_path / 'other'}"]
    assert distil(*unlike) == (0, "")  # which names no languages: such a student reads raw text
    assert not (tmp_path / "other/text").exists()


def test_labels(distil, labels, processed_corpus, tiny_corpus, tiny_teacher_path, tmp_path):
    """They are left as they are; gold text beside them is processed; their manifest names languages too."""
    hybrid = ["distillation=hybrid", f"teacher={tiny_teacher_path}", f"pseudo={labels}"]
    assert distil(*hybrid) == (0, "")
    assert {path.name for path in (tmp_path / "run/text").iterdir()} == {
        "gold.source", "gold.target", "valid.source", "valid.target", "manifest.json",
    }  # fmt: skip
    assert (tmp_path / "run/text/gold.source").read_bytes() == (processed_corpus / "train.de").read_bytes()
    gold = "model.distillation.mixture.components.gold"
    given = [f"{gold}.{side}={processed_corpus}/train.{code}" for side, code in (("source", "de"), ("target", "en"))]
    status, errors = distil(*hybrid, *given, f"output_dir={tmp_path / 'given'}")
    assert status == 2
    assert f"{gold}.source: '{processed_corpus}/train.de' looks tokenized already" in errors
    assert "processed: true beside this key" in errors
    assert distil(*hybrid, *given, f"+{gold}.processed=true", f"output_dir={tmp_path / 'given'}") == (0, "")
    assert {path.name for path in (tmp_path / "given/text").iterdir()} == {
        "valid.source", "valid.target", "manifest.json",
    }  # fmt: skip
    assert distil("distillation=seq_level", f"pseudo={labels}", f"output_dir={tmp_path / 'seq'}") == (0, "")
    assert read_archive_config(tmp_path / "seq/student.nemo").tgt_language == "en"


def test_a_plain_twin(distil, tiny_corpus, processed_corpus, tmp_path):
    """By languages, or of processed text that says so; and as it is, where nothing is asked for."""
    twin = {"script": "train_nmt.py"}
    assert distil("data.processing=languages", **twin) == (0, "")
    assert read_archive_config(tmp_path / "run/model.nemo").src_language == "de"
    given = [f"data.dir={processed_corpus}", "data.processing=languages", f"output_dir={tmp_path / 'given'}"]
    status, errors = distil(*given, **twin)
    assert (status, errors.count("looks tokenized already")) == (2, 4)
    assert distil(*given, "data.processed=true", **twin) == (0, "")
    assert not (tmp_path / "given/text").exists()
    assert read_archive_config(tmp_path / "given/model.nemo").src_language == "de"
    assert distil(f"output_dir={tmp_path / 'plain'}", **twin) == (0, "")
    assert not (tmp_path / "plain/text").exists()
    assert "processing" not in OmegaConf.load(tmp_path / "plain/config.yaml").data  # a run of an earlier version
