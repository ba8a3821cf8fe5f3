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
"""What an evaluation is asked to do, checked before any model is loaded: models, their test sets, settings, pairs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from sacrebleu.metrics import CHRF
from sacrebleu.utils import get_langpairs_for_testset

from nemo_distill.archives.reader import archive_digest
from nemo_distill.archives.restore import read_archive_config
from nemo_distill.config.languages import LANGUAGE_KEYS, SIDES, Languages, are_other, short_code
from nemo_distill.config.model_widths import DROPOUTS
from nemo_distill.data.bleu_tokenizer import build_bleu, choose_bleu_tokenizer
from nemo_distill.data.languages import chosen_language, listed_side
from nemo_distill.decoding.engine import check_counts
from nemo_distill.decoding.export_record import chosen_pair, read_export
from nemo_distill.decoding.foreign_engine import default_settings
from nemo_distill.decoding.foreign_files import ForeignModel, foreign_kind, is_foreign, read_foreign
from nemo_distill.errors import InputError
from nemo_distill.evaluation.named_sets import check_named_set, named_set_files
from nemo_distill.evaluation.results import MODEL_LABEL, ModelResult, check_seeds
from nemo_distill.evaluation.test_sets import NamedSet, TestInput, check_names, read_set
from nemo_distill.support.device import choose_device
from nemo_distill.support.finished_run import FinishedRun, run_of

_SECTIONS = ("encoder_tokenizer", "decoder_tokenizer", "encoder", "decoder", "head")
BLEU_TOKENIZER = "--bleu-tokenizer"


@dataclass
class ModelInput:
    """A model to evaluate, not yet loaded."""

    label: str
    path: Path
    config: DictConfig
    """The `model` section inside the archive."""
    sha256: str
    """Of the archive that `config` was read from; whatever opens it later asks for the same."""
    archive_bytes: int
    """Of the bytes that have this SHA-256."""
    languages: Languages = field(default_factory=Languages)
    """What the user says of its text."""
    target: str | None = None
    """The one of several target languages that is meant."""
    foreign: ForeignModel | None = None
    """Where it is no archive, but a directory; `config` has then what an archive's would say of search and target."""

    def result(self, parameters: int) -> ModelResult:
        """Return what an evaluation says of this model, of so many weights; the first one's compression."""
        run = run_of(self.path, self.sha256) or FinishedRun(self.path.name, self.sha256)
        return ModelResult(
            label=self.label,
            archive=str(self.path),
            archive_sha256=self.sha256,
            archive_bytes=self.archive_bytes,
            parameters=parameters,
            compression=1.0,
            converged=run.converged,
            taught=run.taught,
            start=run.start,
            dropout=dropout_of(self.config),
            steps=run.steps,
            stopped_after=run.stopped_after,
            loss_rise=run.loss_rise,
            least_loss_at=run.least_loss_at,
        )


def dropout_of(config: DictConfig) -> str | None:
    """Return the dropout that a model was trained with, as a report says it.

    Args:
        config: the `model` section of an archive; dropouts that it leaves out are NeMo's default, 0.

    Returns:
        One number where all are alike; else those above 0 with their keys; None: a part of it is not NeMo's own.

    Example:
        >>> dropout_of(OmegaConf.create({"encoder": {"ffn_dropout": 0.1}, "decoder": {"library": "nemo"}}))
        'encoder.ffn_dropout 0.1'
    """
    sides = {name: config.get(name) for name in ("encoder", "decoder")}
    if any(side is None or side.get("library") not in (None, "nemo") for side in sides.values()):
        return None
    found = {f"{name}.{key}": float(side.get(key) or 0) for name, side in sides.items() for key in DROPOUTS}
    if len({*found.values()}) == 1:
        return f"{next(iter(found.values())):g}"
    return ", ".join(f"{key} {value:g}" for key, value in found.items() if value)


def check_settings(beam_size: int | None, batch_tokens: int, device: str | None) -> str:
    """Return the device to decode on, as `choose_device`.

    Raises:
        InputError: a number below 1, or a device that is not there.
    """
    check_counts(beam_size, batch_tokens)
    return choose_device(device)


def read_named_sets(tests: Sequence[TestInput | NamedSet], models: Sequence[ModelInput]) -> list[TestInput]:
    """Return the test sets with those of sacreBLEU's read too, for the languages of the models where none are named.

    Raises:
        InputError: the languages are not known or the set has not got them; as `named_set_files`.
    """
    return [_read_named(test, models) if isinstance(test, NamedSet) else test for test in tests]


def _read_named(test: NamedSet, models: Sequence[ModelInput]) -> TestInput:
    pair = test.pair or _pair_of(test, models)
    check_named_set(test.set_name, pair)
    path, references = named_set_files(test.set_name, pair)
    try:
        found = read_set(test.name, path, references)
    except InputError as error:
        raise InputError(f"{error}; remove '{Path(path).parent}', which sacreBLEU makes again") from error
    source, _, target = pair.partition("-")
    return replace(found, languages=Languages(source, target))


def _pair_of(test: NamedSet, models: Sequence[ModelInput]) -> str:
    """Return the languages that the models' archives name, as sacreBLEU writes a pair."""
    pairs = {
        "-".join(map(short_code, languages))
        for model in models
        if all(languages := [_language(model, side) or "" for side in SIDES])
    }
    if len(pairs) != 1:
        why = f"the models have {' and '.join(sorted(pairs))}" if pairs else "no model's archive names its languages"
        raise InputError(
            f"test set '{test.set_name}': {why}; write the test set as {test.set_name}:SOURCE-TARGET, "
            f"for example {test.set_name}:{next(iter(get_langpairs_for_testset(test.set_name)))}"
        )
    return pairs.pop()


def _language(model: ModelInput, side: str) -> str | None:
    """Return the language that a model's archive names, or the one of several that is asked for; None: neither."""
    language = model.config.get(LANGUAGE_KEYS[side])
    if not isinstance(language, str | None):
        language = getattr(model.languages, side)
    return language if language not in ("", "ignore") else None


def read_models(
    models: Sequence[str | os.PathLike], names: Sequence[str] | None, languages: Languages | None = None
) -> list[ModelInput]:
    """Check archives, and directories of other models, read their configurations and hash them; nothing is loaded.

    Args:
        models: `.nemo` archives, or directories of models that are not NeMo's.
        names: their labels.
        languages: of their text, in place of what they say.

    Raises:
        InputError: none given, a bad or repeated label, one archive as two seeds of a row, or a path that is no
            translation model.
    """
    if not models:
        raise InputError("no model; give at least one .nemo archive")
    paths = [Path(model) for model in models]
    if names is None:
        names = [path.name.removesuffix(".nemo") for path in paths]
    if len(names) != len(paths):
        raise InputError(
            f"{len(names)} names for {len(paths)} models ({', '.join(names)}); give one name for each model"
        )
    allowed = "up to 100 letters, digits and any of . _ @ + = -"
    check_names(names, "model", MODEL_LABEL, allowed, fix="; choose with --names")
    languages = languages or Languages()
    kinds = [foreign_kind(path) if is_foreign(path) else None for path in paths]
    # codes such as eng_Latn are of other people's models; archives and exports beside them keep their own languages
    of_own = languages if set(kinds) <= {None, "export"} else Languages()
    found = [
        _read_archive(name, path, of_own)
        if kind is None
        else _read_foreign(name, path, of_own if kind == "export" else languages)
        for name, path, kind in zip(names, paths, kinds, strict=True)
    ]
    check_seeds({each.label: each.sha256 for each in found})
    return found


def _read_archive(name: str, path: Path, languages: Languages) -> ModelInput:
    digest, size = archive_digest(path)
    config = read_archive_config(path, sha256=digest, languages=languages)
    missing = [section for section in _SECTIONS if section not in config]
    if missing:
        raise InputError(f"'{path}' is not a translation model: its configuration has no {', '.join(missing)}")
    return ModelInput(name, path, config, digest, size, languages)


def _read_foreign(name: str, path: Path, languages: Languages) -> ModelInput:
    model = read_foreign(path)
    search = default_settings(model)
    said = _exported_languages(path, languages) if model.kind == "export" else _given_languages(languages)
    config = OmegaConf.create({"beam_size": search.beam_size, "len_pen": search.length_penalty, **said})
    return ModelInput(name, path, config, model.sha256, model.bytes, languages, foreign=model)


def _given_languages(languages: Languages) -> dict[str, str | None]:
    """Return languages in the keys of a `model` section, of codes such as eng_Latn what names no script."""
    return {key: short_code(getattr(languages, side) or "") or None for side, key in LANGUAGE_KEYS.items()}


def _exported_languages(path: Path, languages: Languages) -> dict[str, Any]:
    """Return the languages of an export in the keys of its archive's `model` section, one or a list for each side.

    Raises:
        InputError: it has one pair, and not this one.
    """
    record = read_export(path)
    pairs = record.pairs or [Languages(record.source.language, record.target.language)]
    if len(pairs) == 1:
        chosen_pair(path, record, languages)
    found = {key: list(dict.fromkeys(getattr(pair, side) for pair in pairs)) for side, key in LANGUAGE_KEYS.items()}
    said = {key: each if len(each) > 1 else each[0] for key, each in found.items()}
    return {**said, "multilingual": len(pairs) > 1}


def model_of_test(model: ModelInput, test: TestInput) -> ModelInput:
    """Return a model as it reads and writes one test set, whose languages tell a model of several which is meant.

    Raises:
        InputError: the model has not these languages, or several, and which is meant is not said.
    """
    owner, of_set = f"test set {test.result.name}: model {model.label}", test.languages or Languages()
    if faults := of_set.model_faults(model.config):
        raise InputError(f"{owner}: {'; '.join(faults)}")
    asked = {}
    for side, key in LANGUAGE_KEYS.items():
        known, of_all = model.config.get(key), getattr(model.languages, side)
        language = getattr(of_set, side)
        if isinstance(known, str) and known != "ignore" and language is not None and are_other(known, language):
            raise InputError(
                f"{owner} has the {side} language {known}, and the set has {language}; leave one of them out"
            )
        asked[side] = of_all if isinstance(known, str | None) else language or of_all
    languages = Languages(**asked)
    chosen = chosen_language(model.config, languages, owner)
    is_target = listed_side(model.config) == "target"
    return replace(model, languages=languages, target=chosen if is_target else None)


def choose_metrics(test: TestInput, models: Sequence[ModelInput], tokenizer: str | None) -> None:
    """Give a test set its metrics, in place: BLEU with the tokenizer that fits its references, and chrF.

    Args:
        test: its references decide where no language is known.
        models: those that will be scored on it, as of `model_of_test`.
        tokenizer: what is asked for; None: that of the models' target language, else of the test set's, else of the
            script that the references are written in.

    Raises:
        InputError: the models' languages need different tokenizers, or one is unknown or not installed.
    """
    languages = {model.label: language for model in models if (language := model.target or _language(model, "target"))}
    if not languages or tokenizer is not None:
        languages = {test.result.name: test.languages and test.languages.target}
    lines = [line for texts in test.references for line in texts if line]
    found = {
        language: choose_bleu_tokenizer(tokenizer, language, lines, BLEU_TOKENIZER, test.result.name)
        for language in dict.fromkeys(languages.values())
    }
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{label} {found[language]}" for label, language in languages.items())
        raise InputError(
            f"the models' target languages need different BLEU tokenizers ({listed}); evaluate them one by one, "
            f"or choose one with {BLEU_TOKENIZER}"
        )
    test.metrics = {"BLEU": build_bleu(next(iter(found.values())), BLEU_TOKENIZER), "chrF2": CHRF()}


def comparison_pairs(labels: Sequence[str], compare: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return pairs of labels (system, baseline), by default every pair of models, the later against the earlier.

    Raises:
        InputError: a pair that is not `A:B` of two labels.
    """
    if compare is None:
        return [(later, earlier) for earlier, later in combinations(labels, 2)]
    pairs = []
    for text in compare:
        pair = tuple(text.split(":"))
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(labels):
            raise InputError(f"comparison '{text}': write A:B with two different names out of {', '.join(labels)}")
        pairs.append(pair)
    return list(dict.fromkeys(pairs))
