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
"""The verb of `nemo-distill` that stores what a teacher says: cache. Imports nothing heavy, so `--help` is quick."""

import argparse
from pathlib import Path

from nemo_distill.cli.options import (
    InputDirectory,
    OutputDirectory,
    add_batch_tokens,
    add_force,
    add_languages,
    add_output_dir,
    add_paths,
    add_sharing,
    add_teachers,
    add_trust,
    languages,
    read_share,
)
from nemo_distill.decoding.engine import check_counts
from nemo_distill.errors import InputError


def add_cache(subparsers) -> None:
    """Add `nemo-distill cache`."""
    verb = subparsers.add_parser(
        "cache",
        help="write a teacher's outputs for a training text, so that students train without it",
        description="For every target token of a training text, write the teacher's k best logits and the exact "
        "normaliser at each temperature. Students train from the directory with `distillation.teacher: {cache: DIR}`. "
        "A run that was interrupted goes on where it stopped; a finished one is verified and left alone. Under "
        "torchrun the processes share the work.",
    )
    add_teachers(verb, "the mean is cached")
    add_paths(verb, "--source", "source text of the training, one sentence a line")
    add_paths(verb, "--target", "target text, a file for each source")
    verb.add_argument(
        "--processed",
        action="store_true",
        help="the text of --source and --target is tokenized already, as the teacher's training text; by default the "
        "teacher's processors do it, if it has any",
    )
    labels = "directories of `nemo-distill pseudo-label` that are trained on, beside or in place of --source"
    add_paths(verb, "--labels", labels, metavar="DIR", kind=InputDirectory)
    add_output_dir(verb, "gets the cache and manifest.json", "another cache in the output directory")
    verb.add_argument(
        "--top-k", type=int, default=24, metavar="K", help="best words kept of each distribution; default: 24"
    )
    verb.add_argument(
        "--sampled",
        type=int,
        default=0,
        metavar="N",
        help="words drawn from all others, with weights that make the gradient that of the whole distribution in the "
        "mean; for temperatures above 1; default: 0",
    )
    verb.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="T",
        help="all temperatures to train at; each costs 2 bytes a token; default: 1",
    )
    verb.add_argument(
        "--max-seq-length",
        type=int,
        metavar="N",
        help="leave out longer pairs, in tokens with BOS and EOS; default: those that the teacher cannot take",
    )
    verb.add_argument("--precision", default="fp32", help="of the teacher: fp32, bf16 or fp16; default: fp32")
    add_batch_tokens(verb, "tokens of source and target")
    verb.add_argument(
        "--shard-tokens", type=int, default=1_000_000, metavar="N", help="in a shard, about; default: 1000000"
    )
    verb.add_argument(
        "--token-store",
        type=OutputDirectory,
        metavar="DIR",
        help="where token ids lie or are put, such as a student's model.train_ds.token_store; default: tokens in the "
        "output directory, of a large text",
    )
    add_sharing(verb)
    add_force(verb)
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_cache, check=_settings)


def _settings(args: argparse.Namespace):
    """Return what decides the content of the cache, beside teacher and text."""
    from nemo_distill.teachers.cache_settings import CacheSettings

    check_counts(None, args.batch_tokens)
    temperatures = tuple(args.temperatures)
    return CacheSettings(
        args.top_k, temperatures, args.precision, args.max_seq_length, args.shard_tokens, args.sampled
    )


def _run_cache(args: argparse.Namespace) -> None:
    if len(args.source) != len(args.target) or not (args.source or args.labels):
        raise InputError(
            f"got {len(args.source)} files in --source and {len(args.target)} in --target; give one target file for "
            "each source file, or --labels"
        )
    settings = _settings(args)
    from nemo_distill.config.mixture import ComponentConfig
    from nemo_distill.data.checks import changed_label_faults
    from nemo_distill.data.forms import PROCESSED, RAW
    from nemo_distill.evaluation.inputs import check_settings
    from nemo_distill.support.manifest import MANIFEST, is_unfinished, refuse_inputs_as_outputs
    from nemo_distill.support.quoting import size_text
    from nemo_distill.teachers.cache_format import LogitCache
    from nemo_distill.teachers.cache_writer import write_cache

    refuse_inputs_as_outputs([Path(each, MANIFEST) for each in args.labels], [Path(args.output_dir, MANIFEST)])
    for directory in filter(is_unfinished, args.labels):
        raise InputError(f"the labels in '{directory}' are unfinished; run the command that makes them again")
    if faults := [fault for directory in args.labels for fault in changed_label_faults("--labels", directory)]:
        raise InputError("\n  ".join(faults))
    spoken = (args.target_lang or "").split(",")
    if len(spoken) > 1:  # of a one-to-many teacher, one for each pair of files
        args.target_lang = None
    else:
        spoken = []
    labels = [ComponentConfig(directory=each).text_files for each in args.labels]
    texts = [*([pair] for pair in zip(args.source, args.target, strict=True)), *labels]
    if len(spoken) == len(texts):
        spoken = [language for language, pairs in zip(spoken, texts, strict=True) for _ in pairs]
    share = read_share(args)
    manifest, was_finished = write_cache(
        args.teacher,
        list(zip(args.source, args.target, strict=True)),
        args.output_dir,
        settings,
        labels=[pair for pairs in labels for pair in pairs],
        form=PROCESSED if args.processed else RAW,
        languages=languages(args),
        batch_tokens=args.batch_tokens,
        device=check_settings(None, args.batch_tokens, args.device),
        target_languages=spoken,
        share=share,
        overwrite=args.overwrite,
        force=args.force,
        token_store=args.token_store,
        announce=lambda text: print(text, flush=True),
    )
    if share.rank > 0:
        return
    state = "already there, hashes verified" if was_finished else "written"
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in manifest["left_out"].items())
    size = sum(manifest["bytes"].values())
    print(
        f"{args.output_dir}: {manifest['pairs']} pairs (left out: {left_out}), {manifest['tokens']} tokens, "
        f"{size_text(size)}, {size / manifest['tokens']:.1f} bytes a token ({state})"
    )
    if args.sampled:
        cache = LogitCache(args.output_dir, verify=False)
        noise = ", ".join(f"{cache.gradient_noise(each):.2f} at {each:g}" for each in cache.temperatures)
        print(
            f"noise of the draws in a token's gradient, where that of the labels is about 1, by temperature: {noise}"
        )
