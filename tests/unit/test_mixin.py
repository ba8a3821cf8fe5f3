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
"""The student: what it logs, what it saves, what stops it, and which classes it can stand on."""

import contextlib
import logging as python_logging
import math
import tarfile

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from omegaconf import OmegaConf

from nemo_distill import DistillationConfig, DistillationModelPT, DistilledMTEncDecModel
from nemo_distill.capture import CaptureSpec
from nemo_distill.config.section import LOGITS_PATH
from nemo_distill.errors import CaptureError, ConfigurationError, InputError, NonFiniteError, TeacherError
from nemo_distill.losses import NLLLoss, ObjectiveInputs, ObjectiveTerm, WordLevelKDLoss
from nemo_distill.teachers.heads import linear_head
from nemo_distill.training.trainer import seed_everything


class MyTranslationModel(MTEncDecModel):
    """What a recipe brings along: a subclass with something of its own."""

    def __init__(self, cfg, trainer=None) -> None:
        super().__init__(cfg=cfg, trainer=trainer)
        self.gate = torch.nn.Parameter(torch.ones(()))

    def forward(self, src, src_mask, tgt, tgt_mask):
        return super().forward(src=src, src_mask=src_mask, tgt=tgt, tgt_mask=tgt_mask) * self.gate


class MyStudent(DistillationModelPT, MyTranslationModel):
    pass


class RenamedHead(torch.nn.Module):
    """A head whose layers have other names than NeMo's."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.to_vocabulary = head.mlp.layer0

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.to_vocabulary(hidden_states).log_softmax(-1)


class RenamedHeadModel(MTEncDecModel):
    def __init__(self, cfg, trainer=None) -> None:
        super().__init__(cfg=cfg, trainer=trainer)
        self.log_softmax = RenamedHead(self.log_softmax)
        self.beam_search.log_softmax = self.log_softmax


class RenamedHeadStudent(DistillationModelPT, RenamedHeadModel):
    pass


@contextlib.contextmanager
def nemo_warnings():
    """Collect what NeMo's logger warns of."""
    messages = []
    handler = python_logging.Handler(python_logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging._logger.addHandler(handler)
    try:
        yield messages
    finally:
        logging._logger.removeHandler(handler)


@pytest.fixture
def student(student_config):
    """A fresh student with the default objective, in training mode."""
    torch.manual_seed(1)
    return DistilledMTEncDecModel(student_config()).train()


@pytest.fixture(scope="module")
def trained(student_config, tiny_trainer, tmp_path_factory):
    """A student trained for three steps, its trainer, its checkpoint and its archive."""
    directory = tmp_path_factory.mktemp("trained")
    torch.manual_seed(1)
    trainer = tiny_trainer(3)
    model = DistilledMTEncDecModel(student_config(), trainer=trainer)
    trainer.fit(model)
    trainer.save_checkpoint(directory / "student.ckpt")
    model.save_to(str(directory / "student.nemo"))
    return model, trainer, directory / "student.ckpt", directory / "student.nemo"


def test_terms_equal_the_losses_on_both_models_logits(student, first_batch):
    student.eval()
    batch = first_batch(student)
    source, source_mask, target, target_mask, labels = batch
    terms = student.distillation_terms(batch)
    with torch.no_grad():
        log_probs = student(source, source_mask, target, target_mask)
        teacher_log_probs = student._teacher.model(source, source_mask, target, target_mask)
    mask = labels != student.decoder_tokenizer.pad_id
    nll = NLLLoss()(log_probs=log_probs, labels=labels, mask=mask)
    word_kd = WordLevelKDLoss()(student_logits=log_probs, teacher_logits=teacher_log_probs, mask=mask)
    torch.testing.assert_close(terms["nll"], nll)
    torch.testing.assert_close(terms["word_kd"], word_kd)
    torch.testing.assert_close(terms["loss"], nll + word_kd)
    assert not mask.all()  # there was padding to leave out


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_lean_and_plain_computation_agree(student_config, first_batch, temperature):
    """On real text and a real model, whose output layer is tied to both embeddings, has a bias and another width than
    the teacher's; in float64, where a rounding is far below what a fault would change."""
    results = {}
    for computation in ("lean", "plain"):
        objective = {"computation": computation, "word_kd": {"weight": 2.0, "temperature": temperature}}
        torch.manual_seed(1)
        student = DistilledMTEncDecModel(student_config(objective=objective)).train().double()
        student._teacher.model.double()
        student.log_softmax.mlp.layer0.bias.data.normal_()
        batch = first_batch(student)
        torch.manual_seed(2)
        terms = student.distillation_terms(batch)
        terms["loss"].backward()
        results[computation] = terms, {name: parameter.grad for name, parameter in student.named_parameters()}
    (terms, gradients), (wanted_terms, wanted_gradients) = results["lean"], results["plain"]
    torch.testing.assert_close(terms, wanted_terms, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradients, wanted_gradients, atol=1e-12, rtol=1e-12)
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("computation", ["lean", "plain"])
def test_every_part_of_both_models_runs_once_a_step(student_config, first_batch, computation):
    student = DistilledMTEncDecModel(student_config(objective={"computation": computation}))
    models, calls = {"student": student, "teacher": student._teacher.model}, []
    for owner, model in models.items():
        for part in ("encoder", "decoder"):
            getattr(model, part).register_forward_hook(lambda *_, name=f"{owner}.{part}": calls.append(name))
    student.distillation_terms(first_batch(student))["loss"].backward()
    assert sorted(calls) == ["student.decoder", "student.encoder", "teacher.decoder", "teacher.encoder"]


def test_computation_is_lean_only_for_stock_heads(student, student_config):
    assert student._lean
    assert not MyStudent(student_config())._lean  # its forward changes what the head gives
    with pytest.raises(ConfigurationError, match="computation is lean, but the student has a forward or an output"):
        MyStudent(student_config(objective={"computation": "lean"}))
    assert not DistilledMTEncDecModel(student_config(objective={"computation": "plain"}))._lean


def test_computation_is_not_lean_where_the_head_is_changed_from_outside(student, tiny_teacher_path):
    for place in ("", "log_softmax", "log_softmax.mlp", "log_softmax.mlp.layer0"):
        module = student.get_submodule(place)
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            with register(lambda *_: None):
                assert linear_head(student, LOGITS_PATH) is None
        module.forward = lambda *inputs, own=module.forward: 2 * own(*inputs)
        assert linear_head(student, LOGITS_PATH) is None
        del module.forward
        assert linear_head(student, LOGITS_PATH) is not None
    student.log_softmax.register_forward_hook(lambda module, inputs, output: 2 * output)
    section = {"teacher": {"model_path": str(tiny_teacher_path)}, "objective": {"computation": "lean"}}
    with pytest.raises(ConfigurationError, match="computation is lean, but the student has a forward or an output"):
        student.setup_distillation(DistillationConfig.from_section(section))


class HeadMSE(ObjectiveTerm):
    """A recipe's term that captures the logits, in place of reading them."""

    needs_teacher = True
    student_captures = teacher_captures = (CaptureSpec(LOGITS_PATH),)

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        student, teacher = (
            found[self.student_captures[0]] for found in (inputs.student_captures, inputs.teacher_captures)
        )
        return (student - teacher).square().mean()


def test_a_term_that_captures_the_head_gets_logits(student_config, first_batch):
    """Where the loss is computed from the head's input, that is what would leave it."""
    objective = {"terms": [{"_target_": f"{__name__}.HeadMSE", "weight": 1.0}]}
    found = {}
    for computation in ("auto", "plain"):
        seed_everything(1)
        model = DistilledMTEncDecModel(student_config(objective={**objective, "computation": computation}))
        found[computation] = model.distillation_terms(first_batch(model))["head_mse"]
        assert not model._lean
    assert found["auto"] == found["plain"]
    with pytest.raises(ConfigurationError, match="computation is lean, but head_mse reads whole logits"):
        DistilledMTEncDecModel(student_config(objective={**objective, "computation": "lean"}))


def test_heads_of_different_vocabularies_are_refused(student, first_batch):
    head = student._teacher.model.log_softmax.mlp.layer0
    head.weight = torch.nn.Parameter(torch.cat([head.weight, head.weight[:8]]), requires_grad=False)
    head.bias = torch.nn.Parameter(torch.cat([head.bias, head.bias[:8]]), requires_grad=False)
    with pytest.raises(CaptureError, match="student's output layer has 120 rows, the teacher's 128; give the student"):
        student.distillation_terms(first_batch(student))


def test_the_head_is_back_after_a_lean_step(student, first_batch):
    batch = first_batch(student)
    wanted = student._teacher.logits(batch)
    student.distillation_terms(batch)
    assert torch.equal(student._teacher.logits(batch), wanted)
    assert student(*batch[:4]).exp().sum(-1).allclose(torch.ones(()))
    with pytest.raises(ValueError, match="Encoder ids are out of range"):
        student.distillation_terms([batch[0] + 10**6, *batch[1:]])
    assert torch.equal(student._teacher.logits(batch), wanted)


def test_temperature_divides_the_logits_before_the_softmax(student_config, first_batch):
    objective = {"word_kd": {"temperature": 3.0}, "computation": "plain"}
    student = DistilledMTEncDecModel(student_config(objective=objective)).eval()
    batch = first_batch(student)
    student.log_softmax.mlp.layer0.bias.data.normal_()  # a bias shows whether logits or hidden states are divided
    states = {}
    handles = [
        model.log_softmax.mlp.layer0.register_forward_hook(
            lambda m, i, o, name=name: states.update({name: o.detach()})
        )
        for name, model in (("student", student), ("teacher", student._teacher.model))
    ]
    terms = student.distillation_terms(batch)
    for handle in handles:
        handle.remove()
    mask = batch[4] != student.decoder_tokenizer.pad_id
    p, q = ((states[name][mask].double() / 3).softmax(-1) for name in ("student", "teacher"))
    wanted = 9 * (q * (q / p).log()).sum(-1).mean()
    torch.testing.assert_close(terms["word_kd"].double(), wanted, atol=1e-6, rtol=1e-4)


def test_logs_every_term(trained):
    metrics = trained[1].callback_metrics
    assert {"train_loss", "train_nll", "train_word_kd", "val_loss", "val_sacreBLEU", "lr"} <= set(metrics)
    assert metrics["train_loss"].item() == pytest.approx((metrics["train_nll"] + metrics["train_word_kd"]).item())
    assert "train_hidden" not in metrics


@pytest.mark.slow
def test_a_compiled_teacher(student_config, first_batch, tiny_teacher_path):
    losses = []
    for options in ({}, {"compile": "aot_eager"}):
        config = student_config(distillation={"teacher": {"model_path": str(tiny_teacher_path), **options}})
        torch.manual_seed(1)
        student = DistilledMTEncDecModel(config).eval()
        layer = student._teacher.model.get_submodule("decoder._decoder.layers.0")
        assert ("forward" in vars(layer)) == bool(options)
        losses.append(student.distillation_terms(first_batch(student))["loss"])
    torch.testing.assert_close(*losses)


def test_trains_in_mixed_precision(student_config, tiny_trainer):
    trainer = tiny_trainer(2, precision="bf16-mixed")
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    trainer.fit(student)
    assert {"train_word_kd", "val_sacreBLEU"} <= set(trainer.callback_metrics)
    assert {parameter.dtype for parameter in student._teacher.model.parameters()} == {torch.float32}


def test_plain_weights_log_no_teacher_term(student_config, tiny_trainer):
    trainer = tiny_trainer(1, limit_val_batches=0)
    student = DistilledMTEncDecModel(student_config(objective={"word_kd": {"weight": 0}}), trainer=trainer)
    assert student._teacher is None
    trainer.fit(student)
    assert "train_word_kd" not in trainer.callback_metrics
    assert trainer.callback_metrics["train_loss"] == trainer.callback_metrics["train_nll"]


def test_a_teacher_without_weight_need_not_exist(student_config):
    config = student_config(objective={"word_kd": {"weight": 0}})
    config.distillation.teacher.model_path = "not-there.nemo"
    assert DistilledMTEncDecModel(config)._teacher is None


def test_training_moves_the_student(trained, student_config):
    torch.manual_seed(1)
    fresh = DistilledMTEncDecModel(student_config()).state_dict()
    moved = [name for name, tensor in trained[0].state_dict().items() if not torch.equal(tensor, fresh[name])]
    assert len(moved) > len(fresh) / 2


def every_tensor(value):
    """Yield each tensor in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from every_tensor(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from every_tensor(item)


def test_the_teacher_is_in_nothing_that_is_saved_or_trained(trained, tmp_path):
    """The teacher is twice as wide as the student: neither its names, nor its sizes, nor its bytes may be found."""
    model, trainer, checkpoint_path, archive_path = trained
    teacher = model._teacher.model
    assert not [name for name, _ in model.named_modules() if "teacher" in name]
    assert not [name for name in model.state_dict() if "teacher" in name]
    own = {id(parameter) for parameter in model.parameters()}
    trained_ones = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert trained_ones == own
    assert not own & {id(parameter) for parameter in teacher.parameters()}

    telling = [parameter for parameter in teacher.parameters() if parameter.unique().numel() > 9]
    samples = [parameter.flatten()[:16].numpy().tobytes() for parameter in telling]
    assert len(samples) > 10
    with tarfile.open(archive_path) as archive:
        archive.extractall(tmp_path)
    assert {path.name.split("_")[-1] for path in tmp_path.iterdir()} >= {"config.yaml", "weights.ckpt"}
    for path in [checkpoint_path, *tmp_path.iterdir()]:
        content = path.read_bytes()
        assert not [sample for sample in samples if sample in content], path.name
    own_sample = model.decoder.embedding.token_embedding.weight.flatten()[:16].detach().numpy().tobytes()
    assert own_sample in checkpoint_path.read_bytes()  # the search finds what is there
    assert own_sample in (tmp_path / "model_weights.ckpt").read_bytes()

    checkpoint = trainer.strategy.load_checkpoint(checkpoint_path)
    weights = torch.load(tmp_path / "model_weights.ckpt", weights_only=True)
    assert weights.keys() == checkpoint["state_dict"].keys() == model.state_dict().keys()
    matrices = {tensor.shape for tensor in every_tensor([checkpoint, weights]) if tensor.ndim == 2}
    assert matrices
    assert not matrices & {parameter.shape for parameter in teacher.parameters() if parameter.ndim == 2}


def test_the_archive_is_a_plain_model(trained, tmp_path):
    model, _, _, archive_path = trained
    restored = MTEncDecModel.restore_from(str(archive_path))
    assert type(restored) is MTEncDecModel
    assert restored.cfg.target.endswith("mt_enc_dec_model.MTEncDecModel")
    assert "distillation" not in restored.cfg
    assert "distillation" in model.cfg  # of the live model nothing was taken away
    assert all(torch.equal(tensor, restored.state_dict()[name]) for name, tensor in model.state_dict().items())
    with tarfile.open(archive_path) as archive:
        config = OmegaConf.create(archive.extractfile("./model_config.yaml").read().decode())
        names = [name.removeprefix("./") for name in archive.getnames()]
    assert config.encoder_tokenizer.tokenizer_model.removeprefix("nemo:") in names


def test_a_failed_save_keeps_the_older_archive(trained, tmp_path, monkeypatch):
    model, path = trained[0], tmp_path / "student.nemo"
    path.write_bytes(b"older")
    monkeypatch.setattr(model, "state_dict", lambda: {}["broken"])
    with pytest.raises(KeyError):
        model.save_to(str(path))
    assert path.read_bytes() == b"older"
    assert [item.name for item in tmp_path.iterdir()] == ["student.nemo"]


def test_label_smoothing_warns(student_config):
    with nemo_warnings() as messages:
        student = DistilledMTEncDecModel(student_config(label_smoothing=0.1))
    assert any(
        "label_smoothing is 0.1" in message and "set it to 0 while distilling" in message for message in messages
    )
    assert student.objective.nll.label_smoothing == 0.1
    with nemo_warnings() as messages:
        DistilledMTEncDecModel(student_config())
    assert not any("label_smoothing" in text for text in messages)


def test_nan_in_the_teachers_logits_stops(student, first_batch):
    student._teacher.model.log_softmax.mlp.layer0.bias.data[5] = math.nan
    with pytest.raises(
        NonFiniteError, match=r"step 0: the teacher's logits are NaN or infinite for \d+ of \d+ tokens"
    ):
        student.distillation_terms(first_batch(student))


def test_nan_in_the_students_logits_stops(student, first_batch):
    student.log_softmax.mlp.layer0.bias.data[5] = math.inf
    with pytest.raises(NonFiniteError, match=r"step 0: the student's logits are NaN .*lower the learning rate"):
        student.distillation_terms(first_batch(student))


def test_nan_stops_a_run_at_its_step(student_config, tiny_trainer):
    trainer = tiny_trainer(5)
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    batches = []

    def spoil(*_):
        batches.append(1)
        if len(batches) == 3:
            student._teacher.model.encoder.embedding.token_embedding.weight.data.fill_(math.nan)

    student.register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match="step 2: the teacher's logits"):
        trainer.fit(student)
    assert all(parameter.isfinite().all() for parameter in student.parameters())


def test_all_padding_batch_gives_zero(student, first_batch):
    batch = first_batch(student)
    batch[4] = torch.full_like(batch[4], student.decoder_tokenizer.pad_id)
    terms = student.distillation_terms(batch)
    terms["loss"].backward()
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("key", ["student_logits", "teacher_logits"])
def test_a_capture_path_that_matches_nothing_lists_the_nearest(student_config, key):
    with pytest.raises(CaptureError, match="no module 'log_softmax.mlp.layer1' in .*nearest are .*log_softmax.mlp"):
        DistilledMTEncDecModel(student_config(capture={key: "log_softmax.mlp.layer1"}))


@pytest.mark.parametrize("key", ["student_logits", "teacher_logits"])
def test_a_capture_of_something_else_is_refused(student_config, first_batch, key):
    student = DistilledMTEncDecModel(student_config(capture={key: "decoder._decoder"}))
    assert not student._lean
    message = rf"capture.{key} = decoder._decoder gives the shape \(.*(16|32)\), but logits have \(.*120\); name the"
    with pytest.raises(CaptureError, match=message):
        student.distillation_terms(first_batch(student))


def test_no_section(tiny_model_config):
    with pytest.raises(ConfigurationError, match="no `distillation` section"):
        DistilledMTEncDecModel(tiny_model_config(data=True))


def test_bad_text_stops_before_the_teacher_is_opened(student_config, tiny_corpus):
    config = student_config(**{"train_ds.tgt_file_name": str(tiny_corpus / "valid.en")})
    with pytest.raises(InputError, match=r"train.de has 160 lines, \S+valid.en has 20"):
        DistilledMTEncDecModel(config)


def test_a_subclass_of_a_recipe(student_config, tiny_trainer, tmp_path):
    trainer = tiny_trainer(2)
    student = MyStudent(student_config(), trainer=trainer)
    assert MyStudent.plain_class() is MyTranslationModel
    trainer.fit(student)
    student.save_to(str(tmp_path / "mine.nemo"))
    with tarfile.open(tmp_path / "mine.nemo") as archive:
        config = OmegaConf.create(archive.extractfile("./model_config.yaml").read().decode())
    assert config.target == f"{__name__}.MyTranslationModel"
    restored = MyTranslationModel.restore_from(str(tmp_path / "mine.nemo"))
    assert type(restored) is MyTranslationModel
    assert restored.gate.item() == student.gate.item()


def test_a_model_whose_head_has_another_name(student_config, tiny_trainer):
    trainer = tiny_trainer(2)
    config = student_config(capture={"student_logits": "log_softmax.to_vocabulary"})
    student = RenamedHeadStudent(config, trainer=trainer)
    trainer.fit(student)
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train_word_kd"] > 0
    with pytest.raises(CaptureError, match=r"log_softmax.mlp.layer0' in RenamedHeadStudent .*log_softmax.to_voc"):
        RenamedHeadStudent(student_config())


def test_training_a_restored_student_needs_its_section(
    trained, tiny_trainer, first_batch, student_config, tiny_corpus
):
    _, _, _, archive_path = trained
    trainer = tiny_trainer(2)
    student = DistilledMTEncDecModel.restore_from(str(archive_path), trainer=trainer)
    assert isinstance(student, DistilledMTEncDecModel)
    assert student.distillation is None
    with pytest.raises(ConfigurationError, match="restored without .*call model.setup_distillation"):
        student.training_step([], 0)
    config = student_config()
    student.setup_training_data(config.train_ds)
    student.setup_validation_data(config.validation_ds)
    student.setup_distillation(DistillationConfig.from_section(config.distillation))
    before = student.state_dict()["log_softmax.mlp.layer0.bias"].clone()
    trainer.fit(student)
    assert trainer.global_step == 2
    assert "train_word_kd" in trainer.callback_metrics
    assert not torch.equal(before, student.state_dict()["log_softmax.mlp.layer0.bias"])


def test_setup_distillation_by_hand_refuses_a_teacher_that_does_not_fit(trained, tmp_path):
    student = DistilledMTEncDecModel.restore_from(str(trained[3]))
    section = {"teacher": {"model_path": str(tmp_path / "no.nemo")}}
    with pytest.raises(TeacherError, match=r"no.nemo' does not exist"):
        student.setup_distillation(DistillationConfig.from_section(section))
    with pytest.raises(ConfigurationError, match="restored without"):
        student.training_step([], 0)


def test_opens_from_a_checkpoint(trained, tiny_sources):
    model, _, checkpoint_path, _ = trained
    opened = DistilledMTEncDecModel.load_from_checkpoint(str(checkpoint_path), map_location="cpu")
    assert all(torch.equal(tensor, opened.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert opened.translate(tiny_sources[:2]) == model.translate(tiny_sources[:2])


class GatedStudent(DistillationModelPT, MTEncDecModel):
    """Whose weights of its own no archive of MTEncDecModel has a place for."""

    def __init__(self, cfg, trainer=None) -> None:
        super().__init__(cfg=cfg, trainer=trainer)
        self.gate = torch.nn.Linear(2, 2)


def test_weights_in_front_of_the_mixin_are_refused_before_training(student_config, tiny_trainer):
    trainer = tiny_trainer(1)
    model = GatedStudent(student_config(), trainer=trainer)
    with pytest.raises(ConfigurationError, match="GatedStudent has weights of its own, gate.weight, gate.bias, that"):
        trainer.fit(model)


def test_a_restored_student_is_not_started_from_its_teacher_once_more(trained, student_config):
    """By `setup_distillation` as little as by `restore_from`: its weights would be lost."""
    model = DistilledMTEncDecModel.load_from_checkpoint(trained[2])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    section = OmegaConf.to_container(student_config().distillation)
    section["init"] = {"from_teacher": "first"}
    with pytest.raises(ConfigurationError, match="distillation.init: this model was restored, and its weights would"):
        model.setup_distillation(DistillationConfig.from_section(section))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
