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
"""Many students of one teacher, trained alike and laid out in one table, as a plan in YAML says.

    python examples/sweep.py examples/plans/multi30k.yaml --corpus data/multi30k --output-dir runs/multi30k --jobs 2

The plan (`nemo_distill.jobs.Plan`) names the teacher, the pseudo-labels and caches that it writes, and the runs,
each with its overrides and seeds; a grid is one run at each of its points. Every run gets the same data, steps and
student architecture; `plain` is stock NeMo, or with a `start` the student that starts so and learns from labels alone.
Every stage is one command, printed before it runs; a job that was
interrupted goes on where it stopped. What a plan may ask for is in `nemo_distill.jobs.allowed`.
"""

import argparse
import hashlib
import os
import sys
from pathlib import Path

from nemo_distill.errors import InputError, reported_errors, say_interrupts

say_interrupts("sweep.py")  # before further imports, which take their time

# isort: split

from nemo_distill.jobs import Plan, Size, Stage, corpus_faults, layout_of, read_plan, run_stages, setting, verb_command
from nemo_distill.support.text_files import read_lines

EXAMPLES = Path(__file__).resolve().parent


def stages_of(plan: Plan, corpus: Path, out: Path) -> list[Stage]:
    """Return every command of the sweep."""
    splits = ("train", "valid", "test")
    files = {split: tuple(corpus / f"{split}.{code}" for code in (plan.source, plan.target)) for split in splits}
    tokenizer, teacher = out / "tokenizer" / "tokenizer.model", out / "teacher" / "teacher.nemo"
    command = verb_command("tokenizer", "--input", *map(str, files["train"]), "--vocab-size", str(plan.vocab_size))
    stages = [Stage("tokenizer", [*command, "--output-dir", str(tokenizer.parent)], tokenizer, reads=files["train"])]
    common = [setting("data.dir", corpus), setting("data.source", plan.source), setting("data.target", plan.target)]
    common += [setting("data.tokenizer", tokenizer), *plan.overrides]

    def train(name: str, script: str, size: Size, overrides: list[str], needs: tuple[str, ...]) -> Stage:
        settings = [f"model={size.model}", setting("name", name), setting("output_dir", out / name)]
        settings += [f"trainer.max_steps={size.steps}"]
        settings += [f"trainer.val_check_interval={max(size.steps // plan.validations, 1)}"]
        command = [sys.executable, str(EXAMPLES / script), *common, *settings, *map(str, size.overrides), *overrides]
        return Stage(name, command, out / name / f"{name}.nemo", needs, reads=files["train"] + files["valid"])

    stages.append(train("teacher", "train_nmt.py", plan.teacher, [], ("tokenizer",)))
    for name, labels in plan.pseudo_labels.items():
        directory = out / "pseudo" / name
        if labels.select_from is None:
            command = verb_command("pseudo-label", "--teacher", str(teacher), "--input", str(files["train"][0]))
            need = "teacher"
        else:
            command = verb_command("select", "--nbest", str(out / "pseudo" / labels.select_from))
            need = f"pseudo-{labels.select_from}"
        command += [str(option).replace("{gold}", str(files["train"][1])) for option in labels.options]
        command += ["--output-dir", str(directory)]
        stages.append(Stage(f"pseudo-{name}", command, directory / "manifest.json", (need,), reads=files["train"]))
    for name, cache in plan.caches.items():
        directory = out / "caches" / name
        command = verb_command("cache", "--teacher", str(teacher), "--source", str(files["train"][0]))
        command += ["--target", str(files["train"][1]), *map(str, cache.options), "--output-dir", str(directory)]
        stages.append(Stage(f"cache-{name}", command, directory / "manifest.json", ("teacher",), reads=files["train"]))
    models = {"teacher": teacher}
    for label, run in plan.runs.items():
        for seed in run.seeds:
            name = f"{label}@seed{seed}"
            overrides, needs = [f"seed={seed}", *map(str, run.overrides)], ("tokenizer",)
            stock = run.plain and run.start is None
            if not stock:
                overrides.insert(0, setting("teacher", teacher))
                needs = ("teacher",)
            if run.start is not None:
                overrides[:0] = ["distillation=nll"] if run.plain else []
                overrides.append("++model.distillation.teacher.model_path=${teacher}")
                overrides.append(f"++model.distillation.init={{from_teacher: {run.start}, width: select}}")
            if run.pseudo is not None:
                overrides.insert(0, setting("pseudo", out / "pseudo" / run.pseudo))
                needs = (f"pseudo-{run.pseudo}",)
            if run.cache is not None:
                overrides.insert(0, setting("cache", out / "caches" / run.cache))
                needs = (*needs, f"cache-{run.cache}")
            stages.append(train(name, "train_nmt.py" if stock else "distill.py", plan.student, overrides, needs))
            models[name] = stages[-1].result
    return [*stages, *_comparison(plan, models, files["test"], out)]


def _comparison(plan: Plan, models: dict[str, Path], test: tuple[Path, ...], out: Path) -> list[Stage]:
    """Return the stages that score all models and lay out the table."""
    command = verb_command("evaluate", "--model", *map(str, models.values()), "--names", *models)
    plain = next((label for label, run in plan.runs.items() if run.plain and run.start is None), None)
    twins = {label: plan.twin(label) or plain for label in plan.runs}
    pairs = [
        f"{label}@seed{seed}:{twin}@seed{seed}"
        for label, twin in twins.items()
        for seed in plan.runs[label].seeds
        if twin not in (None, label) and seed in plan.runs[twin].seeds
    ]
    twins = [f"{label}:{twin}" for label, twin in twins.items() if twin not in (None, label, plain)]
    command += ["--compare", *pairs] if pairs else []
    command += ["--test", f"test:{test[0]}:{test[1]}", "--output-dir", str(out / "evaluation")]
    result = out / "evaluation" / "results.json"
    evaluation = Stage("evaluation", command, result, tuple(models), again=True, reads=test)
    command = verb_command("report", "--results", str(out / "evaluation"), "--output-dir", str(out / "report"))
    command += ["--overwrite", *(["--teacher", "teacher", "--plain", plain] if plain else [])]
    command += ["--twins", *twins] if plain and twins else []
    command += ["--layout", str(layout_path(plan, out))] if plan.grid or plan.changes else []
    return [evaluation, Stage("report", command, out / "report" / "report.md", ("evaluation",), again=True)]


def layout_path(plan: Plan, out: Path) -> Path:
    """Return where the layout is kept: other tables have another path, so that the report is made again."""
    return out / f"layout-{hashlib.sha256(layout_of(plan).encode()).hexdigest()[:8]}.json"


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def main() -> None:
    """Run the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=_path, help="YAML file, see examples/plans")
    parser.add_argument("--corpus", type=_path, required=True, help="directory with train, valid and test files")
    parser.add_argument("--output-dir", type=_path, required=True, help="where everything goes")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, each on its share of the cores")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    if faults := corpus_faults(args.corpus, plan.source, plan.target):
        raise InputError(faults[0])
    layout = {layout_path(plan, args.output_dir): layout_of(plan)}
    run_stages(stages_of(plan, args.corpus, args.output_dir), args.output_dir, args.jobs, layout)
    print("\n" + "\n".join(read_lines(args.output_dir / "report" / "report.md")))


if __name__ == "__main__":
    with reported_errors("sweep.py"):
        main()
