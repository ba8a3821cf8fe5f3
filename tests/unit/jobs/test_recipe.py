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
"""Recipes: those in examples/recipes, what they become, and what a faulty one gets."""

import json
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nemo_distill.config.model_widths import DROPOUTS
from nemo_distill.errors import InputError
from nemo_distill.jobs.architecture import composed as compose_training
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import Recipe, layout_of, read_recipe
from nemo_distill.jobs.recipe_sections import Size
from nemo_distill.jobs.running import essence
from nemo_distill.jobs.twins import Twins
from nemo_distill.training.identity import schedule_to_the_end

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))


def graph(recipe: Recipe, tmp_path: Path) -> Graph:
    recipe.corpus = "ui-strings"  # nothing of it is read here
    recipe.unlabelled = [str(path) for path in RECIPES[:1] if recipe.unlabelled]  # any file
    return Graph(recipe, tmp_path / "out")


def stages_of(recipe: Recipe, tmp_path: Path) -> dict:
    return {stage.name: stage for stage in graph(recipe, tmp_path).stages()}


def test_there_are_recipes():
    names = "ablation cached deep_shapes demo few_labels few_labels_alone learning_rates multi30k "
    names += "recommended recommended_deep recommended_seeds recommended_small recommended_ui shapes"
    assert [path.stem for path in RECIPES] == names.split()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_training_of_a_shipped_recipe_composes(path, tmp_path):
    recipe = read_recipe(path)
    stages = stages_of(recipe, tmp_path)
    assert {need for stage in stages.values() for need in stage.needs} <= set(stages)
    trainings = [stage for stage in stages.values() if stage.result.suffix == ".nemo"]
    assert len(trainings) == 1 + sum(len(run.seeds) for run in recipe.runs.values())
    alike = ("seed=", "name=", "output_dir=", "model.distillation.objective.word_kd.temperature=")
    composed = set()
    for stage in trainings:
        script, *overrides = essence(stage.command)
        what = (script, *(each for each in overrides if not each.startswith(alike)))
        if what in composed:
            continue
        composed.add(what)
        with initialize_config_dir(str(ROOT / "configs"), version_base=None):
            config = compose(script.removesuffix(".py"), overrides)
        assert config.name == stage.name
        label = recipe.label_of(stage.name)
        size = recipe.teacher if label is None else recipe.student.of(recipe.runs[label])
        assert config.trainer.max_steps == size.steps
        assert ("distillation" in config.model) == (script == "distill.py")
    compared = stages["evaluation"].command
    assert all(str(stage.result) in compared for stage in trainings)


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "recipe.runs: is empty"),
        ("run: {}", r"recipe.run: unknown key \(did you mean 'runs'\?\)"),
        ("runs: {a: {pseudo: beam}}", r"recipe.runs.a.pseudo: got 'beam'; give one of \(none\)"),
        ("runs: {a: {seeds: []}}", "recipe.runs.a.seeds: is empty"),
        ("runs: [a]", r"\n  recipe.runs: got \['a'\]; give a mapping from names of your choice to sections$"),
        ("grid: {temperatures: 1}", r"\n  recipe.grid.temperatures: got 1 of type int; give a list$"),
        (
            "{runs: {a: {}}, source: no}",
            'recipe.source: got False of type bool; give a str, a word such as no or on in quotes: "no", on a '
            "command line 'KEY=\"no\"'$",
        ),
        ("runs: {2024-01-01: {}}", "recipe.runs: a key is no text"),
        (
            "{runs: {a: {}}, tests: {no: [a, b]}}",
            'recipe.tests: a name is false to YAML; write a word such as no or on in quotes: "no"$',
        ),
        (
            "{runs: {a: {}}, source: 2024-01-01}",
            r"recipe.source: got datetime.date\(2024, 1, 1\) of type date; give a",
        ),
        ("{runs: {a: {}}, student: {steps: 0}}", "recipe.student.steps: got 0; give at least 1"),
        ("{runs: {a: {}}, student: {patience: 3}}", "recipe.student.validate_every: is missing, and patience counts"),
        (
            "{runs: {a: {}}, teacher: {patience: 0, validate_every: 5}}",
            "recipe.teacher.patience: got 0; give at least 1",
        ),
        ("{runs: {a: {}}, student: {ema: 1.0}}", "recipe.student.ema: got 1.0; give a number above 0 and below 1"),
        ("{runs: {a: {steps: 0}}}", "recipe.runs.a.steps: got 0; give at least 1"),
        ("{runs: {a: {steps: null, patience: -1}}}", "recipe.runs.a.patience: got -1; give at least 1"),
        ("{runs: {a: {patience: 9}}}", "recipe.runs.a.patience: got 9, and `student` has none; give student.patience"),
        (
            "{runs: {a: {overrides: [model.optim.sched.name=CosineAnnealing]}}, "
            "student: {patience: 3, validate_every: 5}}",
            "recipe.runs.a.overrides: model.optim.sched .CosineAnnealing. lays .*InverseSquareRoot",
        ),
        (
            "{runs: {a: {}}, overrides: [++model.optim.sched.name='WarmupAnnealing'], "
            "teacher: {patience: 3, validate_every: 5}}",
            "recipe.overrides: model.optim.sched .WarmupAnnealing. lays the learning rate out",
        ),
        (
            "{runs: {a: {}}, student: {patience: 3, validate_every: 5, "
            "overrides: ['model.optim={lr: 0.1, sched: {name: PolynomialDecayAnnealing}}']}}",
            "recipe.student.overrides: model.optim.sched .PolynomialDecayAnnealing. lays the learning rate out",
        ),
        (
            "{runs: {a: {}}, student: {patience: 3, validate_every: 5, "
            "overrides: [+model.optim.sched.warmup_ratio=0.1]}}",
            "recipe.student.overrides: model.optim.sched .WarmupPolicy. lays the learning rate out",
        ),
    ],
)
def test_faulty_recipes(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, text))


PATIENT = """
teacher: {model: small_3x3, steps: 9000, patience: 4, validate_every: 300}
student: {model: tiny_1x1, steps: 5000, patience: 3, validate_every: 200, ema: 0.99}
runs:
  plain: {plain: true}
  root: {overrides: [distillation=hinton, model.optim.sched.name=InverseSquareRootAnnealing]}
"""


def test_faults_are_listed_in_rounds(tmp_path):
    """Keys and types together; then values; then files."""
    rounds = {
        "corpos: a\nvocab_size: many": ("corpos", "vocab_size"),
        "source: en\nvalidations: 0": ("both are 'en'", "validations: got 0"),
        "corpus: none": ("the corpus 'none' does not exist",),
    }
    path, lines = tmp_path / "recipe.yaml", [*rounds, "runs: {plain: {plain: true}}"]
    for words in rounds.values():
        path.write_text("\n".join(lines))
        with pytest.raises(InputError) as found:
            Graph(read_recipe(path), tmp_path / "out")
        assert [word for each in rounds.values() for word in each if word in str(found.value)] == [*words]
        del lines[0]


def test_patience_ends_trainings_whose_rate_does_not_fall_to_a_last_step(tmp_path):
    """Each with its own limit, interval and average; the user's schedule comes behind the job's."""
    recipe = read_recipe(write(tmp_path, PATIENT))
    wanted = {
        "teacher": ("WarmupPolicy", 0.2 / 256, 4, 300, 9000, 0.999),
        "plain": ("WarmupPolicy", 0.2 / 64, 3, 200, 5000, 0.99),
        "root": ("InverseSquareRootAnnealing", 0.006, 3, 200, 5000, 0.99),
    }
    for name, (schedule, rate, patience, interval, steps, ema) in wanted.items():
        script, *overrides = essence(stages_of(recipe, tmp_path)[name].command)
        with initialize_config_dir(str(ROOT / "configs"), version_base=None):
            config = compose(script.removesuffix(".py"), overrides)
        assert (config.patience, config.ema) == (patience, ema)
        assert (config.trainer.max_steps, config.trainer.val_check_interval) == (steps, interval)
        assert config.model.optim.sched.name == schedule
        assert config.model.optim.lr == pytest.approx(rate, rel=0.005)  # three digits
        assert config.model.optim.sched.warmup_steps > 0
        assert schedule_to_the_end(OmegaConf.to_container(config)) is None
    slim = Size("slim_3x3", steps=150_000, patience=4, validate_every=9)  # which has such a rate
    assert (slim.ending([]), slim.rate([])) == (["patience=4", "ema=0.999"], [])


def test_a_model_whose_warm_up_is_for_far_more_steps_has_another_schedule():
    """That of `base` rises for 15,000 steps: more than a tenth of those of most jobs."""
    names = [f"model.optim.sched.{key}" for key in ("name", "warmup_steps")]
    falls, stays = ([f"{names[0]}={name}", f"{names[1]}=400"] for name in ("WarmupAnnealing", "WarmupPolicy"))
    assert Size("slim_3x3", steps=4000).ending([]) == falls
    assert Size("slim_1x1", steps=149_999, patience=4).ending([]) == ["patience=4", *stays, "ema=0.999"]
    assert Size("slim_1x1", steps=4000).rate([]) == ["model.optim.lr=0.001"]
    assert Size("wide_1x1", steps=4000).rate([]) == ["model.optim.lr=0.00025"]  # 0.001 · 256 / 1024
    assert Size("slim_1x1", steps=150_000).ending([]) == Size("slim_1x1", steps=150_000).rate([]) == []
    for own in ("model.optim.lr=0.0004", "++model.optim.sched.warmup_steps=200", "model.optim={lr: 0.001}"):
        assert Size("slim_3x3", steps=4000).ending([own]) == Size("slim_3x3", steps=4000).rate([own]) == []
    for small in ("tiny_1x1", "small_3x3"):  # has a schedule of its own
        assert Size(small, steps=40).ending([]) == []


@pytest.mark.parametrize(
    ("size", "overrides", "rate"),
    [
        (Size("tiny_1x1"), [], None),
        (Size("tiny_1x1"), ["model.encoder.hidden_size=96"], "0.004"),  # 0.006 · 64 / 96
        (Size("tiny_1x1"), ["model.encoder={hidden_size: 512, inner_size: 1024}"], "0.00075"),
        (Size("tiny_1x1"), ["model.encoder.hidden_size=96", "model.optim.lr=0.006"], None),
        (Size("tiny_1x1"), ["model.encoder.hidden_size=16"], None),
        (Size("tiny_1x1", patience=3), [], "0.00313"),  # 0.2 / 64
        (Size("tiny_1x1", patience=3), ["model.encoder.hidden_size=88"], "0.00227"),
        (Size("tiny_1x1", patience=3), ["++model.optim.lr=0.006"], None),
        (Size("tiny_1x1", patience=3), ["model.optim={lr: 0.006}"], None),
        (Size("tiny_1x1", patience=3), ["model.optim.sched.name=InverseSquareRootAnnealing"], None),
        (Size("small_1x1", patience=3), [], "0.00156"),
        (Size("slim_1x1", steps=150_000, patience=3), [], None),  # 0.0004, of 256
        (Size("slim_1x1", steps=150_000, patience=3), ["model.encoder.hidden_size=512"], "0.0002"),
        (Size("slim_1x1", patience=3), [], "0.000781"),  # 0.2 / 256
        (Size("slim_1x1", patience=3), ["model.encoder.hidden_size=512"], "0.000391"),
    ],
)
def test_other_widths_and_rates_that_stay_have_rates_of_their_own(size, overrides, rate):
    assert size.rate(overrides) == ([] if rate is None else [f"model.optim.lr={rate}"])


LONGER = """
student: {model: tiny_1x1, steps: 4000}
runs:
  longer: {plain: true, steps: 12000}
  plain: {plain: true}
  hinton: {overrides: [distillation=hinton]}
  hinton_longer: {steps: 12000, overrides: [distillation=hinton]}
  hinton_longest: {steps: 50000, overrides: [distillation=hinton]}
  started_longer: {plain: true, start: every_nth, steps: 12000}
  started: {plain: true, start: every_nth}
  hinton_started: {start: every_nth, steps: 12000, overrides: [distillation=hinton]}
"""


def test_a_longer_run_has_its_own_steps_and_is_the_twin_of_what_is_as_long(tmp_path):
    recipe = read_recipe(write(tmp_path, LONGER))
    stages = stages_of(recipe, tmp_path)
    for name, steps, interval in (("longer", 12000, 2400), ("plain", 4000, 800), ("hinton_longest", 50000, 10000)):
        said = [each for each in stages[name].command if each.startswith("trainer.")]
        assert said == [f"trainer.max_steps={steps}", f"trainer.val_check_interval={interval}"]
    wanted = {"longer": "plain", "plain": None, "hinton": "plain", "hinton_longer": "longer", "started": None}
    wanted |= {"hinton_longest": "plain", "hinton_started": "started_longer", "started_longer": "started"}
    assert {label: Twins(recipe).of(label) for label in recipe.runs} == wanted
    command = stages["evaluation"].command
    compared = command[command.index("--compare") + 1 : command.index("--test")]
    assert {"longer:plain", "hinton:plain", "hinton_longer:longer", "started:plain", "started_longer:started"} < set(
        compared
    )
    command = stages["report"].command
    assert command[command.index("--plain") + 1] == "plain"
    twins = command[command.index("--twins") + 1 : command.index("--train")]
    assert twins == ["hinton_longer:longer", "hinton_started:started_longer"]  # a twin has none of its own there


def test_a_run_of_its_own_patience_differs_in_nothing_else(tmp_path):
    text = PATIENT + "  longer: {plain: true, steps: 9000, patience: 1000}\n  patient: {plain: true, patience: 30}\n"
    recipe = read_recipe(write(tmp_path, text))
    stages, other = stages_of(recipe, tmp_path), {}
    for name in ("longer", "patient"):
        pairs = zip(stages["plain"].command, stages[name].command, strict=True)
        other[name] = [theirs for ours, theirs in pairs if ours.replace("plain", name) != theirs]
    assert other == {"longer": ["patience=1000", "trainer.max_steps=9000"], "patient": ["patience=30"]}
    assert Twins(recipe).of("root") == "plain"


DROPOUT = """\
source: de
target: en
teacher: {model: small_3x3, steps: 9, dropout: 0.3}
student: {model: tiny_1x1, steps: 9, dropout: 0.1}
runs:
  plain: {plain: true}
  bare: {plain: true, dropout: 0}
  hinton: {overrides: [distillation=hinton]}
  own: {start: every_nth, dropout: 0, overrides: [distillation=recommended, model.encoder.ffn_dropout=0.2]}
"""


def test_a_dropout_is_that_of_all_places_and_a_run_has_the_twin_with_its_own(tmp_path):
    """Whatever the model's file and the preset say; a single one in overrides wins."""
    recipe = read_recipe(write(tmp_path, DROPOUT))
    stages = stages_of(recipe, tmp_path)
    wanted = {"teacher": (0.3, 0.3), "plain": (0.1, 0.1), "bare": (0, 0), "hinton": (0.1, 0.1), "own": (0, 0.2)}
    for name, (all_of_them, feed_forward) in wanted.items():
        module, *arguments = stages[name].command[stages[name].command.index("-m") + 1 :]
        (model,) = (each.removeprefix("model=") for each in arguments if each.startswith("model="))
        config = compose_training(module.rpartition(".")[2], model, tuple(arguments)).model
        for side in (config.encoder, config.decoder):
            assert [side[key] for key in DROPOUTS] == [all_of_them, feed_forward, all_of_them, all_of_them], name
    command = stages["evaluation"].command
    compared = command[command.index("--compare") + 1 : command.index("--test")]
    assert compared == ["teacher:plain", "teacher:bare", "bare:plain", "hinton:plain", "own:bare", "own:plain"]
    command = stages["report"].command
    assert command[command.index("--twins") + 1] == "own:bare"  # which is most like it, though of another start


LIKE = """\
source: de
target: en
teacher: {model: small_3x3, steps: 9}
student: {model: small_3x3, steps: 9}
runs:
  plain: {plain: true}
  bare: {plain: true, dropout: 0}
  long: {plain: true, steps: 90}
  noisy: {plain: true, overrides: [model.encoder.ffn_dropout=0.3]}
  small: {plain: true, overrides: [model.encoder.num_layers=1]}
  a: {overrides: [distillation=hinton]}
  of_preset: {start: every_nth, overrides: [distillation=recommended]}
  b: {steps: 90, overrides: [distillation=hinton]}
  c: {overrides: [distillation=hinton, model.encoder.ffn_dropout=0.3]}
  d: {start: every_nth, overrides: [distillation=recommended, model.encoder.num_layers=1]}
  e: {steps: 50, dropout: 0, overrides: [distillation=hinton]}
"""


def test_the_twin_is_the_plain_run_most_like_it_by_shape_then_dropouts_then_steps(tmp_path):
    """Those of the preset and of overrides count, and where no plain run has the start, those without one serve."""
    command = stages_of(read_recipe(write(tmp_path, LIKE)), tmp_path)["report"].command
    twins = dict(each.split(":") for each in command[command.index("--twins") + 1 : command.index("--train")])
    assert command[command.index("--plain") + 1] == "plain"
    assert twins == {"of_preset": "bare", "b": "long", "c": "noisy", "d": "small", "e": "bare"}


def test_the_dropouts_of_a_model_that_is_found_are_those_of_its_file(tmp_path):
    """Of `small_3x3`, which has 0.1, a preset's student without has the twin without."""
    text = LIKE[: LIKE.index("  long")].replace("student: {model: small_3x3", "student: {compression: 1")
    text += "  a: {start: every_nth, overrides: [distillation=recommended]}\n"
    stages = stages_of(read_recipe(write(tmp_path, text)), tmp_path)
    assert "model=small_3x3" in stages["a"].command
    command = stages["report"].command
    assert command[command.index("--twins") + 1] == "a:bare"


def test_a_recipe_whose_only_plain_run_has_a_start_measures_the_gap_from_there(tmp_path):
    text = LIKE[: LIKE.index("  bare")].replace("plain: true", "plain: true, start: every_nth")
    text += "  a: {start: every_nth, overrides: [distillation=recommended]}\n"
    stages = stages_of(read_recipe(write(tmp_path, text)), tmp_path)
    command = stages["evaluation"].command
    assert command[command.index("--compare") + 1 : command.index("--test")] == ["teacher:plain", "a:plain"]
    command = stages["report"].command
    assert command[command.index("--teacher") + 1 : command.index("--teacher") + 4] == ["teacher", "--plain", "plain"]


def test_batches_of_a_step_that_are_no_number(tmp_path):
    text = LIKE[: LIKE.index("  bare")] + "overrides: ['+trainer.accumulate_grad_batches=${seed}']\n"
    with pytest.raises(InputError, match=r"teacher: trainer.accumulate_grad_batches: got \$\{seed\}; give a number"):
        stages_of(read_recipe(write(tmp_path, text)), tmp_path)


def test_a_teacher_whose_model_leaves_sizes_open(tmp_path):
    text = LIKE[: LIKE.index("  bare")].replace("teacher: {model: small_3x3", "teacher: {model: base")
    text = text.replace("student: {model: small_3x3", "student: {compression: 5")
    with pytest.raises(
        InputError, match=r"teacher: configs/model/base.yaml leaves encoder.hidden_size, .* open; give"
    ):
        stages_of(read_recipe(write(tmp_path, text)), tmp_path)


@pytest.mark.parametrize("value", ["1", "-0.1", ".nan", "1.5"])
@pytest.mark.parametrize("place", ["student", "teacher", "runs.plain"])
def test_a_dropout_that_is_none(tmp_path, place, value):
    with pytest.raises(
        InputError, match=rf"recipe.{place}.dropout: got {float(value.lstrip('.'))}; give a number from 0"
    ):
        read_recipe(write(tmp_path, DROPOUT), {}, [f"{place}.dropout={value}"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("'0.1'", "recipe.student.dropout: got the text '0.1'; give a number, such as 0.1, without quotes"),
        ("1e-1", "recipe.student.dropout: got the text '1e-1'; give a number, such as 0.1, without quotes"),
        ("automatic", "recipe.student.dropout: got automatic; give a number from 0 to below 1, such as 0.1, or auto"),
    ],
)
def test_a_dropout_that_is_text(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, DROPOUT.replace("dropout: 0.1", f"dropout: {value}")))


def test_a_dropout_to_be_found_is_of_all_students(tmp_path):
    with pytest.raises(InputError, match=r"recipe.runs.bare.dropout: got auto, which is for student and teacher as a"):
        read_recipe(write(tmp_path, DROPOUT.replace("dropout: 0}", "dropout: auto}")))


def test_without_patience_nothing_is_said_of_it(tmp_path):
    """So that the trainings of earlier recipes are not made anew."""
    stages = stages_of(read_recipe(ROOT / "examples/recipes/demo.yaml"), tmp_path)
    said = [each for stage in stages.values() for each in stage.command]
    assert "trainer.max_steps=1200" in said
    assert not [each for each in said if re.match(r"\+*(patience|ema|model\.optim)\b", each)]


def test_the_default_trains_until_nothing_is_gained():
    recipe = read_recipe(None)
    assert recipe.student.patience is not None
    assert recipe.student.steps > 20 * recipe.student.validate_every
    short = read_recipe(None, settings=["student.steps=100"])
    assert short.student.interval(short.validations) == 100  # or there were no score to keep


@pytest.mark.parametrize("starts", [True, False])
def test_by_default_a_student_reads_text_without_translations_too(starts):
    """Beside the one of the gold text, from the same start and cache, where there are any."""
    recipe = read_recipe(None, {"unlabelled": ["mono.de"]}, starts=starts)
    before = read_recipe(None, starts=starts)
    run, labels = recipe.runs.pop("unlabelled"), recipe.pseudo_labels.pop("unlabelled")
    caches = [recipe.caches.pop("unlabelled").texts] if starts else []
    assert labels.unlabelled
    assert (run.pseudo, run.start) == ("unlabelled", "every_nth" if starts else None)
    assert (run.cache, caches) == (("unlabelled", [["gold", "unlabelled"]]) if starts else (None, []))
    recipe.unlabelled = []
    assert recipe == before  # all else is what it was, and need not be made anew
    recipe = read_recipe(None, {"unlabelled": ["mono.de"]}, starts=starts)
    assert read_recipe(None, {}, ["unlabelled=[mono.de]"], starts) == recipe
    assert list(read_recipe(None, {}, ["unlabelled=[]"], starts).runs) != list(recipe.runs)


def test_a_teacher_that_gives_labels_alone_gives_them_of_text_without_translations_too(tmp_path):
    (tmp_path / "model.bin").touch()
    (tmp_path / "config.json").write_text("{}")
    given = {"teacher": str(tmp_path), "unlabelled": ["mono.de"]}
    recipe = read_recipe(None, given)
    assert (list(recipe.runs), recipe.pseudo_labels["beam"].unlabelled) == (
        ["plain", "student", "interpolation"],
        True,
    )
    del given["unlabelled"]
    assert not read_recipe(None, given).pseudo_labels["beam"].unlabelled
    assert list(read_recipe(None, given, ["runs.interpolation=null"]).runs) == ["plain", "student"]


def test_a_row_that_only_another_default_has_is_left_out_already():
    """The command need not say which default it will be: that is found out from text and teacher."""
    for given in ({}, {"unlabelled": ["mono.de"]}):
        for starts in (True, False):
            settings = ["runs.interpolation=~", "runs.unlabelled="]
            assert list(read_recipe(None, given, settings, starts).runs) == ["plain", "student"]
    for setting, message in {
        "runs.other=null": "there is no 'other' to leave out",
        "runs.interpolation": "write it as key=value",
        "runs.interpolation.steps=5": "with this teacher and text there is no runs.interpolation",
    }.items():
        with pytest.raises(InputError, match=message):
            read_recipe(None, settings=[setting])


def test_a_preset_that_starts_from_the_teacher_needs_its_start_in_a_recipe(tmp_path):
    """By which students and twins are built as the teacher is."""
    text = "student: {}\nruns: {plain: {plain: true}, a: {overrides: [distillation=recommended]}}"
    with pytest.raises(
        InputError, match=r"recipe.runs.a.start: is missing, .*; give start, such as every_nth, or dist"
    ):
        read_recipe(write(tmp_path, text))
    assert read_recipe(write(tmp_path, text.replace("a: {", "a: {start: last, "))).runs["a"].preset == "recommended"


def test_null_leaves_a_row_of_a_recipe_out():
    """And its labels and caches, if one says so of them too."""
    path = ROOT / "examples/recipes/recommended_ui.yaml"
    left_out = ["runs.few_labels=null", "runs.hinton=null", "caches.both=null", "pseudo_labels.beam=null"]
    recipe = read_recipe(path, settings=left_out)
    assert sorted(recipe.runs) == ["disturbed", "plain", "recommended", "started"]
    assert list(recipe.caches) == ["gold", "disturbed"]
    assert list(recipe.pseudo_labels) == ["disturbed"]
    with pytest.raises(InputError, match=r"--set runs.hintn=null: there is no 'hintn' to leave out; runs has plain, "):
        read_recipe(path, settings=["runs.hintn=null"])
    with pytest.raises(InputError, match=r"recipe.runs.few_labels.cache: got 'both'; give one of gold, disturbed"):
        read_recipe(path, settings=["caches.both=null"])
    assert read_recipe(path, settings=["student.patience=null"]).student.patience is None  # a key, whose value is null


def test_settings_reach_names_with_dots(tmp_path):
    path = ROOT / "examples/recipes/multi30k.yaml"
    runs = read_recipe(path).runs
    left = read_recipe(path, settings=["runs.interpolation_0.1=null", "runs.interpolation_0.66.seeds=[1,2]"]).runs
    assert list(left) == [name for name in runs if name != "interpolation_0.1"]
    assert left["interpolation_0.66"].seeds == [1, 2]
    assert left["interpolation_0.66"].overrides == runs["interpolation_0.66"].overrides
    settings = ["grid.seeds.kd_layers_0.5=[1,2]", "grid.starts.v1.5=[]", "grid.objectives.kd.label=KD"]
    recipe = read_recipe(write(tmp_path, GRID), settings=settings)
    assert recipe.runs["kd_layers_0.5"].seeds == [1, 2]
    assert recipe.runs["kd_v1.5_0.5"].overrides[:-1] == []
    assert recipe.grid.objectives["kd"].label == "KD"
    for setting, message in {
        "runs.interpolation_0.2.seeds=[1]": "recipe.runs.interpolation_0.2: unknown key",
        "runs..seeds=[1]": "write it as key=value",
        "grid.seeds.kd_layers_0.7=[1]": "recipe.grid.seeds.kd_layers_0.7: no such run; the grid has ",
    }.items():
        with pytest.raises(InputError, match=message):
            read_recipe(write(tmp_path, GRID), settings=[setting])


def test_no_such_recipe(tmp_path):
    with pytest.raises(InputError, match=r"recipe: there is no file \S+none.yaml"):
        read_recipe(tmp_path / "none.yaml")


def test_pseudo_labels_come_between_teacher_and_student(tmp_path):
    text = "{runs: {plain: {plain: true, seeds: [1, 2]}, a: {pseudo: best}}, "
    text += "pseudo_labels: {best: {options: [--keep-copies]}}}"
    stages = stages_of(read_recipe(write(tmp_path, text)), tmp_path)
    assert stages["pseudo-best"].needs == ("teacher",)
    assert "--keep-copies" in stages["pseudo-best"].command
    assert stages["a"].needs == ("pseudo-best",)
    assert f"pseudo={tmp_path / 'out' / 'pseudo' / 'best'}" in stages["a"].command
    assert stages["plain@seed2"].needs == ("tokenizer",)
    command = stages["evaluation"].command
    compared = command[command.index("--compare") + 1 :][:3]
    assert compared == ["teacher:plain@seed1", "teacher:plain@seed2", "a@seed1:plain@seed1"]


STARTED = """
runs:
  plain: {plain: true, seeds: [1, 2]}
  plain_started: {plain: true, start: every_nth}
  hinton: {overrides: [distillation=hinton]}
  hinton_started: {start: every_nth, overrides: [distillation=hinton]}
  last_started: {start: last, overrides: [distillation=hinton]}
"""


def test_the_control_of_a_start_is_one_line(tmp_path):
    stages = stages_of(read_recipe(write(tmp_path, STARTED)), tmp_path)
    control, plain = stages["plain_started"], stages["plain"]
    start = "++model.distillation.init={from_teacher: every_nth, width: project}"
    assert {"distillation=nll", start} <= set(control.command)
    assert control.needs == ("teacher",)
    assert essence(control.command)[0] == "distill.py"
    assert essence(plain.command)[0] == "train_nmt.py"
    assert not any("distillation" in each for each in plain.command)
    assert start in stages["hinton_started"].command
    assert {"distillation=hinton", "distillation=nll"} & set(stages["hinton_started"].command) == {
        "distillation=hinton"
    }
    command = stages["evaluation"].command
    compared = command[command.index("--compare") + 1 : command.index("--test")]
    assert compared == [
        "teacher:plain@seed1",
        "teacher:plain@seed2",
        "teacher:plain_started@seed1",
        "plain_started@seed1:plain@seed1",
        "hinton@seed1:plain@seed1",
        "hinton_started@seed1:plain_started@seed1",
        "hinton_started@seed1:plain@seed1",  # start and objective together
        "last_started@seed1:plain@seed1",  # no control of this start
    ]
    command = stages["report"].command
    assert command[command.index("--twins") + 1 :][:1] == ["hinton_started:plain_started"]
    assert command[-3] == "--train"
    with pytest.raises(InputError, match="runs.a.start: got 'evry_nth'; give one of .*every_nth"):
        read_recipe(write(tmp_path, "runs: {a: {start: evry_nth}}"))


CACHED = """
pseudo_labels:
  beam: {options: [--num-hypotheses, 4, --compress, zst, --lines-per-file, 1000000]}
  closest: {select_from: beam, options: [--select, closest-bleu, --target, "{gold}"]}
  all: {select_from: beam, options: [--keep, 4, --lines-per-file, 5000000]}
  samples: {options: [--search, top_p, --num-hypotheses, 16, --select, mbr]}
caches:
  gold: {options: [--top-k, 8]}
  both: {texts: [gold, closest]}
  labels: {texts: [samples]}
  every: {texts: [all, gold]}
runs:
  hinton: {cache: gold, overrides: [distillation=hinton_cached]}
  hybrid: {pseudo: closest, cache: both, overrides: [distillation=hybrid_cached]}
  nbest:
    pseudo: samples
    cache: labels
    overrides: [distillation=hybrid_nbest, "+model.distillation.teacher.cache=${cache}"]
  best: {pseudo: beam, cache: every, overrides: [distillation=hybrid_cached]}
"""


def test_caches_of_gold_and_of_chosen_labels(tmp_path):
    stages = stages_of(read_recipe(write(tmp_path, CACHED)), tmp_path)
    labels, text = tmp_path / "out" / "pseudo", tmp_path / "out" / "corpus"
    gold = ["--source", str(text / "train.de"), "--target", str(text / "train.en")]

    def texts(name: str) -> list[str]:
        command = stages[f"cache-{name}"].command
        return command[command.index("--teacher") + 2 : command.index("--output-dir")]

    assert texts("gold") == [*gold, "--top-k", "8"]
    assert texts("both") == [*gold, "--labels", str(labels / "closest")]
    assert texts("labels") == ["--labels", str(labels / "samples")]
    assert texts("every") == [*gold, "--labels", str(labels / "all")]
    sizes = {"beam": ["--compress", "zst", "--lines-per-file", "1000000"], "all": ["--lines-per-file", "5000000"]}
    for name, size in sizes.items():
        command = stages[f"pseudo-{name}"].command
        assert command[command.index(size[0]) :][: len(size)] == size
    assert stages["cache-gold"].needs == ("teacher",)
    assert stages["cache-both"].needs == ("teacher", "pseudo-closest")
    assert stages["hybrid"].needs == ("pseudo-closest", "cache-both")
    assert list(stages).index("pseudo-samples") < list(stages).index("cache-labels") < list(stages).index("nbest")
    spent = stages["report"].spent
    assert spent["hinton"] == ("cache-gold",)
    assert spent["hybrid"] == ("pseudo-closest", "pseudo-beam", "cache-both")
    assert spent["best"] == ("pseudo-beam", "pseudo-all", "cache-every")  # whose labels hold all choices
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        teacher = compose("distill", essence(stages["nbest"].command)[1:]).model.distillation.teacher
    assert teacher == {
        "model_path": str(tmp_path / "out/teacher/teacher.nemo"),
        "cache": str(tmp_path / "out/caches/labels"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("texts: [samples]", "texts: [sample]"), r"caches.labels.texts: got 'sample'; .*did you mean 'samples'"),
        (("texts: [samples]", "texts: []"), r"caches.labels.texts: got \[\]; give gold, names of pseudo-labels"),
        (("texts: [samples]", "texts: [gold, gold]"), r"caches.labels.texts: got \['gold', 'gold'\]; give gold"),
        (
            ("texts: [gold, closest]", "texts: [gold]"),
            "runs.hybrid.cache: 'both' lacks 'closest'; add it to",
        ),
        (("cache: gold, ov", "cache: labels, ov"), "runs.hinton.cache: 'labels' lacks 'gold'; add it to its texts"),
        (("  samples: {", "  gold: {"), "pseudo_labels.gold: caches call the training text so; give another name"),
    ],
)
def test_caches_that_lack_what_is_trained_on(tmp_path, change, message):
    assert change[0] in CACHED
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, CACHED.replace(*change)))


def test_a_teacher_beside_a_cache_hears_what_it_lacks(tmp_path):
    missing = CACHED.replace("texts: [gold, closest]", "texts: [gold]").replace(
        "distillation=hybrid_cached]}\n  nbest",
        "distillation=hybrid_cached, ++model.distillation.teacher.on_miss=teacher]}\n  nbest",
    )
    assert read_recipe(write(tmp_path, missing)).caches["both"].texts == ["gold"]


GRID = """
caches: {best: {options: [--top-k, 8]}}
runs: {plain: {plain: true}}
grid:
  temperatures: [0.5, 1]
  starts: {random: [], layers: [keep=last]}
  objectives:
    nll: {label: NLL, tempered: false, overrides: [keep=best]}
    kd: {cache: best}
  seeds: {kd_layers_1: [1, 2]}
changes: {Start: {rows: {kd: [kd_layers_1, kd_random_1]}}}
"""


def test_a_grid_is_a_run_at_each_point(tmp_path):
    recipe = read_recipe(write(tmp_path, GRID))
    tempered = [f"kd_{start}_{each}" for start in ("random", "layers") for each in (0.5, 1)]
    assert list(recipe.runs) == ["plain", "nll_random", *tempered[:2], "nll_layers", *tempered[2:]]
    assert recipe.runs["nll_layers"].overrides == ["keep=best", "keep=last"]
    assert recipe.runs["kd_layers_1"].seeds == [1, 2]
    stages = stages_of(recipe, tmp_path)
    run = stages["kd_layers_0.5"]
    assert {"keep=last", "model.distillation.objective.word_kd.temperature=0.5"} <= set(run.command)
    assert f"cache={tmp_path / 'out' / 'caches' / 'best'}" in run.command
    assert run.needs == ("teacher", "cache-best")
    assert stages["cache-best"].command[-4:-2] == ["--top-k", "8"]
    report = stages["report"].command
    assert stages["report"].spent["kd_layers_1"] == ("cache-best",)
    assert report[report.index("--layout") + 1] == str(graph(recipe, tmp_path).layout_path())
    layout = json.loads(layout_of(recipe))
    rows = {"NLL": [None, "nll_layers"], "kd": ["kd_layers_0.5", "kd_layers_1"]}
    assert layout["grids"]["Start: layers"] == {"columns": ["τ = 0.5", "τ = 1"], "rows": rows}
    assert layout["changes"]["Start"]["rows"] == {"kd": ["kd_layers_1", "kd_random_1"]}


def test_other_tables_make_another_report(tmp_path):
    paths = set()
    for text in (GRID, GRID.replace("changes: {Start", "changes: {Begin")):
        paths.add(graph(read_recipe(write(tmp_path, text)), tmp_path).layout_path())
    assert len(paths) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: {kd_layers_1", "seeds: {kd_layer_1"), "recipe.grid.seeds.kd_layer_1: no such run; the grid has"),
        (("starts: {random: [], layers: [keep=last]}", "starts: {}"), "recipe.grid.starts: is empty"),
        (("cache: best", "cache: worst"), "recipe.runs.kd_random_0.5.cache: got 'worst'; give one of best"),
        (
            ("random: []", "random: "),
            r"\n  recipe.grid.starts.random: got None of type NoneType; give a list \(an empty one is \[\]\)$",
        ),
        (("random: []", "random: 5"), r"\n  recipe.grid.starts.random: got 5 of type int; give a list$"),
        (("kd_layers_1: [1, 2]", "kd_layers_1: "), r"\n  recipe.grid.seeds.kd_layers_1: got None of .*\[\]\)$"),
        (("runs: {plain: {plain: true}}", "tests: {news: }"), r"\n  recipe.tests.news: got None of .*\[\]\)$"),
        (
            ("runs: {plain", "runs: {kd_random_1: {plain: true}, plain"),
            "recipe.runs.kd_random_1: the grid has a run of that name; give this one another name",
        ),
        (
            ("random: [], layers: [keep=last]}", "layers: [keep=last], few_layers: []}"),
            "recipe.grid: objective 'kd' from start 'few_layers' has a run called 'kd_few_layers_0.5', as 'kd_few' "
            "from 'layers' has; give one of the four another name$",
        ),
        (
            ("label: NLL", "label: kd"),
            "recipe.grid.objectives.kd: its row is called 'kd', as that of 'nll'; give a label",
        ),
    ],
)
def test_faulty_grids(tmp_path, change, message):
    text = GRID[: GRID.index("changes:")]  # whose rows are there no more
    text = text.replace("kd: {cache: best}", "kd: {cache: best}\n    kd_few: {cache: best}")
    assert change[0] in text
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, text.replace(*change)))


def test_validations_are_counted_in_steps(tmp_path):
    """Lightning counts batches, of which a step has several where gradients are accumulated."""
    text = "student: {steps: 40, validate_every: 10}\nvalidations: 2\nruns: {plain: {plain: true}, a: {}}"
    for several, found in (("", "10"), ("overrides: [+trainer.accumulate_grad_batches=4]", "40")):
        stages = stages_of(read_recipe(write(tmp_path, f"{text}\n{several}")), tmp_path)
        assert all(f"trainer.val_check_interval={found}" in stages[name].command for name in ("plain", "a"))
    own = text.replace("a: {}", "a: {overrides: [+trainer.accumulate_grad_batches=3]}")
    stages = stages_of(read_recipe(write(tmp_path, own)), tmp_path)
    assert "trainer.val_check_interval=30" in stages["a"].command
    assert "trainer.val_check_interval=10" in stages["plain"].command


def test_a_run_of_its_own_shape_has_the_plain_run_of_that_shape_as_its_twin(tmp_path):
    wide = "overrides: [model.encoder.hidden_size=96]"
    text = "runs: {wide_plain: {plain: true, WIDE}, plain: {plain: true}, a: {}, wide: {WIDE}, deep: {overrides: "
    text += "[model.encoder.num_layers=2]}}"
    recipe = read_recipe(write(tmp_path, text.replace("WIDE", wide)))
    assert {label: Twins(recipe).of(label) for label in ("a", "wide", "deep")} == {
        "a": "plain",
        "wide": "wide_plain",
        "deep": "plain",  # none is as deep; the report says so
    }
    assert Twins(recipe).plain() == "plain"
    stages = stages_of(recipe, tmp_path)
    command = stages["evaluation"].command
    compared = command[command.index("--compare") + 1 :]
    assert {"a:plain", "wide:wide_plain", "wide:plain", "deep:plain"} < set(compared)
    command = stages["report"].command
    assert command[command.index("--plain") + 1] == "plain"
    assert "wide:wide_plain" in command[command.index("--twins") :]


@pytest.mark.parametrize("name", ["stages.json", "plan.json", "progress.json"])
def test_runs_that_would_take_the_place_of_a_jobs_records(name, tmp_path):
    with pytest.raises(InputError, match="the job has something of that name"):
        read_recipe(write(tmp_path, json.dumps({"runs": {name: {"plain": True}}})))


def test_a_run_called_as_a_seed_of_a_row(tmp_path):
    with pytest.raises(InputError, match="recipe.runs.plain@seed5: ends as the seeds of one row do"):
        read_recipe(write(tmp_path, "runs: {plain@seed5: {plain: true}}"))


def test_two_languages_are_needed(tmp_path):
    with pytest.raises(InputError, match="recipe.source, recipe.target: both are 'el'; give two languages"):
        read_recipe(write(tmp_path, "{source: el, target: el, runs: {plain: {plain: true}}}"))


def test_a_target_takes_the_place_of_a_recipes_model(tmp_path):
    path = write(tmp_path, "{student: {model: small_1x1}, runs: {plain: {plain: true}}}")
    with pytest.raises(InputError, match=r"got both a model and a target; .*--set student.model=null"):
        read_recipe(path, settings=["student.compression=5"])
    student = read_recipe(path, settings=["student.compression=5", "student.model=null"]).student
    assert (student.compression, student.has_target) == (5, True)
    assert read_recipe(path, settings=["student.model=null"]).student.model == "tiny_1x1"
