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
"""Terms on inner layers and terms of a recipe, in real students."""

import re
import tarfile
from pathlib import Path

import pytest
import torch
from nemo.collections.common.parts import form_attention_mask
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistillationConfig, DistillationModelPT, DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.capture import CaptureSpec, ForwardCapture
from nemo_distill.errors import CaptureError, ConfigurationError, InputError
from nemo_distill.losses import AttentionMapLoss, HiddenStateLoss, ObjectiveInputs, ObjectiveTerm

HIDDEN = {"hidden": {"weight": 0.5}}
WIDE = {"hidden_size": 32}  # as wide as the tiny teacher


class EmbeddingNorm(ObjectiveTerm):
    """A term with captures, a setting and a parameter of its own."""

    needs_teacher = True

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.student_captures = (CaptureSpec("encoder._embedding"),)
        self.teacher_captures = (CaptureSpec("encoder._embedding"),)

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        norms = [
            captures[self.student_captures[0]][inputs.source_mask].norm(dim=-1).mean()
            for captures in (inputs.student_captures, inputs.teacher_captures)
        ]
        return (self.scale * (norms[0] - norms[1])).abs() ** self.power


class Misdeclared(ObjectiveTerm):
    """Says in its settings what it reads, and what it is a mean over."""

    def __init__(self, mean_over: str = "target", teacher: str | None = None) -> None:
        super().__init__()
        self.mean_over = mean_over
        self.teacher_captures = (CaptureSpec(teacher),) if teacher else ()


class NotAScalar(ObjectiveTerm):
    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        return inputs.mask.float()


class MyStack(torch.nn.Module):
    """An encoder whose layers have another name than NeMo's."""

    def __init__(self, stack: torch.nn.Module) -> None:
        super().__init__()
        self.blocks = stack.layers
        self.final_layer_norm = stack.final_layer_norm

    def forward(self, encoder_states: torch.Tensor, encoder_mask: torch.Tensor) -> torch.Tensor:
        attention_mask = form_attention_mask(encoder_mask)
        for block in self.blocks:
            encoder_states = block(encoder_states, attention_mask, encoder_states)
        return self.final_layer_norm(encoder_states)


class RenamedLayersModel(MTEncDecModel):
    def __init__(self, cfg, trainer=None) -> None:
        super().__init__(cfg=cfg, trainer=trainer)
        self.encoder._encoder = MyStack(self.encoder._encoder)


class RenamedLayersStudent(DistillationModelPT, RenamedLayersModel):
    pass


def states_of(model, batch, paths: list[str], side: str = "output") -> list[torch.Tensor]:
    with ForwardCapture(model, {path: CaptureSpec(path, side) for path in paths}) as captured:
        model(*batch[:4])
    return [captured[path] for path in paths]


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_hidden_equals_the_loss_on_both_models_states(student_config, first_batch, distance):
    """Student layer 0 of 1 is compared with the teacher's last, both after the final norm."""
    objective = {"hidden": {"weight": 0.5, "distance": distance}}
    student = DistilledMTEncDecModel(student_config(objective=objective, **WIDE)).eval()
    batch = first_batch(student)
    terms = student.distillation_terms(batch)
    paths = ["encoder._encoder.final_layer_norm", "decoder._decoder.final_layer_norm"]
    loss, values = HiddenStateLoss(distance), []
    masks = batch[1], batch[4] != student.decoder_tokenizer.pad_id
    student_states = states_of(student, batch, paths)
    teacher_states = states_of(student._teacher.model, batch, paths)
    for mine, theirs, mask in zip(student_states, teacher_states, masks, strict=True):
        assert not mask.all()
        values.append(loss(student=mine, teacher=theirs, mask=mask))
    torch.testing.assert_close(terms["hidden"], torch.stack(values).mean())
    torch.testing.assert_close(terms["loss"], terms["nll"] + terms["word_kd"] + 0.5 * terms["hidden"])
    assert terms["hidden"] > 0.01


def test_hidden_of_a_pair_that_is_not_the_last_reads_the_layers(student_config, first_batch):
    objective = {"hidden": {"weight": 1, "encoder": [[0, 0]], "decoder": None}}
    student = DistilledMTEncDecModel(student_config(objective=objective, **WIDE)).eval()
    batch = first_batch(student)
    (mine,), (theirs,) = (
        states_of(model, batch, ["encoder._encoder.layers.0"]) for model in (student, student._teacher.model)
    )
    wanted = HiddenStateLoss()(student=mine, teacher=theirs, mask=batch[1])
    torch.testing.assert_close(student.distillation_terms(batch)["hidden"], wanted)
    assert str(student.objective).endswith(" + 1.0 * Hidden(cosine, encoder 0→0)")


def test_post_ln_layers_have_no_final_norm(student_config, first_batch):
    post_ln = {f"{side}.{key}": False for side in ("encoder", "decoder") for key in ("pre_ln",)}
    student = DistilledMTEncDecModel(student_config(objective=HIDDEN, **WIDE, **post_ln)).eval()
    student_captures = {str(spec) for spec in student.objective.terms["hidden"].student_captures}
    assert student_captures == {"encoder._encoder.layers.0", "decoder._decoder.layers.0"}
    assert student.distillation_terms(first_batch(student))["hidden"] > 0


@pytest.mark.parametrize("distance", ["kl", "mse"])
def test_attention_equals_the_loss_on_both_models_maps(student_config, first_batch, distance):
    objective = {"attention": {"weight": 2.0, "distance": distance}}
    config = student_config(
        objective=objective, **{"encoder.num_attention_heads": 4, "decoder.num_attention_heads": 4}
    )
    student = DistilledMTEncDecModel(config)
    assert student.encoder._encoder.layers[0].first_sub_layer.attn_dropout.p > 0
    batch, loss, values = first_batch(student), AttentionMapLoss(distance), []
    target_mask = batch[4] != student.decoder_tokenizer.pad_id
    for layers, sub_layer, mask in (
        ("encoder._encoder.layers", "first", batch[1]),
        ("decoder._decoder.layers", "first", target_mask),
        ("decoder._decoder.layers", "second", target_mask),
    ):
        (mine,), (theirs,) = (
            states_of(model, batch, [f"{layers}.{layer}.{sub_layer}_sub_layer.attn_dropout"], "input")
            for model, layer in ((student.eval(), 0), (student._teacher.model, 1))
        )
        assert mine.shape[1], theirs.shape[1] == (4, 2)
        torch.testing.assert_close(mine.sum(-1), torch.ones(()).expand(mine.shape[:-1]))
        values.append(loss(student=mine, teacher=theirs, mask=mask))
    terms = student.distillation_terms(batch)
    torch.testing.assert_close(terms["attention"], torch.stack(values).mean())
    # What is compared lies before the dropout: in training mode too, each row sums to 1.
    student.train()
    (mine,) = states_of(student, batch, ["decoder._decoder.layers.0.second_sub_layer.attn_dropout"], "input")
    torch.testing.assert_close(mine.sum(-1), torch.ones(()).expand(mine.shape[:-1]))


def test_the_objective_prints_every_term(student_config):
    objective = {
        "hidden": {"weight": 0.5, "projection": True},
        "attention": {"weight": 2, "encoder": None, "decoder": [[0, 1]], "cross": "first"},
        "terms": [{"_target_": f"{__name__}.EmbeddingNorm", "weight": 0.1}],
    }
    student = DistilledMTEncDecModel(student_config(objective=objective))
    assert str(student.objective) == (
        "1.0 * NLL + 1.0 * WordKD(forward_kl, τ=1) + 0.5 * Hidden(cosine, encoder 0→1, decoder 0→1, projected encoder "
        "16→32, projected decoder 16→32) + 2.0 * Attention(kl, decoder 0→1, cross 0→0) + 0.1 * EmbeddingNorm"
    )


def test_all_padding_gives_zero(student_config, first_batch):
    objective = {"hidden": {"weight": 1, "projection": True}, "attention": {"weight": 1}}
    student = DistilledMTEncDecModel(student_config(objective=objective))
    batch = first_batch(student)
    batch[1] = torch.zeros_like(batch[1])
    batch[4] = torch.full_like(batch[4], student.decoder_tokenizer.pad_id)
    terms = student.distillation_terms(batch)
    terms["loss"].backward()
    assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(
        ("loss", "nll", "word_kd", "hidden", "attention"), 0
    )
    assert not any(parameter.grad.any() for parameter in student.parameters() if parameter.grad is not None)


def test_the_teacher_runs_once_a_step_and_stays_as_it_is(student_config, tiny_trainer):
    objective = {"hidden": {"weight": 1, "projection": True}, "attention": {"weight": 1}}
    trainer = tiny_trainer(3, limit_val_batches=0)
    student = DistilledMTEncDecModel(student_config(objective=objective), trainer=trainer)
    teacher, calls = student._teacher.model, []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student.on_train_start = calls.clear  # before, it is asked what it makes of the text
    trainer.fit(student)
    assert len(calls) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert {"train_loss", "train_hidden", "train_attention"} <= set(trainer.callback_metrics)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    terms = [metrics[f"train_{name}"] for name in ("nll", "word_kd", "hidden", "attention")]
    assert metrics["train_loss"] == pytest.approx(sum(terms), rel=1e-5)


def test_the_projection_is_trained_resumed_and_left_behind(student_config, tiny_trainer, tmp_path):
    config = student_config(objective={"hidden": {"weight": 1, "projection": True}})
    trainer = tiny_trainer(2, limit_val_batches=0)
    student = DistilledMTEncDecModel(config, trainer=trainer)
    names = [name for name, _ in student.named_parameters() if name.startswith("objective.")]
    assert names == [f"objective.terms.hidden.losses.{side}.projection.weight" for side in ("encoder", "decoder")]
    before = {name: student.state_dict()[name].clone() for name in names}
    trainer.fit(student)
    optimized = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    after = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    for name in names:
        assert id(student.get_parameter(name)) in optimized
        assert not torch.equal(before[name], after[name])
    trainer.save_checkpoint(tmp_path / "two.ckpt")

    trainer = tiny_trainer(3, limit_val_batches=0)
    resumed = DistilledMTEncDecModel(config, trainer=trainer)
    seen = []
    resumed.register_forward_pre_hook(lambda *_: seen.append({n: resumed.state_dict()[n].clone() for n in names}))
    trainer.fit(resumed, ckpt_path=tmp_path / "two.ckpt")
    assert all(torch.equal(seen[0][name], after[name]) for name in names)
    trainer = tiny_trainer(3, limit_val_batches=0)
    other = DistilledMTEncDecModel(student_config(), trainer=trainer)
    with pytest.raises(InputError, match="another objective: it lacks nothing, and has objective.terms.hidden.losses"):
        trainer.fit(other, ckpt_path=tmp_path / "two.ckpt")
    opened = DistilledMTEncDecModel.load_from_checkpoint(str(tmp_path / "two.ckpt"), map_location="cpu")
    assert opened.state_dict().keys() == after.keys() - set(names)  # opened for inference

    student.save_to(str(tmp_path / "student.nemo"))
    assert all(name in student.state_dict() for name in names)  # of the live model nothing was taken away
    restored = MTEncDecModel.restore_from(str(tmp_path / "student.nemo"))
    assert type(restored) is MTEncDecModel
    assert restored.state_dict().keys() == after.keys() - set(names)
    with tarfile.open(tmp_path / "student.nemo") as archive:
        archive.extractall(tmp_path)
    assert not [name for name in torch.load(tmp_path / "model_weights.ckpt", weights_only=True) if "objective" in name]


def test_a_projection_leaves_the_random_state_alone(student_config):
    states = []
    for objective in (None, {"hidden": {"weight": 1, "projection": True}}):
        torch.manual_seed(3)
        DistilledMTEncDecModel(student_config(objective=objective))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_hidden_gradient_moves_the_student_towards_the_teacher(student_config, first_batch):
    objective = {"nll": {"weight": 0}, "word_kd": {"weight": 0}, "hidden": {"weight": 1, "projection": True}}
    torch.manual_seed(1)
    student = DistilledMTEncDecModel(student_config(objective=objective)).eval()
    batch = first_batch(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    values = []
    for _ in range(60):
        loss = student.distillation_terms(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_mixed_precision(student_config, tiny_trainer):
    objective = {"hidden": {"weight": 1, "projection": True}, "attention": {"weight": 1}}
    trainer = tiny_trainer(1, precision="bf16-mixed", limit_val_batches=0)
    trainer.fit(DistilledMTEncDecModel(student_config(objective=objective), trainer=trainer))
    assert trainer.callback_metrics["train_hidden"] > 0


def test_unequal_widths_without_a_projection(student_config):
    message = (
        "objective.hidden: the models have different widths: encoder 16 against the teacher's 32, decoder 16 against "
        "the teacher's 32; set hidden.projection: true .*or give the student the teacher's hidden_size"
    )
    with pytest.raises(ConfigurationError, match=message):
        DistilledMTEncDecModel(student_config(objective=HIDDEN))


def test_layers_that_do_not_divide(student_config):
    with pytest.raises(ConfigurationError, match=r"objective.hidden.encoder: uniform needs .* but 3 are more than 2"):
        DistilledMTEncDecModel(student_config(objective=HIDDEN, num_layers=3, **WIDE))
    objective = {"attention": {"weight": 1, "encoder": None, "decoder": None, "cross": [[0, 2]]}}
    with pytest.raises(
        ConfigurationError, match=r"attention.cross: the pair \[0, 2\] is out of range: the teacher has"
    ):
        DistilledMTEncDecModel(student_config(objective=objective))


def test_inner_layers_need_one_teacher_that_runs(student_config):
    class FromElsewhere:
        model = None

    student = DistilledMTEncDecModel(student_config())
    config = DistillationConfig.from_section(student_config(objective=HIDDEN, **WIDE).distillation)
    with pytest.raises(
        ConfigurationError, match="objective.hidden reads inner layers of the teacher.*hidden.weight to"
    ):
        student.setup_distillation(config, teacher=FromElsewhere())


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        (
            {"student_encoder_layers": "encoder.layers"},
            r"no module 'encoder.layers' in .*nearest are .*_encoder.layers",
        ),
        ({"teacher_decoder_layers": "decoder._decoder"}, "decoder._decoder in MTEncDecModel is a .*no list of layers"),
    ],
)
def test_wrong_layer_paths(student_config, capture, message):
    with pytest.raises(CaptureError, match=message):
        DistilledMTEncDecModel(student_config(objective=HIDDEN, capture=capture, **WIDE))


def test_wrong_attention_path(student_config, first_batch):
    config = student_config(
        objective={"attention": {"weight": 1}}, capture={"student_self_attention": "first_sub_layer.query_net"}
    )
    student = DistilledMTEncDecModel(config)
    message = (
        "input of encoder._encoder.layers.0.first_sub_layer.query_net and the teacher's .* cannot be compared: .*"
    )
    with pytest.raises(CaptureError, match=message + "name other modules under `distillation.capture`"):
        student.distillation_terms(first_batch(student))


def test_layers_with_other_names(student_config, first_batch):
    config = student_config(objective=HIDDEN, capture={"student_encoder_layers": "encoder._encoder.blocks"}, **WIDE)
    student = RenamedLayersStudent(config).eval()
    specs = [str(spec) for spec in student.objective.terms["hidden"].student_captures]
    assert specs[0] == "encoder._encoder.final_layer_norm"
    assert student.distillation_terms(first_batch(student))["hidden"] > 0


def test_a_term_of_a_recipe(student_config, tiny_trainer, tmp_path):
    entry = {"_target_": f"{__name__}.EmbeddingNorm", "weight": 0.5, "name": "norms", "power": 1.0}
    trainer = tiny_trainer(2, limit_val_batches=0)
    student = DistilledMTEncDecModel(
        student_config(objective={"word_kd": {"weight": 0}, "terms": [entry]}), trainer=trainer
    )
    assert student.objective.terms["norms"].power == 1.0
    trainer.fit(student)
    metrics = trainer.callback_metrics
    assert metrics["train_norms"] > 0
    assert metrics["train_loss"].item() == pytest.approx((metrics["train_nll"] + 0.5 * metrics["train_norms"]).item())
    assert student.objective.terms["norms"].scale != 1
    student.save_to(str(tmp_path / "student.nemo"))
    restore_model(tmp_path / "student.nemo")


def test_a_term_without_weight_is_not_even_imported(student_config):
    entry = {"_target_": "no_such_module.Term", "weight": 0}
    assert not DistilledMTEncDecModel(student_config(objective={"terms": [entry]})).objective.terms


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"_target_": "no_such_module.Term"},
            "_target_ no_such_module.Term cannot be imported: .*is its module on PYTH",
        ),
        ({"_target_": f"{__name__}.Missing"}, "Missing cannot be imported: .*has no attribute 'Missing'"),
        (
            {"_target_": "torch.nn.Linear"},
            "_target_ torch.nn.Linear is no class of terms; let it subclass nemo_distill",
        ),
        ({"_target_": "os.mkdir", "path": "x"}, "_target_ os.mkdir is no class of terms"),
        (
            {"_target_": f"{__name__}.EmbeddingNorm", "pwer": 1},
            r"EmbeddingNorm refuses its settings \{'pwer': 1\}: .*pwer",
        ),
        (
            {"_target_": f"{__name__}.Misdeclared", "mean_over": "tokens"},
            "Misdeclared: mean_over is 'tokens'; give source, target, sentence or None",
        ),
        (
            {"_target_": f"{__name__}.Misdeclared", "teacher": "encoder"},
            "Misdeclared: its teacher_captures read the teacher, .*; give it `needs_teacher = True`",
        ),
    ],
)
def test_bad_terms(student_config, entry, message):
    with pytest.raises(ConfigurationError, match=message):
        DistilledMTEncDecModel(student_config(objective={"terms": [entry]}))


def test_a_term_must_give_a_scalar(student_config, first_batch):
    entry = {"_target_": f"{__name__}.NotAScalar"}
    student = DistilledMTEncDecModel(student_config(objective={"terms": [entry]}))
    with pytest.raises(ConfigurationError, match=r"terms: not_a_scalar gives torch.Size\(.*must give a scalar tensor"):
        student.distillation_terms(first_batch(student))


def test_the_example_of_the_page(student_config, first_batch, tmp_path, monkeypatch):
    """The class in docs/recipe.md, as printed there."""
    page = (Path(__file__).parents[3] / "docs/recipe.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*class \w+\(ObjectiveTerm\).*?)```", page, re.DOTALL)
    (entry,) = re.findall(r"- \{_target_: (\S+?), ", page)
    module, _, name = entry.rpartition(".")
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = student_config(objective={"terms": [{"_target_": entry, "weight": 0.5}]})
    for precision in ("fp32", "bf16"):
        config.distillation.teacher.precision = precision
        student = DistilledMTEncDecModel(config)
        terms = student.distillation_terms(first_batch(student))
        (own,) = terms.keys() - {"loss", "nll", "word_kd"}
        assert f"0.5 * {name}" in str(student.objective)
        assert terms[own].requires_grad
