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
"""The verbs of `nemo-distill` that make a model ready to deploy, and that use one: export, translate. Imports nothing
heavy.
"""

import argparse

from nemo_distill.cli.options import (
    FOREIGN,
    OR_NAME,
    Archive,
    InputFile,
    Model,
    OutputFile,
    add_decoding,
    add_engine,
    add_languages,
    add_output_dir,
    add_overwrite,
    add_trust,
    languages,
)
from nemo_distill.decoding.engine import QUANTIZATIONS, check_counts, check_engine, check_quantization
from nemo_distill.errors import InputError


def add_export(subparsers) -> None:
    """Add `nemo-distill export`."""
    verb = subparsers.add_parser(
        "export",
        help="write a model for deployment with CTranslate2, without NeMo",
        description="Convert a model to CTranslate2 and write it into a directory with its tokenizers and a "
        "program: raw text in, raw text out, with CTranslate2 and the tokenizer alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    verb.add_argument("--model", required=True, type=Archive, metavar="FILE", help=f".nemo archive, {OR_NAME}")
    add_output_dir(verb, "is made; must hold nothing else", "an earlier export there")
    verb.add_argument("--quantization", default="float32", metavar="TYPE", help=f"one of {', '.join(QUANTIZATIONS)}")
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    check_quantization(args.quantization)
    languages(args)
    from nemo_distill.decoding.export_record import PAGE_NAME
    from nemo_distill.decoding.exporting import export_or_find

    content, was_finished = export_or_find(
        args.model, args.output_dir, args.quantization, args.overwrite, languages(args)
    )
    state = "already there, hashes verified" if was_finished else "written"
    print(
        f"{args.output_dir}: {content['archive']} in {content['request']['quantization']}, {state}; "
        f"{args.output_dir}/{PAGE_NAME} shows how to use it"
    )


def add_translate(subparsers) -> None:
    """Add `nemo-distill translate`."""
    verb = subparsers.add_parser(
        "translate",
        help="translate standard input, or a file, line by line",
        description="Translate text line by line with any model. Standard input is translated as it comes: lines that "
        "are there at once together, and whoever writes a line and waits gets its translation.",
    )
    verb.add_argument("model", type=Model, metavar="MODEL", help=f".nemo archive, {OR_NAME}, or the {FOREIGN}")
    verb.add_argument(
        "--input", type=InputFile, metavar="FILE", help="text, plain, .gz or .zst; default: standard input"
    )
    verb.add_argument("--output", type=OutputFile, metavar="FILE", help="plain, .gz or .zst; default: standard output")
    add_overwrite(verb, "the file of --output")
    verb.add_argument(
        "--n-best", type=int, metavar="N", help="write so many hypotheses of each line, with scores, as JSON lines"
    )
    add_decoding(verb)
    add_engine(verb, "the models that convert")
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_translate)


def _run_translate(args: argparse.Namespace) -> None:
    check_engine(args.engine, args.quantization)
    check_counts(args.beam_size, args.batch_tokens)
    if args.n_best is not None and args.n_best < 1:
        raise InputError(f"n-best is {args.n_best}; give at least 1")
    if args.overwrite and args.output is None:
        raise InputError("--overwrite is for --output; leave it out")
    given = languages(args)
    from nemo_distill.decoding.translating import LineSettings, translate_text

    settings = LineSettings(
        args.model,
        args.engine,
        args.quantization,
        args.device,
        given,
        args.beam_size,
        args.n_best,
        args.batch_tokens,
    )
    try:
        translate_text(settings, args.input, args.output, args.overwrite)
    except KeyboardInterrupt:  # as it ends: nothing is half done
        raise SystemExit(130) from None
