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
"""Options of `nemo-distill run` for Slurm, and what hands a job over to it. Imports nothing heavy."""

import argparse
import shlex
from typing import TYPE_CHECKING

from nemo_distill.errors import InputError

if TYPE_CHECKING:
    from nemo_distill.jobs.graph import Graph
    from nemo_distill.jobs.noted import Stage
    from nemo_distill.jobs.slurm_scripts import SlurmSettings

LAST = ("report", "export")
"""Stages that wait for the scores."""
_LOCAL, _SLURM = "local", "slurm"
_OPTIONS = ("partition", "account", "gpus", "nodes", "train_gpus", "train_nodes", "time_factor", "sbatch_option")


def add_slurm(verb: argparse.ArgumentParser) -> None:
    """Add what says where the stages run; the options of `SlurmSettings` have its names."""
    verb.add_argument(
        "--executor", choices=(_LOCAL, _SLURM), default=_LOCAL, help="where the stages run; default: on this machine"
    )
    verb.add_argument("--finish", action="store_true", help="report and export alone: what the last job of Slurm does")
    group = verb.add_argument_group("with --executor slurm", "Each stage is a job; docs/cluster.md says more.")
    for name, kind, metavar, about in (
        ("partition", str, "NAME", "of all jobs"),
        ("account", str, "NAME", "of all jobs"),
        ("gpus", int, "N", "of a node, for labels, caches and scores; default: as the plan that was kept, else 1"),
        ("nodes", int, "M", "for these; default: as the plan, else 1"),
        ("train-gpus", int, "N", "of a node, for each training on GPUs; default: 1"),
        ("train-nodes", int, "M", "for each training; default: 1"),
        ("time-factor", float, "X", "time limits as a multiple of the plan's times, and ten minutes; default: 2"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=about)
    group.add_argument(
        "--sbatch-option",
        action="append",
        metavar="KEY=VALUE",
        help="any other option of sbatch for all jobs, such as mem=64G or time=12:00:00; may be repeated",
    )


def slurm_settings(args: argparse.Namespace) -> "SlurmSettings | None":
    """Return what to ask Slurm for; None: the stages run here."""
    from nemo_distill.jobs.slurm_scripts import SlurmSettings

    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if args.executor == _LOCAL:
        if given:
            raise InputError(f"--{min(given).replace('_', '-')} is for --executor slurm; add that")
        return None
    if args.finish:
        raise InputError("--finish: is what the last job of Slurm does itself; leave it or --executor slurm out")
    if args.jobs is not None:
        raise InputError(f"--jobs: got {args.jobs}; Slurm runs side by side what it has room for, so leave it out")
    return SlurmSettings(options=tuple(given.pop("sbatch_option", ())), **given)


def submit_job(args: argparse.Namespace, graph: "Graph", stages: "list[Stage]", settings: "SlurmSettings") -> bool:
    """Hand to Slurm what has not finished, and return whether anything of the job is there."""
    import hashlib

    from nemo_distill.jobs.running import verb_command
    from nemo_distill.jobs.slurm import Rest, submit_stages
    from nemo_distill.jobs.slurm_records import SLURM_DIR
    from nemo_distill.support.incoming import read_yaml_text

    out, inputs, recipe = graph.directory, graph.inputs(), []
    if args.recipe is not None:  # as it is now: when the last stages run, it may say something else
        copy = out / SLURM_DIR / "recipe.yaml"
        inputs, recipe = {**inputs, copy: read_yaml_text(args.recipe)}, [str(copy)]
    command = verb_command("run", *recipe, "--output-dir", str(out), "--finish")
    for name in ("corpus", "source", "target"):
        command += [f"--{name}", str(getattr(args, name))] if getattr(args, name) is not None else []
    for name in ("teacher", "unlabelled"):
        command += [f"--{name}", *map(str, getattr(args, name))] if getattr(args, name) else []
    command += ["--set", *args.set] if args.set else []
    command += ["--trust-archive"] if args.trust_archive else []
    names = LAST if graph.recipe.export is not None else LAST[:1]
    rest = Rest(names, command, hashlib.sha256(repr(graph.recipe).encode()).hexdigest())
    jobs = submit_stages(stages, out, settings, rest, inputs)
    if not jobs and (export := graph.export_stage(stages)) is not None:
        jobs = submit_stages([*stages, export], out, settings)
    if jobs:
        print(f"Jobs in Slurm: {len(jobs)}. How far they are: nemo-distill status {shlex.quote(str(out))}")
        print(f"The same command hands over again what has failed. To end all: scancel {' '.join(jobs)}")
    return bool(jobs)
