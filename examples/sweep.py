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

The plan names the teacher, the pseudo-labels that it writes, and the runs, each with its overrides and seeds. Every
run gets the same data, steps and student architecture; `plain` is stock NeMo. Every stage is one command, printed
before it runs; a job that was interrupted goes on where it stopped.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_distill.config_reading import read_dataclass
from nemo_distill.errors import InputError, reported_errors
from nemo_distill.stages import Stage, run_stages

EXAMPLES = Path(__file__).resolve().parent
CLI = [sys.executable, "-m", "nemo_distill.cli"]


@dataclass
class Size:
    """A model and how long it is trained."""

    model: str = "tiny_1x1"
    """Name in configs/model."""
    steps: int = 1000
    """Training steps."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return [] if self.steps > 0 else [f"{where}.steps: got {self.steps}; give at least 1"]


@dataclass
class Labels:
    """Pseudo-labels of the training text."""

    options: list = field(default_factory=list)
    """Options of `nemo-distill pseudo-label`, such as [--search, greedy], or of `select`; `{gold}` stands for the
    translations of the training text."""
    select_from: str | None = None
    """Choose anew among the hypotheses of these pseudo-labels, with `nemo-distill select`, rather than decode."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return []


@dataclass
class Run:
    """One row of the table."""

    overrides: list = field(default_factory=list)
    """Overrides of examples/distill.py, such as distillation=hinton."""
    plain: bool = False
    """Train without a teacher, with examples/train_nmt.py."""
    pseudo: str | None = None
    """Name of the pseudo-labels to train on."""
    seeds: list = field(default_factory=lambda: [1])
    """One training run for each."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return [] if self.seeds else [f"{where}.seeds: is empty; give at least one seed"]


@dataclass
class Plan:
    """What a sweep trains and compares."""

    source: str = "de"
    """Source language, the suffix of the files."""
    target: str = "en"
    """Target language."""
    vocab_size: int = 4000
    """Of the tokenizer."""
    validations: int = 5
    """Of each model while it trains."""
    overrides: list = field(default_factory=list)
    """Overrides of every training run, the teacher's too."""
    teacher: Size = field(default_factory=Size)
    """The teacher."""
    student: Size = field(default_factory=Size)
    """All students, and the plain runs."""
    pseudo_labels: dict[str, Labels] = field(default_factory=dict)
    """By a name of your choice."""
    runs: dict[str, Run] = field(default_factory=dict)
    """By the label of the row."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = [
            f"{where}.runs.{name}.pseudo: got '{run.pseudo}'; give one of {', '.join(self.pseudo_labels) or '(none)'}"
            for name, run in self.runs.items()
            if run.pseudo is not None and run.pseudo not in self.pseudo_labels
        ]
        faults += [
            f"{where}.pseudo_labels.{name}.select_from: got '{labels.select_from}'; give other labels that are decoded"
            for name, labels in self.pseudo_labels.items()
            if labels.select_from is not None
            and getattr(self.pseudo_labels.get(labels.select_from), "select_from", "") is not None
        ]
        return faults if self.runs else [f"{where}.runs: is empty; name at least one run"]


def stages_of(plan: Plan, corpus: Path, out: Path) -> list[Stage]:
    """Return every command of the sweep."""
    files = {split: [corpus / f"{split}.{code}" for code in (plan.source, plan.target)] for split in ("train", "test")}
    tokenizer, teacher = out / "tokenizer" / "tokenizer.model", out / "teacher" / "teacher.nemo"
    command = [*CLI, "tokenizer", "--input", *map(str, files["train"]), "--vocab-size", str(plan.vocab_size)]
    stages = [Stage("tokenizer", [*command, "--output-dir", str(tokenizer.parent)], tokenizer)]
    common = [f"data.dir={corpus}", f"data.source={plan.source}", f"data.target={plan.target}"]
    common += [f"data.tokenizer={tokenizer}", *plan.overrides]

    def train(name: str, script: str, size: Size, overrides: list[str], needs: tuple[str, ...]) -> Stage:
        settings = [f"model={size.model}", f"name={name}", f"output_dir={out / name}"]
        settings += [f"trainer.max_steps={size.steps}", f"trainer.val_check_interval={size.steps // plan.validations}"]
        command = [sys.executable, str(EXAMPLES / script), *common, *settings, *overrides]
        return Stage(name, command, out / name / f"{name}.nemo", needs)

    stages.append(train("teacher", "train_nmt.py", plan.teacher, [], ("tokenizer",)))
    for name, labels in plan.pseudo_labels.items():
        directory = out / "pseudo" / name
        if labels.select_from is None:
            command = [*CLI, "pseudo-label", "--teacher", str(teacher), "--input", str(files["train"][0])]
            need = "teacher"
        else:
            command = [*CLI, "select", "--nbest", str(out / "pseudo" / labels.select_from)]
            need = f"pseudo-{labels.select_from}"
        command += [str(option).replace("{gold}", str(files["train"][1])) for option in labels.options]
        command += ["--output-dir", str(directory)]
        stages.append(Stage(f"pseudo-{name}", command, directory / "manifest.json", (need,)))
    models = {"teacher": teacher}
    for label, run in plan.runs.items():
        for seed in run.seeds:
            name = f"{label}@seed{seed}"
            overrides, needs = [f"seed={seed}", *map(str, run.overrides)], ("tokenizer",)
            if not run.plain:
                overrides.insert(0, f"teacher={teacher}")
                needs = ("teacher",)
            if run.pseudo is not None:
                overrides.insert(0, f"pseudo={out / 'pseudo' / run.pseudo}")
                needs = (f"pseudo-{run.pseudo}",)
            stages.append(train(name, "train_nmt.py" if run.plain else "distill.py", plan.student, overrides, needs))
            models[name] = stages[-1].result
    return [*stages, *_comparison(plan, models, files["test"], out)]


def _comparison(plan: Plan, models: dict[str, Path], test: list[Path], out: Path) -> list[Stage]:
    """Return the stages that score all models and lay out the table."""
    command = [*CLI, "evaluate", "--model", *map(str, models.values()), "--names", *models]
    plain = next((label for label, run in plan.runs.items() if run.plain), None)
    pairs = [
        f"{label}@seed{seed}:{plain}@seed{seed}"
        for label, run in plan.runs.items()
        for seed in run.seeds
        if plain is not None and label != plain and seed in plan.runs[plain].seeds
    ]
    command += ["--compare", *pairs] if pairs else []
    command += ["--test", f"test:{test[0]}:{test[1]}", "--output-dir", str(out / "evaluation")]
    evaluation = Stage("evaluation", command, out / "evaluation" / "results.json", tuple(models), again=True)
    command = [
        *CLI,
        "report",
        "--results",
        str(out / "evaluation"),
        "--output-dir",
        str(out / "report"),
        "--overwrite",
    ]
    command += ["--teacher", "teacher", "--plain", plain] if plain else []
    return [evaluation, Stage("report", command, out / "report" / "report.md", ("evaluation",), again=True)]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: there is no such file, or it has faults; the message lists all of them.
    """
    if not path.is_file():
        raise InputError(f"no plan {path}; there are some in {EXAMPLES / 'plans'}")
    faults: list[str] = []
    plan = read_dataclass(Plan, OmegaConf.to_container(OmegaConf.load(path), resolve=True), "plan", faults)
    if faults:
        raise InputError(f"{path}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return plan


def main() -> None:
    """Run the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="YAML file, see examples/plans")
    parser.add_argument("--corpus", type=Path, required=True, help="directory with train, valid and test files")
    parser.add_argument("--output-dir", type=Path, required=True, help="where everything goes")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, each on its share of the cores")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    names = [f"{split}.{lang}" for split in ("train", "valid", "test") for lang in (plan.source, plan.target)]
    missing = [str(args.corpus / name) for name in names if not (args.corpus / name).is_file()]
    if missing:
        raise InputError(f"no file {', '.join(missing)}; a corpus has train, valid and test files per language")
    run_stages(stages_of(plan, args.corpus, args.output_dir), args.output_dir, args.jobs)
    print("\n" + (args.output_dir / "report" / "report.md").read_text("utf-8"))


if __name__ == "__main__":
    with reported_errors("sweep.py"):
        main()
