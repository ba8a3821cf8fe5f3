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
"""Open the teacher that a `distillation` section names: one model, an ensemble, or a cache of outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils.get_rank import is_global_rank_zero
from omegaconf import DictConfig

from nemo_distill.archives.ngc import fetch_archive
from nemo_distill.archives.reader import archive_sha256
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import LANGUAGE_KEYS, SIDES, Languages
from nemo_distill.config.mixture import as_list
from nemo_distill.config.section import CaptureConfig, DistillationConfig, TeacherConfig, WordKDConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.languages import language_tokens, listed_languages, listed_side, pair_of
from nemo_distill.data.mixing.dataset import mixture_of
from nemo_distill.data.positions import Positions
from nemo_distill.data.processors import Processing, form_difference, shown_kinds
from nemo_distill.data.vocabulary import check_vocabularies, vocabulary_differences
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.losses.term import ObjectiveTerm
from nemo_distill.support.warned import warn
from nemo_distill.teachers.cache_format import LARGEST_NOISE, LogitCache
from nemo_distill.teachers.cache_manifest import read_cache_manifest
from nemo_distill.teachers.cached import CachedTeacher
from nemo_distill.teachers.ensemble import EnsembleTeacher
from nemo_distill.teachers.frozen import FrozenTeacher, Teacher, check_teacher, load_teacher_model
from nemo_distill.teachers.multilingual import MultilingualTeacher, SourceAxes, check_languages, required_token


def check_distillation(config: DistillationConfig, model_config: Mapping[str, Any]) -> None:
    """Check teacher and cache without opening a model or reading data.

    Args:
        config: the checked section.
        model_config: the student's `model` section.

    Raises:
        TeacherError: the teacher is not there, or the cache is not, is unfinished or of another teacher.
        ConfigurationError: the student's tokens are random, and no cache can hold them.
    """
    check_teacher(config.teacher)
    if config.teacher.cache is None or not config.objective.names_teacher:
        return
    for side in ("encoder", "decoder"):
        dropout = (model_config.get(f"{side}_tokenizer") or {}).get("bpe_dropout") or 0.0
        if dropout > 0:
            raise ConfigurationError(
                f"model.{side}_tokenizer.bpe_dropout is {dropout}: the student reads other tokens than a cache has, "
                "which is made without; set it to 0, or train with the live teacher (teacher.model_path without cache)"
            )
    try:
        manifest = read_cache_manifest(config.teacher.cache)
    except TeacherError as error:
        raise TeacherError(f"distillation.teacher.cache: {error}") from error
    teachers = [archive_sha256(path) for path in _read_archives(config)]
    wanted = [each.lower() for each in as_list(config.teacher.sha256)]
    made_by = manifest["request"]["teachers"]
    if any(hashes and hashes != made_by for hashes in (teachers, wanted)):
        raise _other_teacher(config.teacher)


def check_restored(
    section: Mapping[str, Any], model_config: Mapping[str, Any], restore_path: str
) -> DistillationConfig:
    """Read and check the section by which a model restored from an archive is to learn on, before any is opened.

    Raises:
        ConfigurationError: the section has faults, or asks to initialise what the archive holds.
        InputError: a data file does not serve.
        TeacherError: as `check_distillation`.
    """
    config = DistillationConfig.from_section(section)
    if config.init is not None:
        raise ConfigurationError(
            f"distillation.init: the weights are those of {restore_path}; leave init out, or build the student anew"
        )
    check_distillation(config, model_config)
    check_model_files(model_config, config.mixture)
    return config


def _read_archives(config: DistillationConfig) -> list[Path]:
    """Return the teacher's archives, where they are given, or are read beside the cache."""
    teacher = config.teacher
    if teacher.model_name is None or config.init is None or config.init.from_teacher is None:
        return [Path(path) for path in teacher.model_paths]
    try:
        return [fetch_archive(teacher.model_name)]
    except InputError as error:
        raise TeacherError(f"distillation.teacher.model_name: {error}") from error


def _other_teacher(config: TeacherConfig) -> TeacherError:
    return TeacherError(
        f"distillation.teacher.cache: '{config.cache}' was made by another teacher than "
        f"{', '.join(config.model_paths) or config.model_name}; make the cache anew, or leave the teacher out"
    )


def check_cached_terms(config: DistillationConfig, terms: Mapping[str, tuple[float, ObjectiveTerm]]) -> None:
    """Refuse terms of a recipe that read the teacher where there is only a cache of it.

    Raises:
        ConfigurationError: there is such a term.
    """
    readers = [name for name, (_, term) in terms.items() if term.needs_teacher or term.teacher_captures]
    if config.teacher.cache is not None and readers:
        raise ConfigurationError(
            f"distillation.objective.terms: {', '.join(readers)} reads the teacher, and teacher.cache serves word_kd "
            "alone; leave the term out, or give teacher.model_path without cache"
        )


def open_teacher(config: DistillationConfig, student: MTEncDecModel) -> Teacher:
    """Open the teacher for a student.

    Raises:
        TeacherError: it cannot be opened, or does not fit the student.
    """
    if config.teacher.cache is None:
        return _open_live(config, config.teacher, student)
    cache = LogitCache(config.teacher.cache, verify=is_global_rank_zero())
    live = None
    if config.teacher.on_miss == "teacher":
        made_by = cache.manifest["request"]["teachers"]
        if len(made_by) != max(len(config.teacher.model_paths), 1):
            raise _other_teacher(config.teacher)
        live = _open_live(config, replace(config.teacher, sha256=made_by), student)
        if language_tokens(student):
            words = cache.manifest["vocabulary_size"]
            live = MultilingualTeacher(live, None, words, SourceAxes.of(config.capture))
    return _fit_cache(cache, live, config, student)


def _fit_cache(
    cache: LogitCache, live: Teacher | None, config: DistillationConfig, student: MTEncDecModel
) -> CachedTeacher:
    """Check a cache against a student and its text; return what teaches it. `live`: teaches what the cache lacks."""
    rows = getattr(student.decoder, "vocab_size", cache.manifest["vocabulary_size"])
    if rows < cache.manifest["vocabulary_size"]:
        raise TeacherError(
            f"distillation.teacher.cache: the teacher's head has {cache.manifest['vocabulary_size']} words, the "
            f"student's {rows}; give the student the teacher's tokenizers"
        )
    tokens = language_tokens(student)
    spoken = cache.manifest.get("languages") or {}
    if tokens and not spoken:
        raise TeacherError(
            f"distillation.teacher.cache: '{cache.directory}' has no languages, and the student has "
            f"{', '.join(tokens)}; make the cache with --target-lang, of a one-to-many teacher"
        )
    token = required_token(student, spoken, config.teacher, some=True) if spoken else None
    languages = cache.manifest["request"].get("languages")
    if languages is not None and not student.multilingual:  # else of raw text, or of an earlier version
        _check_processing(student, Processing(languages["source"], languages["target"]))
    if live is None and cache.manifest.get("positions"):
        source, target = cache.manifest["positions"]
        student.keep_to_positions(Positions(source - (token is not None), target))
    if is_global_rank_zero():
        _warn_of_noise(cache, config.objective.word_kd)
    tokenizers = student.encoder_tokenizer, student.decoder_tokenizer
    teacher = CachedTeacher(cache, tokenizers, config.objective.word_kd.temperature, live, token, tokens.values())
    if mixture_of(student) == config.mixture:  # else others are still to be set up
        teacher.check_coverage(getattr(student, "_train_ds", None))
    return teacher


def open_start(config: DistillationConfig, student: MTEncDecModel) -> MTEncDecModel:
    """Open the model that a student starts from, as `init` says; text of another form is warned of.

    Raises:
        InputError: it cannot be opened, or has other vocabularies than the student.
    """
    path = config.init.from_nemo
    if path is None:
        source = load_teacher_model(config.teacher)
    else:
        source = restore_model(path, trust=config.init.trust_archive or None)
    check_vocabularies(student, source)
    of_pairs = not (student.multilingual or source.multilingual)
    if of_pairs and (difference := form_difference(source.cfg, student.cfg)):
        warn(
            "distillation.init: the weights are of a model of text in another form than the student's: "
            f"{difference}. The same ids mean other text, which must be learnt anew; give the student the same "
            "src_language and tgt_language (examples/distill.py: data.processing=teacher)"
        )
    return source


def _warn_of_noise(cache: LogitCache, kd: WordKDConfig) -> None:
    """Say where the draws of a cache drown what the student is to learn from them."""
    scale = kd.weight if kd.scale_by_temperature else kd.weight / kd.temperature**2
    noise = scale * cache.gradient_noise(kd.temperature)
    if noise > LARGEST_NOISE:
        warn(
            f"distillation.teacher.cache: at temperature {kd.temperature:g} the {cache.records.sampled} drawn words "
            f"of '{cache.directory}' add noise of {noise:.1f} to the gradient of each token, where the labels' is "
            "about 1: a student may learn less than without a teacher. Train at a lower temperature, from the teacher "
            "alone (distillation.teacher.cache: null), or from a cache with more --sampled words"
        )


def _open_live(config: DistillationConfig, teacher: TeacherConfig, student: MTEncDecModel) -> Teacher:
    return _fit(load_teacher_models(teacher), config, teacher, student)


def fit_teacher(teacher: Teacher, config: DistillationConfig, student: MTEncDecModel) -> Teacher:
    """Return a teacher that was opened elsewhere, as a student learns from it; what is not NeMo's is taken as it is.

    Raises:
        TeacherError: it does not fit the student.
    """
    if isinstance(teacher, CachedTeacher):
        _fit_cache(teacher.cache, teacher.live, config, student)
        return teacher
    members = teacher.members if isinstance(teacher, EnsembleTeacher) else [teacher]
    models = [member.model for member in members if isinstance(member, FrozenTeacher)]
    if len(models) < len(members) or not all(isinstance(model, MTEncDecModel) for model in models):
        return teacher
    _check_alike(models, [f"model {number}" for number in range(1, len(models) + 1)])
    return _fit(models, config, config.teacher, student, teacher)


def _fit(
    models: Sequence[MTEncDecModel],
    config: DistillationConfig,
    teacher: TeacherConfig,
    student: MTEncDecModel,
    live: Teacher | None = None,
) -> Teacher:
    """Check models against a student; return what teaches it: `live`, or where that is None what is made of them."""
    extra = check_vocabularies(student, models[0])
    token = check_languages(student, models[0], teacher)
    if not student.multilingual:
        _check_processing(student, *_processing_for(student, models[0].cfg, teacher))
    for model in models:
        own = Positions.of_model(model)
        student.keep_to_positions(replace(own, source=own.source - (token is not None)))
    live = live or live_teacher(models, teacher, config.capture)
    if token is None and not extra:
        return live
    return MultilingualTeacher(live, token, student.decoder.vocab_size, SourceAxes.of(config.capture))


def _processing_for(
    student: MTEncDecModel, teacher: DictConfig, config: TeacherConfig
) -> tuple[Processing, Sequence[str]]:
    """Return how a teacher processes text of a student's one pair of languages, and on which sides that is known."""
    side = listed_side(teacher)
    if side is None:
        return Processing.of_config(teacher), SIDES
    asked, known = getattr(config.languages, side) or student.cfg.get(LANGUAGE_KEYS[side]), listed_languages(teacher)
    sides = SIDES if asked in known else [each for each in SIDES if each != side]
    pair = pair_of(teacher, Languages(**{side: asked if asked in known else known[0]}))
    return Processing.of_config(teacher, pair), sides


def _check_processing(student: MTEncDecModel, teacher: Processing, sides: Sequence[str] = SIDES) -> None:
    """Make sure that student and teacher read text of one form: ids of tokenized text mean other text than raw one's.

    Args:
        student: whose text is that of one pair of languages.
        teacher: how its text is processed.
        sides: to compare.

    Raises:
        TeacherError: they process text in other ways.
    """
    others, own = ({side: each.kind(side) for side in sides} for each in (teacher, Processing.of_config(student.cfg)))
    if own != others:
        raise TeacherError(
            f"distillation.teacher: the teacher processes text in another way ({shown_kinds(others)}) than the "
            f"student ({shown_kinds(own)}), so that the same ids mean other text. Give examples/distill.py "
            "data.processing=teacher, or the student the teacher's model.src_language and tgt_language. Where the "
            "archive does not say what the teacher was trained on, give teacher.source_language and target_language "
            "(ignore: raw text)"
        )


def load_teacher_models(config: TeacherConfig) -> list[MTEncDecModel]:
    """Open every model that the configuration names.

    Raises:
        TeacherError: one cannot be opened, or they have different vocabularies.
    """
    if config.model_name is not None:
        return [load_teacher_model(config)]
    hashes = as_list(config.sha256) or [None] * len(config.model_paths)
    models = [
        load_teacher_model(replace(config, model_path=path, sha256=sha256))
        for path, sha256 in zip(config.model_paths, hashes, strict=True)
    ]
    _check_alike(models, config.model_paths)
    return models


def _check_alike(models: Sequence[MTEncDecModel], names: Sequence[str]) -> None:
    """Make sure that the models of an ensemble read and write the same text.

    Raises:
        TeacherError: they do not.
    """
    for name, model in zip(names[1:], models[1:], strict=True):
        for side, difference in vocabulary_differences(model, models[0], "the first one's"):
            where = f"distillation.teacher.model_path: the {side}_tokenizer of {name}"
            raise TeacherError(f"{where} differs from that of the first model: {difference}; use the same tokenizers")
        if difference := form_difference(model.cfg, models[0].cfg):
            raise TeacherError(
                f"distillation.teacher.model_path: {name} has text of another form than the first model: "
                f"{difference}; give models of the same languages"
            )


def live_teacher(
    models: Sequence[MTEncDecModel], config: TeacherConfig, capture: CaptureConfig
) -> FrozenTeacher | EnsembleTeacher:
    """Return one model, or the mean of several, as a teacher that computes as the configuration says."""
    members = [FrozenTeacher(model, capture.teacher_logits, config.precision) for model in models]
    if config.compile is not None:
        for member in members:
            member.compile((capture.teacher_encoder_layers, capture.teacher_decoder_layers), config.compile)
    return members[0] if len(members) == 1 else EnsembleTeacher(members)
