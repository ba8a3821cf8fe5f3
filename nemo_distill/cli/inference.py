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
"""The verbs of `nemo-distill` around inference. Imports nothing heavy, so `--help` is quick."""

import argparse

from nemo_distill.decoding.engine import ENGINES, QUANTIZATIONS


def add_engine(verb: argparse.ArgumentParser) -> None:
    """Add the options that choose what decodes."""
    verb.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what decodes; default: CTranslate2 for the models that convert, NeMo's modules for the others",
    )
    verb.add_argument(
        "--quantization", metavar="TYPE", help=f"for CTranslate2: {', '.join(QUANTIZATIONS)}; default: float32"
    )


def add_models(verb: argparse.ArgumentParser, note: str = "") -> None:
    """Add the options that name models."""
    verb.add_argument(
        "--model", required=True, nargs="+", action="extend", metavar="FILE", help=f".nemo archives{note}"
    )
    verb.add_argument(
        "--names",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="labels of the models, name@seed1 for one of several seeds; default: file names",
    )


def add_decoding(verb: argparse.ArgumentParser) -> None:
    """Add the options that say how to decode."""
    verb.add_argument(
        "--beam-size", type=int, metavar="N", help="hypotheses while decoding; default: each model's own"
    )
    add_batch_tokens(verb)
    verb.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")


def add_batch_tokens(verb: argparse.ArgumentParser) -> None:
    """Add the option that bounds a batch."""
    verb.add_argument(
        "--batch-tokens", type=int, default=4096, metavar="N", help="source tokens in a batch, padded; default: 4096"
    )


def add_wait_minutes(verb: argparse.ArgumentParser) -> None:
    """Add the option that bounds the wait for other processes."""
    verb.add_argument(
        "--wait-minutes",
        type=float,
        default=60.0,
        metavar="N",
        help="under torchrun: how long the first process waits for the next shard of another; default: 60",
    )


def add_trust(verb: argparse.ArgumentParser) -> None:
    """Add the option that lifts the limits on what an archive may name."""
    verb.add_argument(
        "--trust-archive",
        action="store_true",
        help="the .nemo archives are your own: they may name classes of yours, and so run code",
    )


def add_export(subparsers) -> None:
    """Add `nemo-distill export`."""
    verb = subparsers.add_parser(
        "export",
        help="write a model for deployment with CTranslate2, without NeMo",
        description="Convert a model to CTranslate2 and write it into a directory with its tokenizers and a README.md "
        "that holds a working program: raw text in, raw text out, with CTranslate2 and the tokenizer alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    verb.add_argument("--model", required=True, metavar="FILE", help=".nemo archive")
    verb.add_argument("--output-dir", required=True, metavar="DIR", help="is made; must not hold anything yet")
    verb.add_argument("--quantization", default="float32", metavar="TYPE", help=f"one of {', '.join(QUANTIZATIONS)}")
    verb.add_argument("--overwrite", action="store_true", help="replace an earlier export there")
    add_trust(verb)
    verb.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    from nemo_distill.decoding.exporting import PAGE_NAME, export

    content = export(args.model, args.output_dir, args.quantization, args.overwrite)
    print(
        f"{args.output_dir}: {content['archive']} in {content['quantization']}; "
        f"{args.output_dir}/{PAGE_NAME} shows how to use it"
    )


def add_speed(subparsers) -> None:
    """Add `nemo-distill speed`."""
    verb = subparsers.add_parser(
        "speed",
        help="measure models with each engine: sentences per second, latency, size, BLEU",
        description="Translate one test set with each model and each engine, and write one table of BLEU, sentences "
        "per second, latency of single sentences and size on disk. Leave the machine alone meanwhile.",
    )
    add_models(verb)
    verb.add_argument("--test", required=True, metavar="NAME:SOURCE:TARGET", help="a name and two aligned text files")
    verb.add_argument("--output-dir", required=True, metavar="DIR", help="gets speed.md and speed.json")
    verb.add_argument(
        "--engines",
        nargs="+",
        default=["nemo", "float32", "int8"],
        metavar="ENGINE",
        help=f"nemo, or CTranslate2 by the type of its weights ({', '.join(QUANTIZATIONS)}); "
        "default: nemo float32 int8",
    )
    add_decoding(verb)
    verb.add_argument(
        "--latency-sentences", type=int, default=100, metavar="N", help="sentences decoded one by one; default: 100"
    )
    verb.add_argument("--overwrite", action="store_true", help="replace an earlier measurement there")
    add_trust(verb)
    verb.set_defaults(run=_run_speed)


def _run_speed(args: argparse.Namespace) -> None:
    from nemo_distill.evaluation.speed import measure_speed

    result = measure_speed(
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
    )
    print(result.markdown())
    print(f"written to {args.output_dir}")
