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
"""The verbs of `nemo-distill` that measure: evaluate, report, speed. Imports nothing heavy."""

import argparse
import re

from nemo_distill.cli.options import (
    InputFile,
    InputPath,
    add_bleu_tokenizer,
    add_decoding,
    add_engine,
    add_languages,
    add_models,
    add_output_dir,
    add_paths,
    add_test_set,
    add_trust,
    check_test_sets,
    languages,
    read_share,
)
from nemo_distill.decoding.engine import QUANTIZATIONS, check_counts, check_engine


def add_speed(subparsers) -> None:
    """Add `nemo-distill speed`."""
    verb = subparsers.add_parser(
        "speed",
        help="measure models with each engine: words per second, latency, memory, size, BLEU",
        description="Translate one test set with each model and each engine, and write one table of BLEU, sentences "
        "and words per second, latency of single sentences, memory of a process that serves, and size on disk. Says "
        "how long it will take. Leave the machine alone meanwhile.",
    )
    add_models(verb)
    add_test_set(verb)
    add_output_dir(verb, "gets speed.md and speed.json", "an earlier measurement there")
    verb.add_argument(
        "--engines",
        nargs="+",
        default=["nemo", "float32", "int8"],
        metavar="ENGINE",
        help=f"nemo, or CTranslate2 by the type of its weights ({', '.join(QUANTIZATIONS)}); "
        "default: nemo float32 int8",
    )
    add_decoding(verb, several=True)
    verb.add_argument(
        "--cores",
        nargs="+",
        default=["all"],
        metavar="CORES",
        help="one: rows of a process that has one core; all: as for a user, with all cores, or OMP_NUM_THREADS; or "
        "both; default: all",
    )
    verb.add_argument(
        "--latency-sentences", type=int, default=100, metavar="N", help="sentences decoded one by one; default: 100"
    )
    add_bleu_tokenizer(verb)
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_speed)


def _run_speed(args: argparse.Namespace) -> None:
    from nemo_distill.evaluation.speed_results import check_measurement

    check_measurement(args.engines, args.latency_sentences, args.beam_size or [None], args.cores)
    check_counts(None, args.batch_tokens)
    languages(args)
    check_test_sets([args.test])
    from nemo_distill.evaluation.speed import find_or_measure

    result, was_finished = find_or_measure(
        args.model,
        args.test,
        args.output_dir,
        engines=args.engines,
        names=args.names,
        beam_size=args.beam_size,
        batch_tokens=args.batch_tokens,
        latency_sentences=args.latency_sentences,
        device=args.device,
        overwrite=args.overwrite,
        progress=True,
        languages=languages(args),
        bleu_tokenizer=args.bleu_tokenizer,
        cores=args.cores,
    )
    print(result.markdown())
    print(_state(args.output_dir, was_finished))


def _state(output_dir: str, was_finished: bool) -> str:
    return f"{output_dir}: already there, hashes verified" if was_finished else f"written to {output_dir}"


def add_evaluate(subparsers) -> None:
    """Add `nemo-distill evaluate`."""
    verb = subparsers.add_parser(
        "evaluate",
        help="score models on test sets: BLEU, chrF, size, speed, significance",
        description="Translate test sets with models and score the hypotheses with sacreBLEU and chrF; measure size "
        "and speed; test differences by approximate randomization. Pairs of model and test set that the output "
        "directory holds already are not decoded again, so an interrupted evaluation goes on where it stopped. Under "
        "torchrun the processes share the sentences.",
    )
    add_models(verb, "; sizes are compared with the first")
    add_test_set(verb, several=True)
    add_output_dir(
        verb,
        "gets results.json, hypotheses and scores of each pair",
        "another evaluation there, and decode everything again",
    )
    verb.add_argument(
        "--renew",
        action="store_true",
        help="of another evaluation there, keep what these models and test sets have in common with it, and remove "
        "the rest",
    )
    add_decoding(verb, shared=True)
    verb.add_argument(
        "--compare",
        nargs="+",
        action="extend",
        metavar="A:B",
        help="test the significance of A against B, two labels; default: every pair of models",
    )
    add_engine(verb, "the models that convert")
    add_bleu_tokenizer(verb)
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> None:
    check_engine(args.engine, args.quantization)
    check_counts(args.beam_size, args.batch_tokens)
    languages(args)
    check_test_sets(args.test)
    share = read_share(args)
    from nemo_distill.evaluation.report import build_report
    from nemo_distill.evaluation.scoring import find_or_evaluate

    result, was_finished = find_or_evaluate(
        args.model,
        args.test,
        args.output_dir,
        names=args.names,
        beam_size=args.beam_size,
        batch_tokens=args.batch_tokens,
        compare=args.compare,
        device=args.device,
        engine=args.engine,
        quantization=args.quantization,
        overwrite=args.overwrite,
        renew=args.renew,
        progress=True,
        languages=languages(args),
        bleu_tokenizer=args.bleu_tokenizer,
        share=share,
    )
    if result is None:
        return
    print(build_report([result]).markdown())
    state = " (already there, hashes and scores verified)" if was_finished else ""
    print(f"{args.output_dir}/results.json, hypotheses in {args.output_dir}/hypotheses{state}")


def add_report(subparsers) -> None:
    """Add `nemo-distill report`."""
    verb = subparsers.add_parser(
        "report",
        help="turn results of evaluations into a table, a plot and a page of where students are worse",
        description="One table of all models and test sets, as Markdown, JSON and a plot of quality against size, and "
        "a page for a browser, without a network: where each student is worse than its teacher, and by how much. "
        "Models labelled name@seed1, name@seed2 ... become one row, mean and standard deviation.",
    )
    results = "directories that `nemo-distill evaluate` wrote, or their results.json"
    add_paths(verb, "--results", results, metavar="PATH", required=True, kind=InputPath)
    add_output_dir(verb, "gets report.html, report.md, report.json and quality_vs_size.png", "an earlier report")
    verb.add_argument(
        "--format",
        nargs="+",
        choices=("markdown", "json", "plot", "page"),
        default=["markdown", "json", "plot", "page"],
        help="what to write; default: all four",
    )
    verb.add_argument(
        "--teacher",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="row of the teacher, for the share of the gap closed; of several, which students learnt from together, "
        "all rows: the gap is to the best",
    )
    verb.add_argument("--plain", metavar="LABEL", help="row of the model trained without a teacher, for the same")
    verb.add_argument(
        "--twins",
        nargs="+",
        action="extend",
        default=[],
        metavar="ROW:PLAIN",
        help="measure the gap of a row from another plain row: of students that start from their teacher's weights, "
        "from the one that starts so and learns from labels alone",
    )
    verb.add_argument(
        "--layout",
        type=InputFile,
        metavar="FILE",
        help="YAML with further tables: grids of settings, changes between models",
    )
    verb.add_argument(
        "--train",
        nargs=2,
        action="append",
        default=[],
        type=InputFile,
        metavar=("SOURCE", "TARGET"),
        help="the training text, whose word frequencies the page shows the gap by; may be given several times",
    )
    add_paths(
        verb,
        "--speed",
        "directories that `nemo-distill speed` wrote, or their speed.json, for quality against latency on the page",
        metavar="PATH",
        kind=InputPath,
    )
    verb.add_argument(
        "--spent",
        nargs="+",
        action="extend",
        default=[],
        metavar="ROW:SECONDS[:SHARE]",
        help="what the labels or the cache of a row took, for its learning curve against time on the page; and its "
        "share of that, where other rows use them too",
    )
    verb.set_defaults(run=_run_report)


def _spent(items: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of rows, and the shares of those that have one."""
    from nemo_distill.errors import InputError

    spent, shares, number = {}, {}, r"(\d{1,12}(?:\.\d{1,6})?)"
    for item in items:
        match = re.fullmatch(rf"([^:]+):{number}(?::{number})?", item)
        if match is None:
            raise InputError(
                f"--spent: got '{item}'; give a row and its seconds, as in hinton:1800, and a share: hinton:1800:600"
            )
        label, seconds, share = match.groups()
        if label in spent:
            raise InputError(f"--spent: '{label}' comes twice; give the sum")
        spent[label] = float(seconds)
        if share is not None:
            shares[label] = float(share)
    return spent, shares


def _twins(pairs: list[str]) -> dict[str, str]:
    from nemo_distill.errors import InputError

    for pair in pairs:
        if len(pair.split(":")) != 2:
            raise InputError(f"--twins: got '{pair}'; give two labels of rows, as in hinton_started:plain_started")
    twins = dict(pair.split(":") for pair in pairs)
    if len(twins) < len(pairs):
        raise InputError(f"--twins: got {', '.join(pairs)}; give one twin for a row")
    return twins


def _run_report(args: argparse.Namespace) -> None:
    from nemo_distill.evaluation.report import find_or_write

    spent, shares = _spent(args.spent)
    report, was_finished = find_or_write(
        args.results,
        args.output_dir,
        args.format,
        teacher=args.teacher,
        plain=args.plain,
        overwrite=args.overwrite,
        layout=args.layout,
        twins=_twins(args.twins),
        train=[tuple(pair) for pair in args.train],
        speed=args.speed,
        spent=spent,
        shares=shares,
    )
    print(report.markdown())
    if "page" in args.format:
        print(f"{args.output_dir}/report.html shows where each student is worse than {report.standard}, in a browser")
    print(_state(args.output_dir, was_finished))
