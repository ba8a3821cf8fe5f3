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
"""Results of evaluations as one table: Markdown, JSON and a plot.

A model evaluated with several seeds under the labels `name@seed1`, `name@seed2` ... becomes one row, mean ± sample
standard deviation.
"""

import os
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.evaluation.gap import measure_gaps
from nemo_distill.evaluation.layout import layout_tables, read_layout
from nemo_distill.evaluation.page.page import PageInputs, build_page
from nemo_distill.evaluation.plot import plot_quality_against_size
from nemo_distill.evaluation.results import (
    METRICS,
    RESULTS_NAME,
    Comparison,
    EvaluationResult,
    ModelResult,
    Score,
    TestSetResult,
    check_seeds,
    metric_settings,
    read_result,
    row_label,
)
from nemo_distill.evaluation.rows import Row, Statistic
from nemo_distill.evaluation.speed_results import JSON_NAME as SPEED_NAME
from nemo_distill.evaluation.speed_results import SpeedResult
from nemo_distill.evaluation.summary import Report
from nemo_distill.support import manifest
from nemo_distill.support.files import json_text, sha256
from nemo_distill.support.lock import locked
from nemo_distill.support.quoting import plain_text

MANIFEST_NAME = "report.manifest.json"
MARKDOWN_NAME = "report.md"
JSON_NAME = "report.json"
PLOT_NAME = "quality_vs_size.png"
PAGE_NAME = "report.html"
NAMES = {"markdown": MARKDOWN_NAME, "json": JSON_NAME, "plot": PLOT_NAME, "page": PAGE_NAME}
FORMATS = tuple(NAMES)


def build_report(
    results: Sequence[EvaluationResult],
    teacher: str | Sequence[str] | None = None,
    plain: str | None = None,
    names: Sequence[str] | None = None,
    twins: Mapping[str, str] | None = None,
) -> Report:
    """Merge evaluations into one table.

    Args:
        results: evaluations; a model or test set may be in several of them.
        teacher: label of the teacher's row, for the share of the gap that a student closes. Of several teachers, those
            of all: the gap is to the best of them, and none is a student.
        plain: label of the row of the model trained without a teacher. Both or neither.
        names: of the results in messages, such as their files.
        twins: for the label of a row that of its own plain row, in place of `plain`: of a student that starts from its
            teacher's weights, the one that starts so and learns from labels alone.

    Raises:
        InputError: no results; one test set name for different files, or one label for different archives; results
            that contradict each other in what they both have; seeds of one model that differ in size, or are one
            archive; a teacher without plain model or the reverse, a label that is not there, or a plain model or twin
            that learnt from a teacher.

    Example:
        >>> report = build_report([EvaluationResult.load("out")], teacher="teacher", plain="plain")  # doctest: +SKIP
        >>> print(report.markdown())  # doctest: +SKIP
    """
    names = names or [f"result {number}" for number in range(1, len(results) + 1)]
    models, test_sets, scores, comparisons = _merge(results, names)
    groups: dict[str, list[ModelResult]] = {}
    for label in dict.fromkeys(owner for owner, _ in scores):
        groups.setdefault(row_label(label), []).append(models[label])
    rows = [_row(label, members, list(test_sets), scores) for label, members in groups.items()]
    for row in rows:
        row.compression = rows[0].parameters / row.parameters
    teachers = _labels(teacher)
    return Report(
        test_sets=list(test_sets),
        rows=rows,
        comparisons=comparisons,
        bleu_signatures=_unique(score.bleu_signature for score in scores.values()),
        chrf_signatures=_unique(score.chrf_signature for score in scores.values()),
        engines=_engines(scores.values()),
        teacher=measure_gaps(rows, teachers, plain, dict(twins or {})),
        plain=plain,
        teachers=teachers,
        model_bleu={
            label: {name: scores[label, name].bleu for name in test_sets if (label, name) in scores}
            for label in models
        },
        signature_tests=_signature_tests(scores.values()),
    )


def write_report(
    paths: Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    formats: Sequence[str] = FORMATS,
    teacher: str | Sequence[str] | None = None,
    plain: str | None = None,
    overwrite: bool = False,
    layout: str | os.PathLike | None = None,
    twins: Mapping[str, str] | None = None,
    train: Sequence[tuple[str | os.PathLike, str | os.PathLike]] = (),
    speed: Sequence[str | os.PathLike] = (),
    spent: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
) -> Report:
    """Read evaluations and write `report.md`, `report.html`, `report.json` and `quality_vs_size.png`.

    Args:
        paths: directories that `nemo-distill evaluate` wrote, or their `results.json`.
        output_dir: where to write; may be the directory of an evaluation. A report of the same results and options
            that is there already is verified and left alone.
        formats: which of `markdown`, `json`, `plot` and `page` to write.
        teacher: as `build_report`.
        plain: as `build_report`.
        overwrite: replace an earlier report.
        layout: YAML or JSON file with further tables, see `nemo_distill.evaluation.layout.Layout`.
        twins: as `build_report`.
        train: pairs of files of the training text, source and target, for the page.
        speed: directories that `nemo-distill speed` wrote, or their `speed.json`, for the page.
        spent: for the label of a row the seconds that its labels or its cache took, for the page.
        shares: of these what is its own share, where other rows use the same labels or cache.

    Raises:
        InputError: as `build_report` and `layout_tables`; a path that is no result; `output_dir` holds another report
            or is in use.
    """
    return find_or_write(
        paths, output_dir, formats, teacher, plain, overwrite, layout, twins, train, speed, spent, shares
    )[0]


def find_or_write(
    paths: Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    formats: Sequence[str],
    teacher: str | Sequence[str] | None,
    plain: str | None,
    overwrite: bool,
    layout: str | os.PathLike | None,
    twins: Mapping[str, str] | None = None,
    train: Sequence[tuple[str | os.PathLike, str | os.PathLike]] = (),
    speed: Sequence[str | os.PathLike] = (),
    spent: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
) -> tuple[Report, bool]:
    """Do what `write_report` does; return the report, and whether its files were there already."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"format '{', '.join(unknown)}': give any of {', '.join(FORMATS)}")
    results, hashes = zip(*(read_result(path) for path in paths), strict=True) if paths else ((), ())
    report = build_report(results, teacher, plain, [str(path) for path in paths], twins)
    request = {"results": list(hashes), "formats": sorted(set(formats)), "teacher": report.teacher, "plain": plain}
    if len(report.teachers) > 1:
        request["teachers"] = report.teachers
    if twins:
        request["twins"] = dict(twins)
    if layout is not None:
        request["layout"] = sha256(layout)
        report.tables = layout_tables(read_layout(layout), report)
        if sha256(layout) != request["layout"]:
            raise InputError(f"'{layout}' has changed while it was read; run the command again")
    measured = [Path(path, SPEED_NAME) if os.path.isdir(path) else Path(path) for path in speed]
    if (train or speed or spent or shares) and "page" not in formats:
        raise InputError(
            "training text, speeds and time spent are for the page; add 'page' to the formats, or leave them out"
        )
    if spent:
        request["spent"] = dict(spent)
    if shares:
        request["shares"] = dict(shares)
    if train:
        request["train"] = [[sha256(path) for path in pair] for pair in train]
    if speed:
        request["speed"] = [sha256(path) for path in measured]
    speeds = [SpeedResult.load(path) for path in measured]
    wanted = [NAMES[name] for name in request["formats"]]
    inputs = [Path(path, RESULTS_NAME) if os.path.isdir(path) else Path(path) for path in paths]
    outputs = [Path(output_dir, name) for name in (*NAMES.values(), MANIFEST_NAME)]
    given = [*inputs, *([layout] if layout is not None else []), *measured, *(path for pair in train for path in pair)]
    manifest.refuse_inputs_as_outputs(given, outputs)
    page = PageInputs.read(report, results, [path.parent for path in inputs]) if "page" in formats else None
    if page is not None and page.missing:
        request["left_out"] = page.missing  # so that the page is made anew once it is back
    with locked(output_dir) as directory:
        if manifest.find_finished(directory, request, overwrite, wanted, MANIFEST_NAME):
            return report, True
        manifest.claim(directory, wanted, overwrite, MANIFEST_NAME)  # before the pictures, which take a while
        makers = {
            MARKDOWN_NAME: lambda: report.markdown(
                *(name if name in wanted else None for name in (PLOT_NAME, PAGE_NAME))
            ).encode(),
            JSON_NAME: lambda: json_text(asdict(report)).encode(),
            PLOT_NAME: lambda: plot_quality_against_size(report.points()),
            PAGE_NAME: lambda: build_page(report, page, train, speeds, spent, shares).encode(),
        }
        contents = {name: makers[name]() for name in wanted}  # all of them first, so that what fails leaves nothing
        manifest.write_run(directory, request, contents, {}, overwrite, NAMES.values(), MANIFEST_NAME)
    return report, False


def _labels(teacher: str | Sequence[str] | None) -> list[str]:
    return [teacher] if isinstance(teacher, str) else list(teacher or [])


def _merge(results: Sequence[EvaluationResult], names: Sequence[str]) -> tuple[dict, dict, dict, list[Comparison]]:
    """Return models by label, test sets by name, scores by label and name, and all comparisons.

    Raises:
        InputError: two of the results, which `names` names, contradict each other. Times are those of the first.
    """
    models: dict[str, tuple[ModelResult, str]] = {}
    test_sets: dict[str, tuple[TestSetResult, str]] = {}
    scores: dict[tuple[str, str], tuple[Score, str]] = {}
    signatures: dict[tuple[str, str], tuple[Score, str]] = {}
    comparisons: dict[tuple[str, str, str, str], tuple[Comparison, str]] = {}
    for name, result in zip(names, results, strict=True):
        for model in result.models:
            known, _ = models.get(model.label, (model, name))
            if known.archive_sha256 != model.archive_sha256:
                raise InputError(
                    f"the label '{model.label}' stands for two archives, '{plain_text(known.archive)}' and "
                    f"'{plain_text(model.archive)}'; "
                    f"evaluate them under two labels, for instance {model.label}@seed1 and {model.label}@seed2"
                )
            of_its_run = "converged", "steps", "stopped_after", "loss_rise", "least_loss_at"
            _add(models, model.label, model, name, ("archive", "compression", *of_its_run))
        for test in result.test_sets:
            known, _ = test_sets.get(test.name, (test, name))
            if known.hashes != test.hashes:
                raise InputError(
                    f"the test set '{test.name}' stands for different files, '{plain_text(known.source)}' and "
                    f"'{plain_text(test.source)}' "
                    "or their references; evaluate them under two names"
                )
            _add(test_sets, test.name, test, name, ("source", "target", "further_targets"))
        for score in result.scores:
            _refuse_other_metrics(signatures, score, name)
            pair = score.model, score.test_set
            known, earlier = scores.get(pair, (score, name))
            if known.seconds is None and score.seconds is not None:  # threads are those of whichever measured a time
                scores[pair] = replace(known, threads=score.threads), earlier
            _add(scores, pair, score, name, ("seconds", "sentences_per_second", "threads", "length_ratio"))
        for item in result.comparisons:
            _add(comparisons, (item.system, item.baseline, item.test_set, item.metric), item, name)
    if not scores:
        raise InputError("there is no score to report; give results that `nemo-distill evaluate` wrote")
    models, test_sets, scores, comparisons = (
        {key: item for key, (item, _) in found.items()} for found in (models, test_sets, scores, comparisons)
    )
    return models, test_sets, scores, list(comparisons.values())


def _refuse_other_metrics(found: dict[tuple[str, str], tuple[Score, str]], score: Score, name: str) -> None:
    """Note the first score of a test set by each metric.

    Raises:
        InputError: it was computed otherwise, such as with another tokenizer, and so compares with none of the others.
            Another release of sacreBLEU is told beside the table.
    """
    for metric in METRICS:
        first, earlier = found.setdefault((score.test_set, metric), (score, name))
        theirs, ours = (each.of(metric)[1] for each in (first, score))
        if metric_settings(theirs, "version") != metric_settings(ours, "version"):
            raise InputError(
                f"{metric} on '{score.test_set}' is of '{plain_text(first.model)}' {plain_text(theirs)} in "
                f"'{plain_text(earlier)}' and of '{plain_text(score.model)}' {plain_text(ours)} in "
                f"'{plain_text(name)}': they do not compare; evaluate one of them again, with the --bleu-tokenizer of "
                "the other, which decodes nothing"
            )


def _add(found: dict, key: Any, item: Any, name: str, free: Collection[str] = ()) -> None:
    """Add what a result says, unless an earlier one says the same, as far as both know; some fields may differ.

    Raises:
        InputError: an earlier one says something else.
    """
    known, earlier = found.setdefault(key, (item, name))
    for each in fields(item):
        ours, theirs = getattr(known, each.name), getattr(item, each.name)
        if ours is None and theirs is not None:  # an earlier version did not note it
            known = replace(known, **{each.name: theirs})
            found[key] = known, earlier
        elif each.name not in free and ours != theirs and theirs is not None:
            what = key if isinstance(key, str) else ", ".join(key)
            raise InputError(
                f"'{plain_text(earlier)}' and '{plain_text(name)}' contradict each other: of {plain_text(what)}, "
                f"{each.name} is {plain_text(ours)} in the first and {plain_text(theirs)} in the second; give one of "
                "them, or evaluate again under another label"
            )


def _row(label: str, members: list[ModelResult], test_sets: Sequence[str], scores: dict) -> Row:
    sizes = {model.label: model.parameters for model in members}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(f"the seeds of '{label}' differ in parameters ({listed}); give different models other labels")
    check_seeds({model.label: model.archive_sha256 for model in members})
    bleu, chrf, lengths = {}, {}, {}
    for name in test_sets:
        found = [scores[model.label, name] for model in members if (model.label, name) in scores]
        if found:
            bleu[name] = Statistic.of([score.bleu for score in found])
            chrf[name] = Statistic.of([score.chrf for score in found])
            known = [score.length_ratio for score in found if score.length_ratio is not None]
            lengths |= {name: known} if known else {}
    speeds = []
    for model in members:
        own = [score for (owner, _), score in scores.items() if owner == model.label and score.seconds is not None]
        if own:
            speeds.append(sum(score.decoded for score in own) / sum(score.seconds for score in own))
    return Row(
        label=label,
        models=list(sizes),
        parameters=members[0].parameters,
        compression=1.0,
        archive_bytes=round(statistics.fmean(model.archive_bytes for model in members)),
        bleu=bleu,
        chrf=chrf,
        sentences_per_second=Statistic.of(speeds) if speeds else None,
        gap_closed=None,
        not_converged=[model.label for model in members if model.converged is False],
        stopped={
            model.label: (model.stopped_after, model.steps) for model in members if model.stopped_after is not None
        },
        rises={
            model.label: (model.loss_rise, model.least_loss_at) for model in members if model.loss_rise is not None
        },
        taught=[model.label for model in members if model.taught],
        starts=sorted({model.start for model in members if model.start is not None}),
        dropouts=sorted({model.dropout for model in members if model.dropout is not None}),
        lengths=lengths,
    )


def _engine(score: Score) -> str:
    threads = f"{score.threads} thread{'s' if score.threads > 1 else ''}"
    place = f"{score.device}, {threads}" if score.device == "cpu" else score.device
    return f"{score.engine} on {place}, beam {score.beam_size}"


def _engines(scores: Iterable[Score]) -> list[str]:
    """Return what decoded; where that is not one and the same, also which rows."""
    rows: dict[str, list[str]] = {}
    for score in scores:
        rows.setdefault(_engine(score), []).append(row_label(score.model))
    if len(rows) == 1:
        return list(rows)
    return [f"{engine} ({', '.join(_unique(labels))})" for engine, labels in rows.items()]


def _signature_tests(scores: Iterable[Score]) -> dict[str, list[str]]:
    """Return the test sets of each signature."""
    found: dict[str, list[str]] = {}
    for score in scores:
        for signature in (score.bleu_signature, score.chrf_signature):
            found.setdefault(signature, []).append(score.test_set)
    return {signature: _unique(names) for signature, names in found.items()}


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
