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
"""The verb `nemo-distill init`. Imports nothing heavy, so `--help` is quick."""

import argparse
import json

from nemo_distill.cli.options import (
    OR_NAME,
    Archive,
    InputFile,
    OutputFile,
    add_languages,
    add_overwrite,
    add_trust,
    languages,
)


def add_init(subparsers) -> None:
    """Add `nemo-distill init`."""
    verb = subparsers.add_parser(
        "init",
        help="write a student that starts from its teacher's layers",
        description="Write a student that starts from its teacher's layers, without training it, and print where each "
        "tensor came from. A MAP is every_nth (0, 8, 16 of 24 layers), every_nth_last (7, 15, 23), first, last, the "
        "teacher layer of each student layer ('[0, 8, 16]'), pairs ('[[0, 0], [2, 23]]') or none.",
    )
    verb.add_argument(
        "--teacher",
        required=True,
        type=Archive,
        metavar="FILE",
        help=f".nemo archive, {OR_NAME}; the tokenizers come along",
    )
    verb.add_argument(
        "--student",
        required=True,
        type=InputFile,
        metavar="FILE",
        help="YAML file of the student's model: what differs from the teacher, a file of configs/model, or a run's "
        "config.yaml",
    )
    verb.add_argument("--output", required=True, type=OutputFile, metavar="FILE", help=".nemo archive to write")
    verb.add_argument("--layers", default="every_nth", metavar="MAP", help="of both sides; default: every_nth")
    verb.add_argument("--encoder", default="same", metavar="MAP", help="of the encoder; default: same as --layers")
    verb.add_argument("--decoder", default="same", metavar="MAP", help="of the decoder; default: same as --layers")
    verb.add_argument("--no-embeddings", action="store_true", help="leave embeddings, final norms and head at random")
    verb.add_argument(
        "--width",
        choices=["project"],
        help="project: a slimmer student takes the directions that weigh most; default: off",
    )
    verb.add_argument("--seed", type=int, default=1, help="of what stays random; default: 1")
    add_overwrite(verb, "the file of --output")
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_init)


def _run_init(args: argparse.Namespace) -> None:
    from nemo_distill.config.layers import InitConfig
    from nemo_distill.errors import InputError

    config = InitConfig(
        from_teacher=_layer_map(args.layers),
        encoder=_layer_map(args.encoder),
        decoder=_layer_map(args.decoder),
        embeddings=not args.no_embeddings,
        width=args.width,
    )
    if config.from_teacher is None:
        raise InputError("--layers none copies no layers; give --encoder none or --decoder none for one side")
    faults = config.faults("init", {})
    if faults:
        raise InputError("; ".join(faults))
    from nemo_distill.students.initial_student import find_or_write

    settings = config, args.seed, args.overwrite, languages(args)
    report, was_finished = find_or_write(args.teacher, args.student, args.output, *settings)
    if not was_finished:
        print(report)
    state = " (already there, hash verified)" if was_finished else ""
    print(f"{args.output}: {len(report.copied)} of {len(report.shapes)} tensors from {args.teacher}{state}")


def _layer_map(text: str) -> str | list | None:
    if text == "none":
        return None
    try:
        return json.loads(text) if text.startswith("[") else text
    except json.JSONDecodeError:
        return text  # refused with all other faults
