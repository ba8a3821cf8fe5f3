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
"""Inference baselines: each model with each engine, its quality, throughput, latency, memory and size in one table."""

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemo_distill import __version__
from nemo_distill.config.languages import Languages
from nemo_distill.data.bleu_tokenizer import DEFAULT
from nemo_distill.decoding.convertible import config_faults
from nemo_distill.decoding.cuda_libraries import device_fault
from nemo_distill.decoding.engine import Engine
from nemo_distill.decoding.foreign_conversion import stored_quantization
from nemo_distill.errors import ConversionError, InputError
from nemo_distill.evaluation.engines import open_input
from nemo_distill.evaluation.inputs import (
    ModelInput,
    check_settings,
    choose_metrics,
    model_of_test,
    read_models,
    read_named_sets,
)
from nemo_distill.evaluation.serving import Serving
from nemo_distill.evaluation.speed_results import (
    ALL_CORES,
    JSON_NAME,
    ONE_CORE,
    SpeedResult,
    SpeedRow,
    check_cores,
    check_measurement,
)
from nemo_distill.evaluation.speed_rows import Forecast, RowName, measure_row
from nemo_distill.evaluation.test_sets import NamedSet, TestInput, TestSet, read_test_sets
from nemo_distill.support import manifest
from nemo_distill.support.files import json_text
from nemo_distill.support.lock import locked
from nemo_distill.support.threads import given_threads, on_one_core

MARKDOWN_NAME = "speed.md"
MANIFEST_NAME = "speed.manifest.json"
_IS_CONVERTED = re.compile(r"model\.bin|config\.json|\w+_vocabulary\.(json|txt)")


def measure_speed(
    models: Sequence[str | os.PathLike],
    test_set: TestSet | NamedSet | str,
    output_dir: str | os.PathLike,
    engines: Sequence[str] = ("nemo", "float32", "int8"),
    names: Sequence[str] | None = None,
    beam_size: int | Sequence[int] | None = None,
    batch_tokens: int = 4096,
    latency_sentences: int = 100,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    languages: Languages | None = None,
    bleu_tokenizer: str | None = None,
    cores: Sequence[str] = (ALL_CORES,),
) -> SpeedResult:
    """Translate one test set with each model and each engine, and measure; the log says how long it will take.

    Args:
        models: `.nemo` archives, or directories of models that are not NeMo's, which `nemo` does not decode.
        test_set: a test set, or its `name:source:target` form, or a name of sacreBLEU's; see `evaluate`.
        output_dir: gets `speed.json` and `speed.md`. A measurement of the same inputs and settings that is there
            already is verified and left alone.
        engines: `nemo`, and types of weights for CTranslate2; a model that does not convert is skipped there.
        names: labels of the models; by default the file names without `.nemo`.
        beam_size: hypotheses per sentence, or several numbers, a row for each; by default what each model's archive
            says.
        batch_tokens: most source tokens in a batch, padding included.
        latency_sentences: sentences decoded one by one for the latency.
        device: where to decode; by default a GPU if there is one.
        overwrite: replace an earlier measurement in `output_dir`.
        progress: show progress bars.
        languages: of the models' text, in place of what their archives say.
        bleu_tokenizer: of sacreBLEU; by default that of the target language, else of the references' script.
        cores: `one`, a row of a process that has one core; `all`, one as for a user. Where there is one thread to
            compute with, only one of them.

    Raises:
        InputError: bad models, test set or settings, as for an evaluation; an unknown engine; an input changes
            meanwhile; `output_dir` holds another measurement or is in use.
        StageError: the process failed whose memory is measured.

    Example:
        >>> print(measure_speed(["s.nemo"], "t:test.de:test.en", "out").markdown())  # doctest: +SKIP
    """
    settings = engines, names, beam_size, batch_tokens, latency_sentences, device, overwrite, progress, languages
    return find_or_measure(models, test_set, output_dir, *settings, bleu_tokenizer, cores)[0]


def find_or_measure(
    models: Sequence[str | os.PathLike],
    test_set: TestSet | NamedSet | str,
    output_dir: str | os.PathLike,
    engines: Sequence[str],
    names: Sequence[str] | None,
    beam_size: int | Sequence[int] | None,
    batch_tokens: int,
    latency_sentences: int,
    device: str | None,
    overwrite: bool,
    progress: bool,
    languages: Languages | None = None,
    bleu_tokenizer: str | None = None,
    cores: Sequence[str] = (ALL_CORES,),
) -> tuple[SpeedResult, bool]:
    """Do what `measure_speed` does; return the result, and whether it was there already."""
    beam_sizes = [beam_size] if beam_size is None or isinstance(beam_size, int) else list(beam_size)
    check_measurement(engines, latency_sentences, beam_sizes, cores)
    device = check_settings(None, batch_tokens, device)
    check_cores(cores, device)
    found, candidates = read_test_sets([test_set]), read_models(models, names, languages)
    [test] = read_named_sets(found, candidates)
    candidates = [model_of_test(model, test) for model in candidates]
    choose_metrics(test, candidates, bleu_tokenizer)
    tokenizer = test.metrics["BLEU"].tokenizer_signature
    spoken = [asdict(each.languages) for each in candidates]  # archives beside a directory keep their own
    request = {
        "models": [[candidate.label, candidate.sha256] for candidate in candidates],
        "test_set": test.result.name,
        "test_sha256": test.result.hashes,
        "engines": list(engines),
        "beam_size": beam_sizes[0] if len(beam_sizes) == 1 else beam_sizes,
        "cores": list(cores),
        "batch_tokens": batch_tokens,
        "latency_sentences": latency_sentences,
        "device": device,
        "languages": spoken[0] if all(each == spoken[0] for each in spoken) else spoken,
        "bleu_tokenizer": tokenizer if tokenizer != DEFAULT else None,  # as in requests of older releases
    }
    if device == "cpu" and (threads := given_threads()):
        request["threads"] = threads  # as OMP_NUM_THREADS says
    files = [JSON_NAME, MARKDOWN_NAME]
    inputs = [*(candidate.path for candidate in candidates), *test.result.files]
    manifest.refuse_inputs_as_outputs(inputs, [Path(output_dir, name) for name in (*files, MANIFEST_NAME)])
    with locked(output_dir) as directory:
        if manifest.find_finished(directory, request, overwrite, files, MANIFEST_NAME):
            return _answering(directory, candidates, test, request), True
        manifest.claim(directory, files, overwrite, MANIFEST_NAME)
        result = _measure_all(candidates, test, request, progress)
        texts = json_text(asdict(result)), result.markdown()
        contents = {name: text.encode() for name, text in zip(files, texts, strict=True)}
        manifest.write_run(directory, request, contents, {}, overwrite, name=MANIFEST_NAME)
    return result, False


def _answering(
    directory: Path, candidates: Sequence[ModelInput], test: TestInput, request: dict[str, Any]
) -> SpeedResult:
    """Return the measurement of a directory.

    Raises:
        InputError: it is damaged, or does not answer the request, whatever its manifest says.
    """
    result = SpeedResult.load(directory)
    faults = _faults(candidates, request["device"])
    for candidate in candidates:
        if candidate.label in result.skipped and not candidate.foreign and not faults[candidate.label]:
            faults[candidate.label] = _opened_faults(candidate, request)
    single = min(request["latency_sentences"], sum(1 for line in test.sources if line.strip()))
    wanted = {
        "skipped": [label for label, reasons in faults.items() if reasons],
        "rows": [(*each, single) for each in _rows_asked(candidates, request, faults)],
        "sentences": test.result.sentences,
        **{name: request[name] for name in ("test_set", "test_sha256", "device", "batch_tokens")},
    }
    found = {
        "skipped": list(result.skipped),
        "rows": [(row.model, row.engine, row.cores, row.beam_size, row.latency_sentences) for row in result.rows],
        **{name: getattr(result, name) for name in ("sentences", "test_set", "test_sha256", "device", "batch_tokens")},
    }
    if wrong := [name for name in wanted if found[name] != wanted[name]]:
        raise InputError(
            f"'{directory / JSON_NAME}' does not answer what was asked for ({', '.join(wrong)}); "
            "--overwrite measures again"
        )
    return result


def _rows_asked(
    candidates: Sequence[ModelInput], request: dict[str, Any], faults: dict[str, list[str]]
) -> list[RowName]:
    """Return what each row is of, in the order of the table."""
    return [
        (candidate.label, _engine_name(name), cores, beam_size)
        for candidate in candidates
        for name in _engines(candidate, request["engines"], faults)
        for cores in request["cores"]
        for beam_size in _beam_sizes(candidate, request)
    ]


def _engine_name(asked: str) -> str:
    return asked if asked == "nemo" else f"ctranslate2 {asked}"


def _beam_sizes(candidate: ModelInput, request: dict[str, Any]) -> list[int]:
    asked = request["beam_size"] or candidate.config.beam_size
    return asked if isinstance(asked, list) else [asked]


def _measure_all(
    candidates: Sequence[ModelInput], test: TestInput, request: dict[str, Any], progress: bool
) -> SpeedResult:
    """Return the rows of all models with all engines; `request` has the settings."""
    faults = _faults(candidates, request["device"])
    forecast = Forecast(_rows_asked(candidates, request, faults))
    rows: list[SpeedRow] = []
    for candidate in candidates:
        for name in _engines(candidate, request["engines"], faults):
            try:
                rows += _rows_of(candidate, name, test, request, forecast, progress)
            except ConversionError as error:  # only the opened model showed it
                faults[candidate.label] = [str(error.__cause__ or error)]
                forecast.drop(candidate.label, _engine_name(name))
    if not rows:
        reasons = "; ".join(dict.fromkeys(reason for each in faults.values() for reason in each))
        raise InputError(f"nothing to measure: no model converts to CTranslate2 ({reasons}); add the engine nemo")
    return SpeedResult(
        rows=rows,
        skipped={label: "; ".join(reasons) for label, reasons in faults.items() if reasons},
        test_set=test.result.name,
        test_sha256=request["test_sha256"],
        sentences=test.result.sentences,
        bleu_signature=str(test.metrics["BLEU"].get_signature()),
        device=request["device"],
        threads=max(row.threads for row in rows),
        batch_tokens=request["batch_tokens"],
        versions={
            "nemo_distill": __version__,
            **{name: version(name) for name in ("nemo_toolkit", "torch", "ctranslate2", "sacrebleu")},
        },
    )


def _rows_of(
    candidate: ModelInput, name: str, test: TestInput, request: dict[str, Any], forecast: Forecast, progress: bool
) -> list[SpeedRow]:
    """Return the rows of one model with one engine.

    Raises:
        ConversionError: only the opened model shows that it does not convert.
    """
    rows = []
    with Serving(candidate, name, request["device"]) as serving:
        for cores in request["cores"]:
            with on_one_core() if cores == ONE_CORE else contextlib.nullcontext():
                engine, parameters, disk_bytes = _open(candidate, name, request["device"])
                for beam_size in _beam_sizes(candidate, request):
                    row = candidate.label, engine.name, cores, beam_size
                    search = replace(engine.default_settings, beam_size=beam_size)
                    limits = request["batch_tokens"], request["latency_sentences"]
                    numbers = measure_row(engine, test, search, *limits, row, forecast, progress)
                    memory = serving.peak_memory(test.sources, beam_size, request["batch_tokens"])
                    forecast.end(row)
                    numbers |= {"beam_size": beam_size, "memory_bytes": memory, "cores": cores}
                    rows.append(SpeedRow(candidate.label, engine.name, parameters, disk_bytes, **numbers))
                del engine  # its memory is free before another is opened
    return rows


def _faults(candidates: Sequence[ModelInput], device: str) -> dict[str, list[str]]:
    """Return why archives do not convert to CTranslate2, or it does not decode them on a device, by their labels."""
    of_device = [fault] if (fault := device_fault(device)) else []
    return {each.label: [] if each.foreign else config_faults(each.config) or of_device for each in candidates}


def _opened_faults(candidate: ModelInput, request: dict[str, Any]) -> list[str]:
    """Return why a model, once it is open, does not convert to the types of weights that were asked for."""
    try:
        for name in request["engines"]:
            if name != "nemo":
                _open(candidate, name, request["device"])
    except ConversionError as error:
        return [str(error.__cause__ or error)]
    return []


def _engines(candidate: ModelInput, engines: Sequence[str], faults: dict[str, list[str]]) -> list[str]:
    """Return the engines, of those asked for, that decode a model.

    Raises:
        InputError: none does, of a model that is not NeMo's.
    """
    if candidate.foreign is None:
        return [name for name in engines if name == "nemo" or not faults[candidate.label]]
    stored = stored_quantization(candidate.foreign)
    found = [name for name in engines if name != "nemo" and stored in (None, name)]
    if not found:
        raise InputError(f"'{candidate.path}' is decoded by {stored or 'CTranslate2'} alone; add it to the engines")
    return found


def _open(candidate: ModelInput, name: str, device: str) -> tuple[Engine, int, int]:
    """Return the engine, the number of the model's weights and its bytes on disk."""
    engine, parameters = open_input(candidate, name if name == "nemo" else f"ctranslate2 {name}", device)
    if name == "nemo":
        return engine, parameters, candidate.archive_bytes
    converted = [path for path in engine.directory.iterdir() if _IS_CONVERTED.fullmatch(path.name)]
    return engine, parameters, sum(path.stat().st_size for path in converted)
