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
"""The verbs of `nemo-distill` around pseudo-labels. Imports nothing heavy, so `--help` is quick."""

import argparse
from pathlib import Path


def add_leak_check(subparsers) -> None:
    """Add `nemo-distill leak-check`."""
    verb = subparsers.add_parser(
        "leak-check",
        help="look for test sentences in training text",
        description="Compare every line of the training text with every line of the test sets, without case, "
        "punctuation and differences of white space, and print how many are the same. Exit status 0 whatever is "
        "found, unless --fail is given.",
    )
    verb.add_argument(
        "--train", required=True, nargs="+", action="extend", metavar="FILE", help="training text, any language"
    )
    verb.add_argument(
        "--test", required=True, nargs="+", action="extend", metavar="FILE", help="test text, any language"
    )
    _add_ngram(verb)
    verb.add_argument("--report", metavar="FILE", help="write every line found there, as tab-separated text")
    verb.add_argument("--overwrite", action="store_true", help="replace the file of --report")
    verb.add_argument("--fail", action="store_true", help="exit with status 1 if anything is found")
    verb.set_defaults(run=_run_leak_check)


def _add_ngram(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--ngram",
        type=int,
        default=0,
        metavar="N",
        help="count lines that share N words in a row with a test line too, 8 for instance; default: 0, off",
    )


def _run_leak_check(args: argparse.Namespace) -> int:
    from nemo_distill.data.leak_check import check_leaks
    from nemo_distill.errors import InputError

    if args.report and Path(args.report).exists() and not args.overwrite:
        raise InputError(f"--report '{args.report}' exists; give another name, or --overwrite")
    report = check_leaks(args.train, args.test, args.ngram)
    if args.report:
        report.write(args.report)
    print(report.table())
    print(f"{report.leaks} leaked lines" if report.leaks else "no leaked line")
    return 1 if args.fail and report.leaks else 0
