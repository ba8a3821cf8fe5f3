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
"""The verbs of `nemo-distill` that do several others' work as one job: plan, run, status. Imports nothing heavy."""

import argparse
import contextlib
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_distill.cli.options import (
    Corpus,
    GivenPath,
    InputDirectory,
    InputFile,
    Model,
    OutputDirectory,
    OutputFile,
    add_trust,
)
from nemo_distill.cli.slurm import LAST, add_slurm, slurm_settings, submit_job
from nemo_distill.errors import InputError

if TYPE_CHECKING:
    from nemo_distill.jobs.graph import Graph
    from nemo_distill.jobs.noted import Stage

_SAMPLES = 5


def add_run(subparsers) -> None:
    """Add `nemo-distill run`."""
    verb = subparsers.add_parser(
        "run",
        help="do a whole job: labels, caches, students, scores, table, export, as a recipe says",
        description="Do what a recipe in YAML says: tokenizer and teacher where none is given, labels, caches, a "
        "plain twin, students, the table, an export. Each stage is one command, printed before it runs; what has "
        "finished is not done again, so the same command goes on after anything. Without a recipe: --teacher and "
        "--corpus, or --corpus alone, which trains a teacher first.",
    )
    _add_job(verb)
    add_slurm(verb)
    verb.set_defaults(run=_run_job)


def _add_job(verb: argparse.ArgumentParser) -> None:
    """Add what says which job is meant, to a verb that does or plans it."""
    verb.add_argument(
        "recipe",
        nargs="?",
        type=InputFile,
        metavar="RECIPE",
        help="YAML file, see docs/jobs.md; default: see there",
    )
    verb.add_argument(
        "--corpus", type=Corpus, metavar="DIR", help="in place of the recipe's; or ui-strings, which is fetched"
    )
    verb.add_argument(
        "--unlabelled",
        type=InputFile,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="text in the source language that has no translations, for the teacher to translate; in place of the "
        "recipe's",
    )
    verb.add_argument(
        "--teacher",
        type=Model,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="in place of the recipe's; or the directory of a model that is not NeMo's",
    )
    verb.add_argument("--source", metavar="CODE", help="source language, the suffix of the corpus's files")
    verb.add_argument("--target", metavar="CODE", help="target language")
    verb.add_argument(
        "--output-dir", type=OutputDirectory, metavar="DIR", help="where everything goes; default: runs/ and the names"
    )
    verb.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="stages side by side, each on its share of the cores; default: as many as fit, of cores and memory, or "
        "one where there is a GPU",
    )
    verb.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="another value for a key of the recipe, such as student.steps=100",
    )
    add_trust(verb)


def add_plan(subparsers) -> None:
    """Add `nemo-distill plan`."""
    verb = subparsers.add_parser(
        "plan",
        help="measure what a job will cost: time, disk, memory, of each stage",
        description="Measure what each stage of a recipe will cost on this machine, by short runs of its very "
        "command, and what would make the longest one cheaper. Nothing is written into the "
        "output directory but by --save.",
    )
    _add_job(verb)
    verb.add_argument("--gpus", type=int, default=1, metavar="N", help="of a node, for the scaled times; default: 1")
    verb.add_argument("--nodes", type=int, default=1, metavar="M", help="for the scaled times; default: 1")
    verb.add_argument("--price", type=float, metavar="EUR", help="of a GPU and hour")
    verb.add_argument(
        "--limit", type=float, default=170.0, metavar="S", help="seconds to measure for, about; default: 170"
    )
    verb.add_argument("--json", type=OutputFile, metavar="FILE", help="write the plan there, too")
    verb.add_argument(
        "--save", action="store_true", help="keep it in the output directory; `run` compares at its end what came true"
    )
    verb.set_defaults(run=_run_plan)


def _run_plan(args: argparse.Namespace) -> None:
    import dataclasses
    import math

    from nemo_distill.jobs.costs import PLAN_NAME, table_of
    from nemo_distill.jobs.noted import stage_keys
    from nemo_distill.jobs.planning import plan_job
    from nemo_distill.jobs.running import ended_by_signals
    from nemo_distill.support.files import make_directory, write_json_atomic, write_text_atomic

    for option in ("gpus", "nodes", "limit", "price"):
        value = getattr(args, option)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{option}: got {value}; give a number above 0")
    _check_plan_file(args.json)
    graph = _graph(args)
    with ended_by_signals():
        plan = plan_job(graph, _jobs(args, graph), args.gpus * args.nodes, args.price, args.limit, args.nodes)
    plan.keys = stage_keys(graph.stages(), graph.directory)
    print(table_of(plan))
    if args.json is not None:
        write_json_atomic(Path(args.json), dataclasses.asdict(plan))
    if args.save:
        make_directory(graph.directory)
        write_json_atomic(graph.directory / PLAN_NAME, dataclasses.asdict(plan))
        if graph.choice is not None:
            write_text_atomic(graph.choice_path(), graph.choice.text())


def _check_plan_file(path: str | None) -> None:
    """Refuse to replace anything but an earlier plan."""
    from nemo_distill.jobs.costs import plan_from
    from nemo_distill.support.incoming import read_json

    if path is None or not os.path.lexists(path):
        return
    try:
        plan_from(read_json(Path(path)), path)
    except InputError as error:
        raise InputError(f"--json: '{path}' is there, and is no plan of this version; give another name") from error


def _run_job(args: argparse.Namespace) -> None:
    from nemo_distill.jobs.stages import run_stages
    from nemo_distill.support.text_files import read_lines

    start = time.monotonic()
    settings = slurm_settings(args)
    graph = _graph(args)
    out = graph.directory
    stages = graph.stages()
    if settings is not None:
        if submit_job(args, graph, stages, settings):
            return
        export = graph.export_stage(stages)
    else:
        jobs, only = _jobs(args, graph), LAST if args.finish else None
        print(_forecast(graph, stages, jobs), flush=True)
        run_stages(stages, out, jobs, graph.inputs(), only)
        export = graph.export_stage(stages)
        if export is not None:
            run_stages([*stages, export], out, jobs, graph.inputs(), only, told=[stage.name for stage in stages])
    print("\n" + "\n".join(read_lines(out / "report" / "report.md")))
    _show_samples(graph)
    _show_comparison(out, stages)
    print(f"\nPlot: {out / 'report' / 'quality_vs_size.png'}")
    if export is not None:
        print(f"To deploy: {export.result.parent}, made of {export.needs[0]}")
    print(f"Everything is under {out}; this took {(time.monotonic() - start) / 60:.1f} minutes.")


def _graph(args: argparse.Namespace) -> "Graph":
    """Return the job that is meant."""
    from nemo_distill.jobs.architecture import StartError
    from nemo_distill.jobs.graph import Graph
    from nemo_distill.jobs.recipe import read_recipe

    for option in ("teacher", "unlabelled"):
        for each in map(str, getattr(args, option) or ()):
            if Path(each).suffix in (".yaml", ".yml"):
                raise InputError(f"--{option}: '{each}' is a recipe, by its name; give the recipe first")
    if args.recipe is None and args.corpus is None:
        raise InputError("give a recipe, or --teacher and --corpus, or --corpus alone")
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs: got {args.jobs}; give at least 1")
    given = {key: getattr(args, key) for key in ("corpus", "source", "target") if getattr(args, key) is not None}
    for key in ("teacher", "unlabelled"):
        if getattr(args, key) is not None:
            given[key] = [str(each) for each in getattr(args, key)]
    given = {key: _plain(each) for key, each in given.items()}
    recipe = read_recipe(args.recipe and Path(args.recipe), given, args.set)
    out = Path(args.output_dir or _default_directory(args, given))
    out = Path.cwd() if out == Path() else out  # paths in it have no beginning by which they are the job's
    try:
        graph = Graph(recipe, out, args.trust_archive)
    except StartError as error:
        if args.recipe is not None:
            raise
        print(f"the student starts at random: {error}", flush=True)
        graph = Graph(read_recipe(None, given, args.set, starts=False), out, args.trust_archive)
    if args.recipe is None and graph.foreign is not None:
        runs, size = ", ".join(recipe.runs), graph.student.model
        print(f"the teacher is not NeMo's and gives labels alone: the default runs are {runs}, of {size}", flush=True)
    _check_values(graph)
    on_cluster = getattr(args, "executor", None) == "slurm"
    for note in [*graph.notes, *graph.leaks(), *_on_cpu(graph, on_cluster)]:
        print(note, flush=True)
    if graph.choice is not None:
        print(graph.choice.words(), flush=True)
    elif graph.size is not None:
        print(f"student: {graph.size.words()}", flush=True)
    return graph


def _on_cpu(graph: "Graph", on_cluster: bool) -> list[str]:
    """Return a line on trainings on the CPU, where nothing says that they are to be there, and there may be GPUs."""
    from nemo_distill.jobs.devices import has_gpu, trainer_of
    from nemo_distill.jobs.running import is_training

    if not (on_cluster or has_gpu()):
        return []
    if all(trainer_of(stage.command) for stage in graph.stages() if is_training(stage.command)):
        return []
    own = [f'"{each}"' if "," in str(each) else str(each) for each in graph.recipe.overrides]
    overrides = ",".join([*own, "trainer=gpu"])
    return [
        "trainings of this job are on the CPU, as no override says otherwise; to train on GPUs: "
        f"--set 'overrides=[{overrides}]'; to be told no more: trainer=cpu in its place"
    ]


def _check_values(graph: "Graph") -> None:
    """Refuse values that a stage would refuse, hours from now it may be."""
    from nemo_distill.cli.labels import add_pseudo_label, add_select
    from nemo_distill.cli.teachers import add_cache
    from nemo_distill.jobs.running import essence
    from nemo_distill.jobs.values import check_bleu, check_scores, check_trainings

    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers()
    for add_verb in (add_pseudo_label, add_select, add_cache):  # those whose options a recipe gives
        add_verb(verbs)
    stages = graph.stages()
    for stage in stages:
        script, *arguments = essence(stage.command)
        if script != "-m" or arguments[1] not in verbs.choices:
            continue
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                args = parser.parse_args(arguments[1:])
            args.check(args)
        except SystemExit:  # with what argparse says
            fault = said.getvalue().strip().splitlines()[-1].partition("error: ")[2]
            raise InputError(f"stage {stage.name}: {fault}") from None
        except InputError as error:
            raise InputError(f"stage {stage.name}: {error}") from error
    check_bleu(graph)
    check_scores(graph.recipe)
    check_trainings(graph.recipe, stages)


def _jobs(args: argparse.Namespace, graph: "Graph") -> int:
    """Return how many stages are to run side by side."""
    from nemo_distill.jobs.side_by_side import fitting_jobs

    return args.jobs or fitting_jobs(graph.teacher_files)


def _forecast(graph: "Graph", stages: Sequence["Stage"], jobs: int) -> str:
    """Return how long a job will take, by the plan that was kept, or how to learn it."""
    from nemo_distill.jobs.costs import kept_plan, time_left
    from nemo_distill.jobs.noted import stage_keys

    plan, count = kept_plan(graph.directory), len(stages)
    together = f"{count} stages, {jobs} side by side" if jobs > 1 else f"{count} stages"
    together += ", then an export" if graph.recipe.export is not None else ""
    if plan is None:
        return f"{together}; `nemo-distill plan` with the same options says how long they take"
    if not plan.is_of(stage_keys(stages, graph.directory)):
        return f"{together}; the plan that was kept is of other settings: `nemo-distill plan --save` makes it anew"
    return f"{together}; by the plan that was kept {time_left(plan, graph.finished(stages))}"


def _show_comparison(out: Path, stages: Sequence["Stage"]) -> None:
    """Print what a plan that was kept predicted, and what came true."""
    from nemo_distill.jobs.costs import comparison, kept_plan
    from nemo_distill.jobs.noted import stage_keys
    from nemo_distill.jobs.progress import read_progress

    plan = kept_plan(out)
    if plan is not None and plan.is_of(stage_keys(stages, out)):
        real = read_progress(out).stages
        told = comparison(plan, real, [name for name in real if _made_all_steps(out / name)])
        print(f"\nPredicted by `nemo-distill plan`, and real:\n{told}")


def _made_all_steps(directory: Path) -> bool:
    """Return whether the training of a directory is known to have come to its last step."""
    from nemo_distill.support.finished_run import read_finished

    try:
        run = read_finished(directory)
    except InputError:
        return False
    return run is not None and run.steps is not None and run.stopped_after is None


def _plain(value: object) -> object:
    return str(value) if isinstance(value, GivenPath) else value


def _default_directory(args: argparse.Namespace, given: Mapping[str, Any]) -> Path:
    """Return the directory of a job: another corpus, teacher, language or NeMo (with other tokenizers) has its own."""
    from nemo_distill.jobs.recipe import read_recipe
    from nemo_distill.support import compat

    needed = {key: given[key] for key in ("teacher", "unlabelled") if key in given}  # a recipe may be another by these
    before = read_recipe(args.recipe and Path(args.recipe), needed, args.set)
    languages = [args.source or before.source, args.target or before.target]
    own = languages if languages != [before.source, before.target] else []
    if args.corpus and (args.recipe is None or before.corpus is not None):
        own.append(Path(args.corpus).resolve().name)
    own += [Path(each).stem for each in args.teacher or ()]
    own += ["nemo2"] if compat.NEMO_2 else []
    return Path("runs", "-".join([Path(args.recipe).stem if args.recipe else "run", *own]))


def _show_samples(graph: "Graph") -> None:
    """Print a few sentences of the first test set with the translations of the teacher and the first runs."""
    from nemo_distill.evaluation.results import hypotheses_path
    from nemo_distill.support.quoting import plain_text
    from nemo_distill.support.text_files import read_lines

    recipe, directory = graph.recipe, graph.directory / "evaluation"
    test, (source, reference, *_) = next(iter(graph.tests().items()))
    columns = {"source": read_lines(source), "reference": read_lines(reference)}
    for name in [*recipe.teacher_names, *[recipe.names(label)[0] for label in recipe.runs][:3]]:
        columns[name] = read_lines(directory / hypotheses_path(name, test))
    total, width = len(columns["source"]), max(map(len, columns)) + 2
    print(f"\nTranslations of {min(_SAMPLES, total)} of the {total} sentences of {test}:")
    for index in range(total // (2 * _SAMPLES), total, max(total // _SAMPLES, 1)):
        print()
        for name, lines in columns.items():
            print(f"  {name:<{width}}{plain_text(lines[index], 1000)}")


def add_status(subparsers) -> None:
    """Add `nemo-distill status`."""
    verb = subparsers.add_parser(
        "status",
        help="say how far a job is: each stage, its time, what it said last",
        description="Say of each stage of a job whether it is done, runs, has failed or waits, how long it took, and "
        "what its log says last. Reads records alone; the job goes on meanwhile.",
    )
    verb.add_argument("directory", type=InputDirectory, metavar="DIR", help="output directory of `nemo-distill run`")
    verb.set_defaults(run=_run_status)


def _run_status(args: argparse.Namespace) -> None:
    from nemo_distill.jobs.progress import table_of

    print(table_of(args.directory))
