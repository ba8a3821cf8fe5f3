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
"""The verb of `nemo-distill` that makes a model ready to deploy: export. Imports nothing heavy."""

import argparse

from nemo_distill.cli.options import OR_NAME, Archive, add_languages, add_output_dir, add_trust, languages
from nemo_distill.decoding.engine import QUANTIZATIONS, check_quantization


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
