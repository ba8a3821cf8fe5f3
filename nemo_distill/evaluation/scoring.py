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
archive, files and settings, is not decoded again, so an interrupted evaluation goes on where it stopped.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from nemo.utils import logging
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from nemo_distill import __version__
from nemo_distill.archives.restore import restore_model
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import Engine, check_engine
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.opening import choose_engine
from nemo_distill.decoding.translation import translate
from nemo_distill.errors import ConversionError, InputError
from nemo_distill.evaluation.inputs import (
    ModelInput,
    TestInput,
    TestSet,
    build_metrics,
    check_settings,
    comparison_pairs,
    read_models,
    read_test_sets,
)
from nemo_distill.evaluation.results import (
    FORMAT_VERSION,
    RESULTS_NAME,
    Comparison,
    EvaluationResult,
    ModelResult,
    Score,
)
from nemo_distill.support.files import (
    prepare_output_dir,
    read_lines,
    sha256,
    write_json_atomic,
    write_lines_atomic,
)
from nemo_distill.support.incoming import read_json

BOOTSTRAP_SAMPLES = 1000
HYPOTHESES_DIR = "hypotheses"
SCORES_DIR = "scores"


def evaluate(
    models: Sequence[str | os.PathLike],
    test_sets: Sequence[TestSet | str],
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
) -> EvaluationResult:
    """Decode every test set with every model and score the hypotheses.

    Args:
        models: `.nemo` archives; compression is measured against the first.
        test_sets: test sets, or their `name:source:target` form.
        output_dir: gets `results.json`, and `hypotheses/MODEL.TEST.txt` and `scores/MODEL.TEST.json` of each pair.
            It may be the directory of an earlier evaluation that this one repeats, finishes or extends.
        names: labels of the models; by default the file names without `.nemo`.
        beam_size: hypotheses per sentence while decoding; by default what each model's archive says.
        batch_tokens: most source tokens in a batch, padding included.
        compare: pairs `A:B` of labels for the significance test of `A` against `B`; by default every pair of models,
            the later against the earlier.
        device: where to decode; by default a GPU if there is one.
        engine: `ctranslate2`, `nemo`, or `auto`: CTranslate2 for models that convert, NeMo's modules for the others.
        quantization: for CTranslate2; by default float32.
        overwrite: replace another evaluation in `output_dir`, and decode everything again.
        progress: show a progress bar with sentences per second.

    Returns:
        The result, which is also in `output_dir/results.json`.

    Raises:
        InputError: a file is missing, empty, unequal in lines or not a model; a label or a test set is named twice;
            an option has no sense; `output_dir` holds another evaluation.
        ConversionError: CTranslate2 or a quantization is asked for, and a model does not convert.

    Example:
        >>> result = evaluate(["teacher.nemo", "student.nemo"], ["t:test.de:test.en"], "out")  # doctest: +SKIP
        >>> result.score("student", "t").bleu  # doctest: +SKIP
        34.6
    """
    device = check_settings(beam_size, batch_tokens, device)
    check_engine(engine, quantization)
    tests = read_test_sets(test_sets)
    candidates = read_models(models, names)
    metrics = build_metrics(candidates)
    pairs = comparison_pairs([candidate.label for candidate in candidates], compare)
    settings = {
        "format_version": FORMAT_VERSION,
        "beam_size": beam_size,
        "batch_tokens": batch_tokens,
        "device": device,
    }
    keys = _score_keys(candidates, tests, _choose_engines(candidates, engine, quantization, device), settings)
    output_dir = Path(output_dir)
    finished = _finished_scores(output_dir, keys, overwrite)

    model_results, scores = [], []
    for candidate in candidates:
        result, model_scores = _evaluate_model(candidate, tests, keys, finished, metrics, output_dir, progress)
        first = model_results[0] if model_results else result
        model_results.append(replace(result, compression=first.parameters / result.parameters))
        scores += model_scores
    result = EvaluationResult(
        models=model_results,
        test_sets=[test.result for test in tests],
        scores=scores,
        comparisons=[item for pair in pairs for test in tests for item in _compare(pair, test, metrics, output_dir)],
        versions={
            "nemo_distill": __version__,
            **{name: version(name) for name in ("nemo_toolkit", "torch", "sacrebleu", "ctranslate2")},
        },
    )
    result.save(output_dir)
    return result


def _score_keys(
    candidates: Sequence[ModelInput],
    tests: Sequence[TestInput],
    engines: Mapping[str, str],
    settings: Mapping,
) -> dict[tuple[str, str], dict]:
    """Return by (label, test set) what decides the scores: a record with another key is another evaluation's."""
    return {
        (candidate.label, test.result.name): {
            **settings,
            "engine": engines[candidate.label],
            "archive_sha256": candidate.sha256,
            "source_sha256": test.result.source_sha256,
            "target_sha256": test.result.target_sha256,
        }
        for candidate in candidates
        for test in tests
    }


def _choose_engines(
    candidates: Sequence[ModelInput], engine: str, quantization: str | None, device: str
) -> dict[str, str]:
    """Return the name of each model's engine by its label, and say why."""
    names = {}
    for candidate in candidates:
        try:
            names[candidate.label], reason = choose_engine(candidate.config, engine, quantization, device)
        except ConversionError as error:
            raise ConversionError(f"{candidate.path}: {error}") from error
        logging.info(f"{candidate.label}: decoding with {names[candidate.label]} ({reason})")
    return names


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of weights of a model; a tensor that several modules share counts once.

    Example:
        >>> count_parameters(torch.nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def _finished_scores(output_dir: Path, keys: dict[tuple[str, str], dict], overwrite: bool) -> dict:
    """Return the records of an earlier evaluation that this one takes over, by model and test set.

    Raises:
        InputError: the directory holds another evaluation and `overwrite` is False.
    """
    prepare_output_dir(output_dir, overwrite=True)
    paths = sorted((output_dir / SCORES_DIR).glob("*.json"))
    if overwrite:
        (output_dir / RESULTS_NAME).unlink(missing_ok=True)
        for path in paths:
            (output_dir / HYPOTHESES_DIR / f"{path.stem}.txt").unlink(missing_ok=True)
            path.unlink()
        return {}
    if not paths:
        prepare_output_dir(output_dir, holds=[RESULTS_NAME])
    finished = {}
    for path in paths:
        record = read_json(path)
        try:
            pair, key = (record["score"]["model"], record["score"]["test_set"]), record["key"]
            wanted = keys.get(pair)
            differing = [] if wanted is None else [name for name in wanted if key.get(name) != wanted[name]]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"'{path}' is not the record of a score ({error}); remove it, or --overwrite") from error
        if wanted is None or differing:
            why = "is not part of this one" if wanted is None else f"differs in {', '.join(differing)}"
            raise InputError(
                f"'{output_dir}' already holds another evaluation: {pair[0]} on {pair[1]} {why}; "
                "give another output directory, or --overwrite"
            )
        finished[pair] = record
    return finished


def _evaluate_model(
    candidate: ModelInput,
    tests: Sequence[TestInput],
    keys: dict[tuple[str, str], dict],
    finished: dict,
    metrics: dict[str, BLEU | CHRF],
    output_dir: Path,
    progress: bool,
) -> tuple[ModelResult, list[Score]]:
    """Score one model on all test sets; it is loaded only if a score is missing."""
    engine, scores = None, []
    for test in tests:
        pair = (candidate.label, test.result.name)
        record = finished.get(pair)
        if record is None or not _hypotheses_intact(record, output_dir):
            if engine is None:
                engine, parameters = _open(candidate, keys[pair])
            score = _decode(engine, pair, keys[pair], test, metrics, output_dir, progress)
            record = {"key": keys[pair], "parameters": parameters, "score": asdict(score)}
            write_json_atomic(output_dir / SCORES_DIR / f"{pair[0]}.{pair[1]}.json", record)
        else:
            logging.info(f"{pair[0]} on {pair[1]}: scored before")
        scores.append(Score(**record["score"]))
    result = ModelResult(
        label=candidate.label,
        archive=str(candidate.path),
        archive_sha256=candidate.sha256,
        archive_bytes=candidate.path.stat().st_size,
        parameters=record["parameters"],
        compression=1.0,
    )
    return result, scores


def _open(candidate: ModelInput, key: dict) -> tuple[Engine, int]:
    """Return the engine that the key names and the number of the model's weights."""
    kind, _, quantization = key["engine"].partition(" ")
    if kind == "nemo":
        model = restore_model(candidate.path, key["device"])
        return NeMoEngine(model), count_parameters(model)
    model = restore_model(candidate.path)
    return CTranslate2Engine.from_model(model, quantization, key["device"]), count_parameters(model)


def _hypotheses_intact(record: dict, output_dir: Path) -> bool:
    path = output_dir / record["score"]["hypotheses"]
    return path.is_file() and sha256(path) == record["score"]["hypotheses_sha256"]


def _decode(
    engine: Engine,
    pair: tuple[str, str],
    settings: dict,
    test: TestInput,
    metrics: dict[str, BLEU | CHRF],
    output_dir: Path,
    progress: bool,
) -> Score:
    label, name = pair
    search = engine.default_settings
    if settings["beam_size"] is not None:
        search = replace(search, beam_size=settings["beam_size"])
    logging.info(f"{label}: translating {test.result.sentences} sentences of {name}")
    translate(engine, [next(line for line in test.sources if line.strip())], search, progress=False)  # warm-up
    translations = translate(engine, test.sources, search, settings["batch_tokens"], progress)

    relative = f"{HYPOTHESES_DIR}/{label}.{name}.txt"
    write_lines_atomic(output_dir / relative, translations.hypotheses)
    bleu = metrics["BLEU"].corpus_score(translations.hypotheses, [test.references]).score
    chrf = metrics["chrF2"].corpus_score(translations.hypotheses, [test.references]).score
    speed = translations.sentences_per_second
    logging.info(f"{label} on {name}: BLEU {bleu:.1f}, chrF2 {chrf:.1f}, {speed:.1f} sentences/s")
    return Score(
        model=label,
        test_set=name,
        bleu=bleu,
        bleu_signature=str(metrics["BLEU"].get_signature()),
        chrf=chrf,
        chrf_signature=str(metrics["chrF2"].get_signature()),
        seconds=translations.seconds,
        sentences_per_second=speed,
        decoded=translations.decoded,
        truncated=len(translations.truncated),
        beam_size=search.beam_size,
        length_penalty=search.length_penalty,
        engine=engine.name,
        device=settings["device"],
        threads=engine.threads,
        hypotheses=relative,
        hypotheses_sha256=sha256(output_dir / relative),
    )


def _compare(pair: tuple[str, str], test: TestInput, metrics: dict, output_dir: Path) -> list[Comparison]:
    """Return one comparison per metric, of the hypotheses that lie in the output directory."""
    name = test.result.name
    system, baseline = pair
    systems = [
        (label, read_lines(output_dir / HYPOTHESES_DIR / f"{label}.{name}.txt")) for label in (baseline, system)
    ]
    signatures, results = PairedTest(
        systems, metrics, [test.references], test_type="bs", n_samples=BOOTSTRAP_SAMPLES
    )()
    comparisons = []
    for metric in metrics:
        baseline_result, system_result = results[metric]
        # of two systems that never differ, sacreBLEU says p = 1 / (samples + 1)
        equal = baseline_result.score == system_result.score
        comparisons.append(
            Comparison(
                test_set=name,
                metric=metric,
                system=system,
                baseline=baseline,
                system_score=system_result.score,
                baseline_score=baseline_result.score,
                p_value=1.0 if equal else system_result.p_value,
                samples=BOOTSTRAP_SAMPLES,
                signature=str(signatures[metric]),
            )
        )
    return comparisons
