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

Exit status: 0 done, 2 bad input (one line says what and how to mend it), 130 interrupted, 1 any other failure.
"""

import argparse
import sys

from nemo_distill import __version__
from nemo_distill.archives.reader import trusted_archives
from nemo_distill.cli.data import add_corpus, add_preprocess, add_tokenizer, add_tokens
from nemo_distill.cli.decoding import add_export, add_translate
from nemo_distill.cli.evaluation import add_evaluate, add_report, add_speed
from nemo_distill.cli.first_steps import first_steps
from nemo_distill.cli.jobs import add_plan, add_run, add_status
from nemo_distill.cli.labels import add_leak_check, add_pseudo_label, add_select
from nemo_distill.cli.options import check_paths, find_archives
from nemo_distill.cli.students import add_init
from nemo_distill.cli.teachers import add_cache
from nemo_distill.errors import reported_errors
from nemo_distill.support.children import end_with_parent


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. Imports nothing heavy, so `--help` is quick."""
    description = "Prepare data, distil, evaluate, deploy. Without a verb: what to do first."
    parser = argparse.ArgumentParser(prog="nemo-distill", description=description)
    parser.add_argument("--version", action="version", version=f"nemo-distill {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for add_verb in (
        add_corpus,
        add_tokenizer,
        add_preprocess,
        add_tokens,
        add_init,
        add_leak_check,
        add_pseudo_label,
        add_select,
        add_cache,
        add_evaluate,
        add_report,
        add_export,
        add_translate,
        add_speed,
        add_plan,
        add_run,
        add_status,
    ):
        add_verb(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status. Without one say what to do first, with the status of bad input."""
    end_with_parent()
    if hasattr(sys.stdout, "reconfigure"):  # a table's signs, in a locale that lacks them
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = build_parser()
    if not (sys.argv[1:] if argv is None else argv):
        print(first_steps(parser))
        return 2
    args = parser.parse_args(argv)
    try:
        with reported_errors(f"nemo-distill {args.verb}"), trusted_archives(getattr(args, "trust_archive", False)):
            check_paths(args)
            find_archives(args)
            return args.run(args) or 0
    except SystemExit as end:
        return end.code
