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
"""Score models on test sets: sacreBLEU, chrF, size, speed, and whether differences are more than chance.

Everything is checked before a model is loaded. A pair of model and test set that was scored before, with the same
archive, files and settings, is not decoded again, so an interrupted evaluation goes on where it stopped. Of several
processes each goes the same way and decodes its part of each pair; the first one scores.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemo.utils import logging

from nemo_distill import __version__
from nemo_distill.config.languages import Languages
from nemo_distill.decoding.engine import TextEngine, check_engine
from nemo_distill.decoding.translation import translate, warm_up
from nemo_distill.errors import InputError
from nemo_distill.evaluation import score_records
from nemo_distill.evaluation.engines import choose_engines, open_input
from nemo_distill.evaluation.inputs import (
    ModelInput,
    check_settings,
    choose_metrics,
    comparison_pairs,
    model_of_test,
    read_models,
    read_named_sets,
)
from nemo_distill.evaluation.results import (
    FORMAT_VERSION,
    RESULTS_NAME,
    Comparison,
    EvaluationResult,
    Score,
    hypotheses_path,
)
from nemo_distill.evaluation.score_records import Pair, ScoreKey, ScoreRecord, score_of
from nemo_distill.evaluation.shared import SharedPair, claim_pairs
from nemo_distill.evaluation.significance import compare_systems
from nemo_distill.evaluation.test_sets import NamedSet, TestInput, TestSet, read_test_sets, warn_of_decomposed
from nemo_distill.support import manifest
from nemo_distill.support.lock import locked
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.share import Share
from nemo_distill.support.text_files import read_lines

_DECODING_LIBRARIES = ("nemo_toolkit", "torch", "ctranslate2")


def evaluate(
    models: Sequence[str | os.PathLike],
    test_sets: Sequence[TestSet | NamedSet | str],
    output_dir: str | os.PathLike,
    names: Sequence[str] | None = None,
    beam_size: int | None = None,
    batch_tokens: int = 4096,
    compare: Sequence[str] | None = None,
    device: str | None = None,
    engine: str = "auto",
    quantization: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    languages: Languages | None = None,
    bleu_tokenizer: str | None = None,
    share: Share | None = None,
    renew: bool = False,
) -> EvaluationResult | None:
    """Decode every test set with every model and score the hypotheses.

    Args:
        models: `.nemo` archives, or directories of models that are not NeMo's, see `decoding.open_engine`; compression
            is measured against the first.
        test_sets: test sets, or their `name:source:target` form, which may have further targets, and languages behind
            the name; or names of sacreBLEU's, with the languages (`wmt14:de-en`) where the models name none.
        output_dir: gets `results.json`, and `hypotheses/MODEL.TEST.txt` and `scores/MODEL.TEST.json` of each pair.
            It may be the directory of an earlier evaluation that this one repeats, finishes or extends.
        names: labels of the models; by default the file names without `.nemo`.
        beam_size: hypotheses per sentence while decoding; by default what each model's archive says.
        batch_tokens: most source tokens in a batch, padding included.
        compare: pairs `A:B` of labels for the significance test of `A` against `B`; by default every pair of models,
            the later against the earlier.
        device: where to decode; by default a GPU if there is one, each process under `torchrun` its own.
        engine: `ctranslate2`, `nemo`, or `auto`: CTranslate2 for models that convert, NeMo's modules for the others.
        quantization: for CTranslate2; by default float32.
        overwrite: replace another evaluation in `output_dir`, and decode everything again.
        progress: show a progress bar with sentences per second.
        languages: of the models' text, in place of what their archives say.
        bleu_tokenizer: of sacreBLEU; by default that of the target language, else of the references' script.
        share: which of several processes this one is; they share the sentences.
        renew: keep what `output_dir` holds of these models and test sets as they are now, and remove the rest of the
            evaluation there.

    Returns:
        The result, which is also in `output_dir/results.json`; None in a process that leaves the end to the first one.

    Raises:
        InputError: a file is missing, empty, unequal in lines or not a model; a label or a test set is named twice;
            an option has no sense; an input changes meanwhile; `output_dir` holds another evaluation or is in use.
        ConversionError: CTranslate2 or a quantization is asked for, and a model does not convert.
        TimeoutError: another process has stopped.

    Example:
        >>> result = evaluate(["teacher.nemo", "student.nemo"], ["t:test.de:test.en"], "out")  # doctest: +SKIP
        >>> result.score("student", "t").bleu  # doctest: +SKIP
        34.6
    """
    decoding = beam_size, batch_tokens, compare, device, engine, quantization
    rest = overwrite, progress, languages, bleu_tokenizer, share, renew
    return find_or_evaluate(models, test_sets, output_dir, names, *decoding, *rest)[0]


def find_or_evaluate(
    models: Sequence[str | os.PathLike],
    test_sets: Sequence[TestSet | NamedSet | str],
    output_dir: str | os.PathLike,
    names: Sequence[str] | None,
    beam_size: int | None,
    batch_tokens: int,
    compare: Sequence[str] | None,
    device: str | None,
    engine: str,
    quantization: str | None,
    overwrite: bool,
    progress: bool,
    languages: Languages | None = None,
    bleu_tokenizer: str | None = None,
    share: Share | None = None,
    renew: bool = False,
) -> tuple[EvaluationResult | None, bool]:
    """Do what `evaluate` does; return the result, and whether all of it was there already."""
    if renew and overwrite:
        raise InputError("renew keeps what overwrite decodes again; give one of them")
    share, asked, device = share or Share(), device, check_settings(beam_size, batch_tokens, device)
    noted = device.partition(":")[0] if share.world_size > 1 and asked is None else device  # as of one process
    check_engine(engine, quantization)
    sets = read_test_sets(test_sets)
    if share.rank == 0:
        warn_of_decomposed(sets)
    candidates = read_models(models, names, languages)
    tests = read_named_sets(sets, candidates)
    models = {(each.label, test.result.name): model_of_test(each, test) for each in candidates for test in tests}
    for test in tests:
        choose_metrics(test, [models[each.label, test.result.name] for each in candidates], bleu_tokenizer)
    pairs = comparison_pairs([candidate.label for candidate in candidates], compare)
    engines = choose_engines(candidates, engine, quantization, device)
    keys = _score_keys(models, tests, engines, beam_size=beam_size, batch_tokens=batch_tokens, device=noted)
    inputs = [each.path for each in candidates] + [path for test in tests for path in test.result.files]
    manifest.refuse_inputs_as_outputs(inputs, [Path(output_dir, name) for name in score_records.PLACES])
    with locked(output_dir, share) as directory:
        falls_back = engine == "auto" and quantization is None
        evaluation = _Evaluation(keys, models, directory, overwrite, renew, progress, falls_back, device, share)
        model_results, scores = [], []
        for number, candidate in enumerate(candidates, start=1):
            logging.info(f"model {number} of {len(candidates)}: {candidate.label}")
            records = evaluation.score(candidate, tests)
            if share.rank > 0:
                continue
            result = candidate.result(score_records.check_sizes(records, directory))
            first = model_results[0] if model_results else result
            model_results.append(replace(result, compression=first.parameters / result.parameters))
            scores += [record.score for record in records]
        if share.rank > 0:
            return None, False
        compared = [(pair, test) for pair in pairs for test in tests]
        shown = progress_bar("comparing", len(compared), "pairs", progress, iterable=compared, leave=False)
        result = EvaluationResult(
            models=model_results,
            test_sets=[test.result for test in tests],
            scores=scores,
            comparisons=[item for pair, test in shown for item in _compare(pair, test, scores, directory)],
            versions=_joined(evaluation.versions) | {"sacrebleu": version("sacrebleu")},  # all is scored again
        )
        is_there = (directory / RESULTS_NAME).is_file() and EvaluationResult.load(directory) == result
        if not is_there:
            result.save(directory)
        return result, is_there and not evaluation.decoded


def _decoding_versions() -> dict[str, str]:
    """Return the releases of the libraries that decode in this process."""
    return {"nemo_distill": __version__, **{name: version(name) for name in _DECODING_LIBRARIES}}


def _joined(versions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the releases that decoded the pairs, all of them where they differ; unknown to a record of an older form.

    Example:
        >>> _joined([{"nemo_distill": "1", "torch": "2.1"}, {"nemo_distill": "1"}])["torch"]
        '2.1, unknown'
    """
    names = ("nemo_distill", *_DECODING_LIBRARIES)
    return {name: ", ".join(dict.fromkeys(each.get(name, "unknown") for each in versions)) for name in names}


def _score_keys(
    models: Mapping[Pair, ModelInput], tests: Sequence[TestInput], engines: Mapping[str, str], **settings: Any
) -> dict[Pair, ScoreKey]:
    """Return by (label, test set) what decides the scores."""
    return {
        (label, test.result.name): ScoreKey(
            format_version=FORMAT_VERSION,
            engine=engines[label],
            archive_sha256=model.sha256,
            source_sha256=test.result.source_sha256,
            target_sha256=test.result.target_sha256,
            source_language=model.languages.source,
            target_language=model.languages.target,
            further_target_sha256=tuple(test.result.further_target_sha256),
            **settings,
        )
        for (label, name), model in models.items()
        for test in tests
        if test.result.name == name
    }


class _Evaluation:
    """The work in one output directory, whose lock is held."""

    def __init__(
        self,
        keys: Mapping[Pair, ScoreKey],
        models: Mapping[Pair, ModelInput],
        output_dir: Path,
        overwrite: bool,
        renew: bool,
        progress: bool,
        falls_back: bool,
        device: str,
        share: Share,
    ) -> None:
        self._keys, self._models, self._output_dir, self._progress = keys, models, output_dir, progress
        self._falls_back, self._device, self._overwrite, self._share = falls_back, device, overwrite, share
        versions = _decoding_versions()
        self._shared = {pair: SharedPair(output_dir, pair, key, versions, share) for pair, key in keys.items()}
        self._finished: dict[Pair, ScoreRecord] = {}
        if share.rank == 0:  # the others leave alone what it removes
            claim_pairs(output_dir, self._shared.values(), overwrite or renew)
            if overwrite or renew:
                score_records.remove_older(output_dir, keys, renew)
            self._finished = score_records.read_finished(output_dir, keys)
        self.versions: list[dict[str, str]] = []
        """Of what decoded each pair, then or now."""
        self.decoded = 0
        """Pairs that were decoded, not taken over."""

    def score(self, candidate: ModelInput, tests: Sequence[TestInput]) -> list[ScoreRecord]:
        """Score one model on all test sets; it is loaded only if a score is missing, once for sets of one language.

        Returns:
            One record per test set; only the first process has all.
        """
        engine, opened, records = None, None, []
        for test in tests:
            pair = (candidate.label, test.result.name)
            model, shared = self._models[pair], self._shared[pair]
            key, earlier = self._keys[pair], self._earlier(pair)
            fell_back = self._falls_back and earlier and earlier.score.engine == "nemo" != key.engine
            record = None
            if earlier and not fell_back:
                record = score_records.taken_over(earlier, test, model.config, self._output_dir, key.engine)
            if record is None and opened != model.languages:
                engine = None  # frees its memory first
                engine, parameters = open_input(model, key.engine, self._device, self._falls_back)
                opened = model.languages
            if fell_back:  # or the record lies: an open model tells
                record = score_records.taken_over(earlier, test, model.config, self._output_dir, engine.name)
            if record is None:
                decoded = self._decode_own(engine, pair, test, earlier)
                if decoded is None:
                    continue
                record = ScoreRecord(key, parameters, decoded[0], _decoding_versions())
                score_records.write(record, decoded[1], self._output_dir, replaces=earlier is not None)
                self.decoded += 1
            else:
                logging.info(f"{pair[0]} on {pair[1]}: scored before")
            if self._share.rank == 0 and shared.path.exists():
                shared.remove()
            records.append(record)
            self.versions.append(record.versions)
        return records

    def _earlier(self, pair: Pair) -> ScoreRecord | None:
        """Return the record of a pair that may be taken over; the first process may have just written it."""
        if self._share.rank == 0:
            return self._finished.get(pair)
        return None if self._overwrite else score_records.read_one(self._output_dir, pair, self._keys[pair])

    def _decode_own(
        self, engine: TextEngine, pair: Pair, test: TestInput, earlier: ScoreRecord | None
    ) -> tuple[Score, list[str]] | None:
        """Return score and hypotheses of a pair; None where the first process does the rest, or has done it."""
        shared = self._shared[pair]
        if self._share.world_size > 1:
            shared.claim()
        if self._share.rank > 0 and self._earlier(pair) != earlier:  # meanwhile
            shared.remove()
            return None
        return _decode(engine, pair, self._keys[pair], test, self._progress, shared)


def _decode(
    engine: TextEngine, pair: Pair, key: ScoreKey, test: TestInput, progress: bool, shared: SharedPair
) -> tuple[Score, list[str]] | None:
    """Return the score of a pair, and its hypotheses; None where the first process scores it."""
    label, name = pair
    search = engine.default_settings
    if key.beam_size is not None:
        search = replace(search, beam_size=key.beam_size)
    logging.info(f"{label}: translating {test.result.sentences} sentences of {name}")
    if shared.share.world_size > 1 or shared.is_begun:
        hypotheses = shared.translate(engine, test.sources, search, key.batch_tokens, progress)
        if hypotheses is None:
            return None
        seconds, speed = None, None  # of the work of several processes it says nothing
    else:
        warm_up(engine, test.sources, search)
        translations = translate(engine, test.sources, search, key.batch_tokens, progress)
        hypotheses, seconds = translations.hypotheses, translations.seconds
        speed = translations.sentences_per_second

    found = score_of(hypotheses, test)
    shown = "" if speed is None else f", {speed:.1f} sentences/s"
    logging.info(f"{label} on {name}: BLEU {found['bleu']:.1f}, chrF2 {found['chrf']:.1f}{shown}")
    score = Score(
        model=label,
        test_set=name,
        seconds=seconds,
        sentences_per_second=speed,
        decoded=sum(1 for line in test.sources if line.strip()),
        truncated=len(engine.truncated),
        beam_size=search.beam_size,
        length_penalty=search.length_penalty,
        engine=engine.name,
        device=key.device,
        threads=engine.threads,
        hypotheses=hypotheses_path(label, name),
        hypotheses_sha256=score_records.hash_of(hypotheses),
        **found,
    )
    return score, hypotheses


def _compare(pair: Pair, test: TestInput, scores: Sequence[Score], output_dir: Path) -> list[Comparison]:
    """Return one comparison per metric of two models, by the hypotheses that lie in the output directory."""
    name = test.result.name
    hashes = {score.model: score.hypotheses_sha256 for score in scores if score.test_set == name}
    system, baseline = (read_lines(output_dir / hypotheses_path(label, name), hashes[label]) for label in pair)
    return compare_systems(name, pair, (system, baseline), test.references, test.metrics)
