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
"""Caches of a teacher's outputs, from writing to training, and ensembles."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from processes import run_processes

from nemo_distill import DistillationConfig, DistilledMTEncDecModel, cli
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.labels.given import label_given
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import remembered
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.share import Share
from nemo_distill.support.text_files import read_lines
from nemo_distill.teachers import cache_shards
from nemo_distill.teachers.cache_arrays import ShardFile
from nemo_distill.teachers.cache_format import LogitCache, batch_pairs, pair_keys
from nemo_distill.teachers.cache_manifest import read_cache_manifest
from nemo_distill.teachers.cache_records import Records, to_levels, values_of
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.teachers.frozen import FrozenTeacher

TEMPERATURES = (1.0, 2.0)


@pytest.fixture(scope="module")
def text(tiny_corpus) -> list[tuple[str, str]]:
    return [(str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))]


@pytest.fixture(scope="module")
def cache_dir(text, tiny_teacher_path, tmp_path_factory) -> Path:
    """A cache of the training text in several shards, of 8 of the 120 words."""
    directory = tmp_path_factory.mktemp("cache") / "cache"
    write_cache([str(tiny_teacher_path)], text, directory, CacheSettings(8, TEMPERATURES, shard_tokens=800))
    assert len(read_json(directory / "manifest.json")["shards"]) > 2
    return directory


@pytest.fixture
def own_cache(cache_dir, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(cache_dir, tmp_path / "own"))


@pytest.fixture(scope="module")
def all_words(text, tiny_teacher_path, tmp_path_factory) -> Path:
    """A cache that leaves nothing out."""
    directory = tmp_path_factory.mktemp("cache") / "all"
    write_cache([str(tiny_teacher_path)], text, directory, CacheSettings(120, TEMPERATURES))
    return directory


def student_of(student_config, directory: Path, objective=None, teacher=None, **overrides) -> DistilledMTEncDecModel:
    config = student_config(objective=objective, **overrides)
    config.distillation.teacher = {"cache": str(directory), **(teacher or {})}
    torch.manual_seed(0)
    return DistilledMTEncDecModel(config).eval()


def test_the_records_are_the_teachers_distribution(cache_dir, student_config, tiny_model, first_batch):
    batch = first_batch(DistilledMTEncDecModel(student_config(objective={"word_kd": {"weight": 0}})))
    cache = LogitCache(cache_dir)
    places = cache.find(pair_keys(batch_pairs(batch, 0)))
    assert (places >= 0).all()
    logits = FrozenTeacher(tiny_model).logits(batch)[batch[4] != 0]
    records = cache.read(places)
    for temperature in TEMPERATURES:
        targets = cache.targets(records, temperature, torch.device("cpu"))
        rounded = logits - logits.amax(-1, keepdim=True)  # of what is kept; the rest is of the logits as they are
        rounded.scatter_(-1, targets.ids, values_of(to_levels(rounded.gather(-1, targets.ids))))
        wanted = (rounded / temperature).softmax(-1)
        # By their logits: of two words that are equal but for a rounding either may come first.
        torch.testing.assert_close(logits.gather(-1, targets.ids), logits.topk(8).values, atol=1e-4, rtol=1e-5)
        log_q, rest = targets.log_shares(temperature, torch.float32)
        torch.testing.assert_close(log_q.exp(), wanted.gather(-1, targets.ids), atol=1e-6, rtol=2e-3)
        others = wanted.scatter(-1, targets.ids, 0).sum(-1)
        torch.testing.assert_close(rest, others, atol=1e-3, rtol=0)


@pytest.mark.parametrize("computation", ["lean", "plain"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_cache_of_all_words_trains_as_the_live_teacher(
    all_words, student_config, first_batch, computation, temperature
):
    objective = {"word_kd": {"temperature": temperature}, "computation": computation}
    cached = student_of(student_config, all_words, objective)
    torch.manual_seed(0)
    live = DistilledMTEncDecModel(student_config(objective=objective)).eval()
    assert cached._teacher.model is None
    batch = first_batch(live)
    found = []
    for student in (cached, live):
        terms = student.distillation_terms(batch)
        terms["loss"].backward()
        found.append((terms, [p.grad for p in student.parameters()]))
    for name, wanted in found[1][0].items():
        torch.testing.assert_close(found[0][0][name], wanted, atol=2e-3, rtol=2e-3)
    for gradient, wanted in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(gradient, wanted, atol=2e-3, rtol=1e-2)


def test_a_student_trains_from_a_cache(cache_dir, student_config, tiny_trainer, tmp_path):
    config = student_config()
    config.distillation.teacher = {"cache": str(cache_dir)}
    trainer = tiny_trainer(2)
    student = DistilledMTEncDecModel(config, trainer=trainer)
    before = student.log_softmax.mlp.layer0.weight.clone()
    trainer.fit(student)
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train_word_kd"] > 0
    assert not torch.equal(before, student.log_softmax.mlp.layer0.weight)
    student.save_to(str(tmp_path / "student.nemo"))
    assert "distillation" not in MTEncDecModel.restore_from(str(tmp_path / "student.nemo")).cfg


def test_a_mixture_trains_from_a_cache_of_all_its_text(
    text, tiny_teacher_path, tiny_pseudo, student_config, cache_dir, tmp_path
):
    components = {
        "gold": dict(zip(("source", "target"), text[0], strict=True)),
        "pseudo": {"directory": str(tiny_pseudo)},
    }
    config = student_config()
    config.distillation.teacher = {"cache": str(cache_dir)}
    config.distillation.mixture = {"components": components, "probabilities": {"gold": 0.5, "pseudo": 0.5}}
    with pytest.raises(
        TeacherError, match=r"teacher.cache: \d+ of 320 sentence pairs are not in '.*', such as '.+' - 'This"
    ):
        DistilledMTEncDecModel(config)
    both = [*text, (str(tiny_pseudo / "source.txt"), str(tiny_pseudo / "hypotheses.txt"))]
    write_cache([str(tiny_teacher_path)], both, tmp_path / "both")
    config.distillation.teacher.cache = str(tmp_path / "both")
    student = DistilledMTEncDecModel(config)
    batch = [item.squeeze(0) for item in next(iter(student._train_dl))]
    assert student.distillation_terms(batch)["word_kd"] > 0


@pytest.fixture
def several_labels(tiny_corpus, tmp_path) -> Path:
    """Labels that hold two hypotheses of a line, and beside them labels of the one of both that is closest to gold."""
    sources, gold = (read_lines(tiny_corpus / f"train.{side}") for side in ("de", "en"))
    given = [{"hypotheses": [{"text": line.replace("The ", "This ")}, {"text": line}]} for line in gold]
    (tmp_path / "given.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in given))
    settings = SelectionSettings(keep=2)
    label_given(tmp_path / "given.jsonl", tiny_corpus / "train.de", tmp_path / "several", settings, progress=False)
    closest = SelectionSettings("closest-chrf", tiny_corpus / "train.en")
    select(tmp_path / "several", tmp_path / "closest", closest, progress=False)
    assert len(read_lines(tmp_path / "several/source.txt")) > 1.5 * len(sources)
    return tmp_path


@pytest.mark.parametrize("chosen", ["several", "closest"])
def test_chosen_hypotheses_have_soft_targets_live_and_from_a_cache_of_all(
    text, several_labels, tiny_teacher_path, student_config, chosen, tmp_path
):
    """One cache of all hypotheses serves every choice among them."""
    labels = tuple(str(several_labels / "several" / name) for name in ("source.txt", "hypotheses.txt"))
    write_cache([str(tiny_teacher_path)], [*text, labels], tmp_path / "cache", CacheSettings(120))
    components = {
        "gold": dict(zip(("source", "target"), text[0], strict=True)),
        "pseudo": {"directory": str(several_labels / chosen)},
    }
    hybrid = {"alpha_seq_nll": 0.34, "alpha_seq_kd": 0.66, "alpha_word_kd": 1.0}
    found = []
    for teacher in ({"cache": str(tmp_path / "cache")}, {"model_path": str(tiny_teacher_path)}):
        config = student_config(objective={"hybrid": hybrid})
        config.distillation.mixture = {"components": components}
        config.distillation.teacher = teacher
        torch.manual_seed(0)
        student = DistilledMTEncDecModel(config).eval()
        dataset = student._train_dl.dataset
        assert {dataset.draw(number).component for number in range(12)} == {0, 1}
        batches = [[torch.as_tensor(item) for item in dataset[number]] for number in range(12)]
        found.append([student.distillation_terms(batch)["word_kd"].item() for batch in batches])
    assert found[0] == pytest.approx(found[1], abs=2e-3, rel=2e-3)
    assert min(found[0]) > 0


def test_a_miss_is_an_error_or_goes_to_the_teacher(cache_dir, tiny_teacher_path, student_config, first_batch):
    with_teacher = {"model_path": str(tiny_teacher_path), "on_miss": "teacher"}
    student = student_of(student_config, cache_dir, teacher=with_teacher)
    batch = first_batch(student)
    wanted = student.distillation_terms(batch)["word_kd"]
    places = student._teacher.cache.find(pair_keys(batch_pairs(batch, 0)))
    index = student._teacher.cache._index
    index._keys = index._keys.copy()
    index._keys[places[::2]] ^= np.uint64(1)  # every second pair is gone
    torch.testing.assert_close(student.distillation_terms(batch)["word_kd"], wanted, atol=1e-5, rtol=1e-4)
    student._teacher.live = None
    with pytest.raises(
        TeacherError, match=f"{len(places[::2])} of {len(places)} sentence pairs are not in .*on_miss: teacher"
    ):
        student.distillation_terms(batch)


def _rename_vocabulary(directory: Path) -> None:
    manifest = read_json(directory / "manifest.json")
    manifest["vocabularies"]["target"] = "0" * 64
    write_json_atomic(directory / "manifest.json", manifest)


def _flip_a_bit(directory: Path) -> None:
    path = directory / "shards/000001.tokens.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "manifest.json").unlink(), "holds no cache; `nemo-distill cache` makes one"),
        (lambda d: (d / "manifest.json").write_text("{}"), "is not that of a cache of format 2"),
        (lambda d: (d / "shards/000001.rows.npy").unlink(), "000001.rows.npy' of the cache is missing"),
        (lambda d: (d / "shards/000000.tokens.npy").write_bytes(b"x"), "damaged: 1 bytes in place of"),
        (_flip_a_bit, "000001.tokens.npy' is damaged: its checksum is another one"),
        (_rename_vocabulary, "was made with another target tokenizer than the student has"),
    ],
)
def test_a_damaged_cache_is_refused(own_cache, student_config, damage, message):
    damage(own_cache)
    with pytest.raises(TeacherError, match=message):
        student_of(student_config, own_cache)


def test_what_a_cache_cannot_serve_is_refused(cache_dir, student_config, tmp_path, tiny_model):
    with pytest.raises(TeacherError, match="does not hold the temperature 3, but 1 2; .*--temperatures 1 2 3"):
        student_of(student_config, cache_dir, {"word_kd": {"temperature": 3.0}})
    with pytest.raises(
        ConfigurationError, match=r"model.decoder_tokenizer.bpe_dropout is 0.1: the student reads other"
    ):
        student_of(student_config, cache_dir, **{"decoder_tokenizer.bpe_dropout": 0.1})
    other = tmp_path / "other.nemo"
    with torch.no_grad():
        next(tiny_model.parameters()).add_(1)
    tiny_model.save_to(str(other))
    with pytest.raises(TeacherError, match="was made by another teacher than .*other.nemo; make the cache anew"):
        student_of(student_config, cache_dir, teacher={"model_path": str(other)})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"objective": {"word_kd": {"divergence": "reverse_kl"}}}, "divergence: got 'reverse_kl', which needs the"),
        ({"objective": {"hidden": {"weight": 1.0}}}, "objective.hidden: reads inner layers .* set hidden.weight to 0"),
        ({"objective": {"attention": {"weight": 1.0}}}, "objective.attention: reads inner layers of the teacher"),
        (
            {"init": {"from_teacher": "every_nth"}},
            "init.from_teacher: needs the teacher itself; give teacher.model_path",
        ),
        ({"teacher": {"cache": " "}}, "teacher.cache: is empty"),
        (
            {"teacher": {"cache": "c", "on_miss": "teacher"}},
            "on_miss: teacher needs cache, and model_path or model_name",
        ),
        ({"teacher": {"cache": "c", "on_miss": "live"}}, "on_miss: got 'live'; give one of error, teacher"),
        ({"teacher": {"model_path": []}}, "model_path: is empty; give the path of a .nemo file, or of several"),
        ({"teacher": {"model_path": ["a", 3]}}, "model_path: is empty"),
        (
            {"teacher": {"model_path": ["a", "b"]}, "init": {"from_teacher": "every_nth"}},
            "init: from_teacher copies one model, and teacher.model_path names several",
        ),
        (
            {
                "mixture": {
                    "components": {"a": {"source": "x", "target": "y"}},
                    "noise": {"word_swap": 3, "apply_to": ["a"]},
                }
            },
            "mixture.noise: changes the sources from pass to pass",
        ),
    ],
)
def test_faults_of_the_section(section, message):
    with pytest.raises(ConfigurationError, match=message):
        DistillationConfig.from_section({"teacher": {"cache": "c"}, **section})


def write_one_shard(arguments: list[str]) -> None:
    """Write a cache, and be killed right after the first shard."""
    write = cache_shards._write_shard

    def write_and_die(*given):
        write(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    cache_shards._write_shard = write_and_die
    cli.main(arguments)


def test_a_killed_run_goes_on_where_it_was(text, tiny_teacher_path, cache_dir, tmp_path):
    directory = tmp_path / "killed"
    arguments = ["cache", "--teacher", str(tiny_teacher_path), "--source", text[0][0], "--target", text[0][1]]
    arguments += ["--source-lang", "ignore", "--target-lang", "ignore"]  # text as it is, as in the other cache
    arguments += ["--output-dir", str(directory), "--top-k", "8", "--temperatures", "1", "2", "--shard-tokens", "800"]
    first = directory / "shards/000000.rows.npy"
    with pytest.raises(AssertionError, match="^process 0: died$"):
        run_processes(write_one_shard, arguments, world_size=1)
    assert [path.name for path in directory.glob("shards/*.rows.npy")] == [first.name]
    before = first.stat().st_mtime_ns
    with pytest.raises(TeacherError, match="is unfinished; run the same command again"):
        LogitCache(directory)
    assert cli.main([*arguments[:-4], "1", "--shard-tokens", "800"]) == 2  # other temperatures
    assert cli.main(arguments) == 0
    assert first.stat().st_mtime_ns == before
    for path in sorted((cache_dir / "shards").glob("*.npy")):
        assert (directory / "shards" / path.name).read_bytes() == path.read_bytes()
    assert cli.main(arguments) == 0  # verified and left alone
    assert first.stat().st_mtime_ns == before


def test_an_index_that_is_no_caches_stays(text, tiny_teacher_path, tmp_path):
    """It was replaced in silence."""
    (tmp_path / "index.keys.npy").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="'.*index.keys.npy' does not prove to be of an earlier run, so it stays"):
            write_cache([str(tiny_teacher_path)], text, tmp_path, CacheSettings(8), overwrite=overwrite)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("index.keys.npy", "mine")]


def test_pairs_that_teach_nothing_are_counted_as_what_they_are(text, tiny_teacher_path, tmp_path):
    """One empty pair was kept, and the others counted as copies of it."""
    (source, target) = (Path(path).read_text("utf-8").splitlines()[:6] for path in text[0])
    source += ["", " ", "\u3000", source[1], source[0], " ".join(source)]
    target += ["", "", target[0], "\t", target[0], target[0]]
    pair = []
    for name, lines in (("de", source), ("en", target)):
        pair.append(str(tmp_path / name))
        Path(pair[-1]).write_text("\n".join(lines) + "\n", "utf-8")
    settings = CacheSettings(8, max_seq_length=60)
    manifest, _ = write_cache([str(tiny_teacher_path)], [tuple(pair)], tmp_path / "cache", settings, force=True)
    assert manifest["left_out"] == {"empty": 4, "too_long": 1, "copies": 1}
    assert manifest["pairs"] == 6
    manifest["left_out"] = {"too_long": 1, "copies": 5}  # as earlier versions noted it
    write_json_atomic(tmp_path / "cache/manifest.json", manifest)
    assert read_cache_manifest(tmp_path / "cache", 12)["pairs"] == 6


def test_processes_share_the_work(text, tiny_teacher_path, cache_dir, tmp_path):
    directory, asked = tmp_path / "shared", CacheSettings(8, TEMPERATURES, shard_tokens=800)

    def write(rank: int, settings=asked, **options):
        share = Share(rank, 3, wait_minutes=0.01)
        return write_cache([str(tiny_teacher_path)], text, directory, settings, share=share, **options)

    assert write(2) == (None, False)
    with pytest.raises(TimeoutError, match="none has come for 0.01 minutes; rank 1 should have made them"):
        write(0)
    assert not (directory / "manifest.json").exists()
    fix = "top_k 8 .now 4.; go on with its settings, give another output directory, or remove '.*/shards' to discard"
    with pytest.raises(InputError, match=fix):  # several processes do not do what --overwrite says
        write(0, settings=CacheSettings(4, TEMPERATURES, shard_tokens=800), overwrite=True)
    (directory / "shards/.000001.tokens.npy.nemo_distill-0123abcd.tmp").touch()
    assert write(1) == (None, False)
    manifest, was_finished = write(0)
    assert not was_finished
    assert manifest == read_json(cache_dir / "manifest.json")
    assert contents(directory) == contents(cache_dir)
    assert write(1) == (manifest, True)
    with pytest.raises(InputError, match="overwrite: 3 processes cannot replace '.*shared'; remove it first"):
        write(0, overwrite=True)


def test_whole_files_are_read_once(own_cache, student_config, monkeypatch):
    for path in own_cache.rglob("*"):
        os.utime(path, (1, 1))
    read = []
    with monkeypatch.context() as patch:
        blocks = ShardFile.blocks
        patch.setattr(ShardFile, "blocks", lambda self, digest: read.append(self.path.name) or blocks(self, digest))
        patch.setattr(remembered, "_YOUNG", 0.0)
        for _ in range(3):
            LogitCache(own_cache)
        names = read_json(own_cache / "manifest.json")["files"]
        assert sorted(read) == sorted(Path(name).name for name in names)
        _flip_a_bit(own_cache)
        for _ in range(2):
            with pytest.raises(TeacherError, match="checksum is another one"):
                LogitCache(own_cache)
    (own_cache / ".checked.json").write_text("[]")
    with pytest.raises(TeacherError, match="checksum is another one"):
        student_of(student_config, own_cache)


def contents(directory: Path) -> dict[str, bytes]:
    """Return the files of a cache, without the note of a check."""
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != ".checked.json"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 121}, "top k is 121, above the 120 words"),
        ({"top_k": 0}, "top k is 0; give at least 1"),
        ({"temperatures": (1.0, 0.0)}, r"temperatures are \[1.0, 0.0\]; give finite numbers above 0"),
        ({"precision": "int8"}, "precision is 'int8'; give one of fp32, bf16, fp16"),
        ({"max_seq_length": 2}, "no sentence pair is left of 160"),
    ],
)
def test_settings_that_cannot_be(settings, message, text, tiny_teacher_path, tmp_path):
    with pytest.raises(InputError, match=message):
        write_cache([str(tiny_teacher_path)], text, tmp_path / "c", CacheSettings(**settings))


def test_command_line_without_text(tiny_teacher_path, tmp_path, capsys):
    assert cli.main(["cache", "--teacher", str(tiny_teacher_path), "--output-dir", str(tmp_path / "c")]) == 2
    assert "got 0 files in --source and 0 in --target; give one target file" in capsys.readouterr().err


def test_a_teacher_that_gives_nan():
    with pytest.raises(TeacherError, match="the teacher's logits are NaN or infinite"):
        Records(1, 0, [1.0], 2).encode(torch.tensor([[1.0, float("nan")]]))
