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
"""Teachers of several languages teach students of one pair and of several, live and from a cache."""

import re

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel, cli
from nemo_distill.capture import CaptureSpec, ForwardCapture
from nemo_distill.config.section import CaptureConfig
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.losses.signals import Logits
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.teachers.frozen import FrozenTeacher
from nemo_distill.teachers.multilingual import MultilingualTeacher, SourceAxes, with_token

WORD_KD = {"nll": {"weight": 0.0}, "computation": "plain"}


@pytest.fixture
def student_of(multilingual_config, multilingual_corpus, multilingual_teacher_paths):
    """A function that builds a student of a kind, taught by a kind of teacher, on text of some languages."""

    def build(kind, teacher, objective=None, languages=("es",), section=None, start=None, **overrides):
        one_to_many = teacher == "one_to_many" or kind == "one_to_many"
        files = [[str(multilingual_corpus / f"train.{name}") for name in languages], []]
        files[1] = [str(multilingual_corpus / "train.en")] * len(languages)
        sources, targets = reversed(files) if one_to_many else files
        components = {
            name: {"source": source, "target": target, **({"language": name} if "_" in kind else {})}
            for name, source, target in zip(languages, sources, targets, strict=True)
        }
        mixture = {"components": components, "probabilities": dict.fromkeys(languages, 1 / len(languages))}
        distillation = {
            "teacher": {"model_path": str(multilingual_teacher_paths[teacher]), **(section or {})},
            "objective": objective or WORD_KD,
            "mixture": mixture,
            "init": start,
        }
        data = {"train_ds": {"tokens_in_batch": 200, "num_workers": 0, "clean": False}}
        torch.manual_seed(1)
        return DistilledMTEncDecModel(
            multilingual_config(kind, **{"distillation": distillation, **data, **overrides})
        ).eval()

    return build


@pytest.fixture
def teachers(multilingual_teacher_paths):
    """The stock models themselves."""
    return {kind: MTEncDecModel.restore_from(str(path)).eval() for kind, path in multilingual_teacher_paths.items()}


def batch_of(model, number: int = 0) -> list[torch.Tensor]:
    return [torch.as_tensor(item) for item in model._train_ds[number]]


def teacher_log_q(teacher, batch, token=None, words=None) -> torch.Tensor:
    """The teacher's distribution, [N, V], by stock NeMo: the token in front, then a softmax over some words."""
    source, source_mask, target, target_mask, labels = batch
    if token is not None:
        source = torch.cat([torch.full((len(source), 1), token), source], 1)
        source_mask = torch.cat([torch.ones_like(source_mask[:, :1]), source_mask], 1)
    with torch.no_grad():
        logits = teacher(source, source_mask, target, target_mask)
    return logits[..., :words].log_softmax(-1)[labels != teacher.decoder_tokenizer.pad_id]


def closed_form(student, batch, log_q) -> torch.Tensor:
    """Mean KL from the teacher's to the student's distribution over real target tokens."""
    with torch.no_grad():
        log_p = student(*batch[:4])[batch[4] != student.decoder_tokenizer.pad_id]
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()


@pytest.mark.parametrize("computation", ["plain", "lean"])
def test_one_to_many_teaches_one_pair(student_of, teachers, computation):
    student = student_of("en-es", "one_to_many", {**WORD_KD, "computation": computation})
    teacher, batch = teachers["one_to_many"], batch_of(student)
    assert teacher.decoder_tokenizer.vocab_size == student.decoder_tokenizer.vocab_size + 3
    token = teacher.encoder_tokenizer.token_to_id("<es>")
    expected = closed_form(student, batch, teacher_log_q(teacher, batch, token, 96))
    with torch.no_grad():
        assert student.distillation_terms(batch)["word_kd"].item() == pytest.approx(expected.item(), rel=1e-5)
    for other in (None, teacher.encoder_tokenizer.token_to_id("<de>")):
        wrong = closed_form(student, batch, teacher_log_q(teacher, batch, other, 96))
        assert abs(wrong - expected) > 1e-3 * expected


@pytest.mark.parametrize("members", [1, 2])
def test_language_of_the_teacher_can_be_named(student_of, teachers, multilingual_teacher_paths, members):
    """Of an ensemble too; of one model twice, it is that model."""
    section = {"target_language": "fr", "model_path": [str(multilingual_teacher_paths["one_to_many"])] * members}
    student = student_of("en-es", "one_to_many", section=section, tgt_language="fr")
    batch = batch_of(student)
    expected = closed_form(student, batch, teacher_log_q(teachers["one_to_many"], batch, 98, 96))
    with torch.no_grad():
        assert student.distillation_terms(batch)["word_kd"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_to_many_teaches_one_to_many(student_of, teachers):
    student, teacher = student_of("one_to_many", "one_to_many", languages=("fr", "de")), teachers["one_to_many"]
    seen = set()
    for number in range(len(student._train_ds)):
        batch = batch_of(student, number)
        (token,) = set(batch[0][:, 0].tolist())
        assert (batch[0][:, 1] == student.encoder_tokenizer.bos_id).all()
        language = {96: "de", 98: "fr"}[token]
        text = student.decoder_tokenizer.ids_to_text(batch[2][0, 1:][batch[3][0, 1:].bool()].tolist())
        assert text.split()[0] in {"de": ("die", "der", "das"), "fr": ("la", "le")}[language]
        seen.add(language)
    assert seen == {"de", "fr"}
    expected = closed_form(student, batch, teacher_log_q(teacher, batch))
    with torch.no_grad():
        assert student.distillation_terms(batch)["word_kd"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["es-en", "many_to_one"])
def test_many_to_one(student_of, teachers, kind):
    student = student_of(kind, "many_to_one", languages=("es", "de"))
    batch = batch_of(student)
    assert (batch[0][:, 0] == student.encoder_tokenizer.bos_id).all()
    expected = closed_form(student, batch, teacher_log_q(teachers["many_to_one"], batch))
    with torch.no_grad():
        assert student.distillation_terms(batch)["word_kd"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "teacher", "said", "shown"),
    [
        ("ignore-ignore", "many_to_one", {}, "(target MosesProcessor en) than the student (target raw text)"),
        (
            "ignore-en",
            "many_to_one",
            {"source_language": "es"},
            "(source MosesProcessor es, target MosesProcessor en)",
        ),
        (
            "ignore-ignore",
            "one_to_many",
            {"target_language": "de"},
            "(source MosesProcessor en, target MosesProcessor",
        ),
        ("en-ignore", "one_to_many", {"target_language": "de"}, "target MosesProcessor de) than the student (source"),
        ("es-en", "many_to_one", {}, None),
        ("ignore-en", "many_to_one", {}, None),  # of which of its languages the sources are is not known
    ],
)
def test_student_and_teacher_read_text_of_one_form(student_of, kind, teacher, said, shown):
    if shown is None:
        assert student_of(kind, teacher, section=said)
        return
    with pytest.raises(TeacherError, match=re.escape(shown)):
        student_of(kind, teacher, section=said)


def test_position_of_the_language_is_dropped(teachers, student_of):
    teacher, batch = teachers["one_to_many"], batch_of(student_of("en-es", "one_to_many"))
    encoder, decoder = "encoder._encoder.layers.1", "decoder._decoder.layers.1"
    specs = {
        "states": CaptureSpec(encoder),
        "self": CaptureSpec(f"{encoder}.first_sub_layer.attn_dropout", "input"),
        "cross": CaptureSpec(f"{decoder}.second_sub_layer.attn_dropout", "input"),
        "decoder": CaptureSpec(f"{decoder}.first_sub_layer.attn_dropout", "input"),
        "written": CaptureSpec(decoder),
    }
    told = MultilingualTeacher(FrozenTeacher(teacher), 97, 96, SourceAxes.of(CaptureConfig()))
    plain = FrozenTeacher(teacher)
    found = []
    for each, data in ((told, batch), (plain, with_token(batch, 97))):
        each.capture(specs.values())
        found.append(each.outputs(data))
    assert isinstance(found[0].signal, Logits)
    assert torch.equal(found[0].signal.values, found[1].signal.values[..., :96])
    captures = {name: [each.captures[spec] for each in found] for name, spec in specs.items()}
    length = batch[0].shape[1]
    assert torch.equal(captures["states"][0], captures["states"][1][:, 1:])
    assert captures["states"][0].shape[1] == length
    assert captures["self"][0].shape[2:] == (length, length)
    assert captures["cross"][0].shape[3] == length
    kept = captures["cross"][1][..., 1:]
    torch.testing.assert_close(captures["cross"][0], kept / kept.sum(-1, keepdim=True))
    torch.testing.assert_close(captures["self"][0].sum(-1), torch.ones_like(captures["self"][0][..., 0]))
    assert torch.equal(*captures["decoder"])
    assert torch.equal(*captures["written"])


def test_student_that_starts_from_the_teacher(student_of, teachers):
    """It has the teacher's weights but for the tokens of languages, and is compared without their position."""
    objective = {
        "word_kd": {"weight": 0.0},
        "hidden": {"weight": 1.0, "encoder": [[0, 0]], "decoder": None},
        "attention": {"weight": 1.0, "encoder": [[0, 0]], "cross": [[0, 0]], "decoder": None},
    }
    teacher, sizes = teachers["one_to_many"], {"hidden_size": 32, "num_layers": 2}
    student = student_of("en-es", "one_to_many", objective, start={"from_teacher": "first"}, **sizes)
    weights, batch = teacher.state_dict(), batch_of(student)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, weights[name][: len(tensor)])
    terms = student.distillation_terms(batch)
    states, captures = [], ForwardCapture(teacher, {"layer": CaptureSpec("encoder._encoder.layers.0")})
    for data in (batch, with_token(batch, 97)):
        with captures as captured, torch.no_grad():
            teacher(*data[:4])
        states.append(captured["layer"])
    distance = 1 - torch.cosine_similarity(states[0], states[1][:, 1:], dim=-1)[batch[1].bool()]
    assert terms["hidden"].item() == pytest.approx(distance.mean().item(), rel=1e-4)
    assert 0 < terms["attention"].item() < 1
    terms["loss"].backward()


def test_token_of_the_language_needs_a_position(student_of, multilingual_config, tmp_path):
    positions = {f"{side}.max_sequence_length": 64 for side in ("encoder", "decoder")}
    batch = student_of("en-es", "one_to_many", {"word_kd": {"weight": 0}})._train_ds.components[0]
    longest = max(map(len, batch.sources))
    for room in (longest, longest + 1):
        path = tmp_path / f"{room}.nemo"
        MTEncDecModel(
            multilingual_config("one_to_many", **{**positions, "encoder.max_sequence_length": room})
        ).save_to(str(path))
        student = student_of("en-es", "one_to_many", section={"model_path": str(path)})
        kept = student._train_ds.components[0].sources
        assert max(map(len, kept)) == room - 1
        assert (len(kept) == len(batch.sources)) is (room == longest + 1)


FAULTS = [
    (
        "en-es",
        "one_to_many",
        {"tgt_language": "ignore"},
        {},
        "target_language: is missing, and the teacher writes de, ",
    ),
    (
        "en-es",
        "one_to_many",
        {"tgt_language": "it"},
        {},
        r"\(from model.tgt_language\): got it, and the teacher writes",
    ),
    (
        "en-es",
        "one_to_many",
        {},
        {"target_language": "it"},
        "target language it is none of the model's, which are de, ",
    ),
    (
        "one_to_many",
        "one_to_many",
        {"tgt_language": ["es", "de", "fr"]},
        {},
        "different source vocabularies: token 96",
    ),
    ("one_to_many", "one_to_many", {}, {"target_language": "de"}, "the student's batches tell their language"),
    ("es-en", "many_to_one", {"src_language": "it"}, {}, "the teacher reads de, es, fr, and the student's source "),
    ("one_to_many", "many_to_one", {}, {}, "different source vocabularies: 99 tokens against the teacher's 96"),
]


@pytest.mark.parametrize(("kind", "teacher", "model", "section", "message"), FAULTS)
def test_languages_that_do_not_fit(student_of, kind, teacher, model, section, message):
    with pytest.raises(TeacherError, match=message):
        student_of(kind, teacher, section=section, **model)


@pytest.fixture(scope="module")
def cache_dir(multilingual_corpus, multilingual_teacher_paths, tmp_path_factory):
    """A cache of two languages of the one-to-many teacher, nothing left out."""
    directory = tmp_path_factory.mktemp("cache") / "cache"
    text = [str(multilingual_corpus / f"train.{name}") for name in ("en", "de", "es")]
    command = ["cache", "--teacher", str(multilingual_teacher_paths["one_to_many"]), "--top-k", "96"]
    command += ["--source", text[0], text[0], "--target", *text[1:], "--output-dir", str(directory)]
    assert cli.main([*command, "--target-lang", "de,es"]) in (0, None)
    return directory


@pytest.mark.parametrize("kind", ["en-es", "one_to_many"])
def test_cache_says_what_the_teacher_says(student_of, teachers, cache_dir, kind):
    student = student_of(kind, "one_to_many", section={"cache": str(cache_dir)})
    batch, token = batch_of(student), 97 if kind == "en-es" else None
    expected = closed_form_of_words(student, batch, teacher_log_q(teachers["one_to_many"], batch, token, 96))
    with torch.no_grad():
        # logits are kept in half precision
        assert student.distillation_terms(batch)["word_kd"].item() == pytest.approx(expected.item(), rel=2e-3)


def test_cache_of_many_to_one(student_of, teachers, multilingual_corpus, multilingual_teacher_paths, tmp_path):
    """It is told no language."""
    text = [(f"{multilingual_corpus}/train.{name}", f"{multilingual_corpus}/train.en") for name in ("es", "de")]
    write_cache([str(multilingual_teacher_paths["many_to_one"])], text, tmp_path / "cache", CacheSettings(96))
    student = student_of("many_to_one", "many_to_one", None, ("es", "de"), {"cache": str(tmp_path / "cache")})
    batch = batch_of(student)
    expected = closed_form(student, batch, teacher_log_q(teachers["many_to_one"], batch))
    with torch.no_grad():
        assert student.distillation_terms(batch)["word_kd"].item() == pytest.approx(expected.item(), rel=2e-3)
    told = {"cache": str(tmp_path / "cache"), "model_path": None}
    with pytest.raises(TeacherError, match="has no languages, and the student has de, es, fr; make the cache with"):
        student_of("one_to_many", "one_to_many", section=told)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((), "--target-lang is missing: '.*' writes de, es, fr; say which"),
        (("it",), "--target-lang: got 'it', and '.*' writes de, es, fr"),
        (("de", "es"), "--target-lang: got 2 for 1 pairs of files"),
    ],
)
def test_cache_is_told_the_language(multilingual_corpus, multilingual_teacher_paths, tmp_path, asked, message):
    text = [(f"{multilingual_corpus}/train.en", f"{multilingual_corpus}/train.de")]
    teachers = [str(multilingual_teacher_paths["one_to_many"])]
    with pytest.raises(InputError, match=message):
        write_cache(teachers, text, tmp_path / "cache", target_languages=asked)
    assert not (tmp_path / "cache").exists()


def closed_form_of_words(student, batch, log_q):
    with torch.no_grad():
        log_p = student(*batch[:4])[batch[4] != student.decoder_tokenizer.pad_id][:, : log_q.shape[1]]
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def test_language_that_a_cache_has_not(student_of, cache_dir):
    with pytest.raises(TeacherError, match="got fr, and the teacher writes de, es; give one of them"):
        student_of("en-fr", "one_to_many", languages=("fr",), section={"cache": str(cache_dir)})
