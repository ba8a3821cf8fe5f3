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
"""Teachers stay as they are, and only a teacher that fits is taken."""

import urllib.request

import pytest
import torch
from torch._dynamo.utils import counters

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.capture import CaptureSpec
from nemo_distill.config.section import TeacherConfig
from nemo_distill.errors import CaptureError, ConfigurationError, InputError, TeacherError
from nemo_distill.teachers.frozen import FrozenTeacher, check_teacher, load_teacher_model

LAYERS = "encoder._encoder.layers", "decoder._decoder.layers"


def is_frozen(model: torch.nn.Module) -> bool:
    return not any(module.training for module in model.modules()) and not any(
        parameter.requires_grad for parameter in model.parameters()
    )


def random_batch(vocabulary_size: int = 100) -> list[torch.Tensor]:
    """Return source, source mask, target, target mask and labels of three sentences."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, vocabulary_size, (3, 7), generator=generator)
    target = torch.randint(4, vocabulary_size, (3, 6), generator=generator)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4])
    return [source, torch.ones_like(source), target * mask, mask, target * mask]


def test_gives_the_logits_of_the_model(tiny_model):
    batch = random_batch()
    teacher = FrozenTeacher(tiny_model)
    logits = teacher.logits(batch)
    assert logits.shape == (3, 6, 120)
    assert not logits.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(logits.log_softmax(-1), tiny_model(*batch[:4]))
    assert torch.equal(logits, teacher.logits(batch))  # no dropout


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_near_the_whole(tiny_teacher_path, precision, dtype):
    batch = random_batch()
    log_q = FrozenTeacher(restore_model(tiny_teacher_path)).logits(batch).log_softmax(-1)
    teacher = FrozenTeacher(restore_model(tiny_teacher_path), precision=precision)
    logits = teacher.logits(batch)
    assert logits.dtype == dtype
    assert torch.equal(teacher.outputs(batch, lean=True).signal.logits(), logits)
    divergence = (log_q.exp() * (log_q - logits.float().log_softmax(-1))).sum(-1).mean()
    assert 0 < divergence < 0.02


def test_lean_outputs_give_the_same_logits(tiny_model):
    teacher, batch = FrozenTeacher(tiny_model), random_batch()
    assert teacher.can_be_lean
    assert torch.equal(teacher.outputs(batch, lean=True).signal.logits(), teacher.logits(batch))


def test_inference_mode_where_autograd_keeps_nothing(tiny_model):
    teacher, batch = FrozenTeacher(tiny_model), random_batch()
    assert teacher.outputs(batch, lean=True).signal.states.is_inference()
    assert not teacher.outputs(batch).signal.values.is_inference()
    spec = CaptureSpec("encoder._encoder.layers.0")
    teacher.capture([spec])
    outputs = teacher.outputs(batch, lean=True)
    assert not outputs.captures[spec].is_inference()
    assert not outputs.signal.states.is_inference()


def assert_compiled_like_eager(tiny_model, backend: str) -> None:
    teacher = FrozenTeacher(tiny_model)
    layer = CaptureSpec("decoder._decoder.layers.0")
    batches = [random_batch(), [tensor[:2, :5] for tensor in random_batch()]]
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    eager = [teacher.logits(batch) for batch in batches]
    teacher.compile(LAYERS, backend)
    torch.compiler.reset()  # other tests have compiled such layers too
    counters.clear()
    for batch, logits in zip(batches, eager, strict=True):
        torch.testing.assert_close(teacher.outputs(batch, lean=True).signal.logits(), logits)
    assert counters["stats"]["unique_graphs"] == 2  # of the encoder's and of the decoder's layers, for every size
    teacher.capture([layer])
    outputs = teacher.outputs(batches[0])
    torch.testing.assert_close(outputs.signal.values, eager[0])
    assert outputs.captures[layer].shape == (3, 6, 32)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny_model.state_dict().items())


@pytest.mark.slow  # `test_mixin.py` has a compiled teacher among the quick tests
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_layers_give_the_same(tiny_model, backend):
    assert_compiled_like_eager(tiny_model, backend)


def test_compiled_layers_hide_their_attention(tiny_model):
    teacher = FrozenTeacher(tiny_model)
    teacher.compile(LAYERS, "eager")
    with pytest.raises(ConfigurationError, match="teacher.compile: .*attn_dropout is inside a compiled layer"):
        teacher.capture([CaptureSpec("encoder._encoder.layers.0.first_sub_layer.attn_dropout", "input")])


def test_a_backend_that_fails(tiny_model):
    def broken(graph, example_inputs):
        raise RuntimeError("no compiler")

    teacher = FrozenTeacher(tiny_model)
    teacher.compile(LAYERS, broken)
    with pytest.raises(TeacherError, match=r"teacher.compile: torch could not compile the teacher: .*no compiler"):
        teacher.logits(random_batch())


def test_freezes_a_model_in_training(tiny_model):
    tiny_model.train().requires_grad_(True)
    FrozenTeacher(tiny_model)
    assert is_frozen(tiny_model)


def test_stays_frozen_after_nemo_has_translated(tiny_model, tiny_sources):
    """NeMo's search unfreezes what it used; the next call of the teacher puts that right."""
    teacher, batch = FrozenTeacher(tiny_model), random_batch()
    before = teacher.logits(batch)
    tiny_model.translate(tiny_sources[:2])
    assert not is_frozen(tiny_model)
    assert torch.equal(teacher.logits(batch), before)
    assert is_frozen(tiny_model)


def test_a_path_that_matches_nothing(tiny_model):
    with pytest.raises(CaptureError, match="no module 'log_softmax.layer0' .*nearest are .*log_softmax.mlp.layer0"):
        FrozenTeacher(tiny_model, "log_softmax.layer0")


def test_student_does_not_reach_the_teacher(student_config):
    student = DistilledMTEncDecModel(student_config())
    teacher = student._teacher.model
    assert is_frozen(teacher)
    student.train().to(torch.float64).requires_grad_(True)
    assert is_frozen(teacher)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}
    mine = {id(module) for module in student.modules()}
    assert not any(id(module) in mine for module in teacher.modules())


def test_bytes_are_the_same_after_training_and_validation(student_config, tiny_trainer, tiny_teacher_path):
    archive = tiny_teacher_path.read_bytes()
    trainer = tiny_trainer(4, val_check_interval=2)
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    teacher = student._teacher.model
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    seen = []
    student.register_forward_hook(lambda *_: seen.append(is_frozen(teacher)))
    trainer.fit(student)
    assert trainer.global_step == 4
    assert len(seen) > 4  # validation too
    assert all(seen)
    after = teacher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert tiny_teacher_path.read_bytes() == archive


def test_loads_an_archive(tiny_teacher_path):
    model = load_teacher_model(TeacherConfig(model_path=str(tiny_teacher_path)))
    assert is_frozen(model)
    expected = restore_model(tiny_teacher_path).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("check", [check_teacher, load_teacher_model])
def test_missing_archive(tmp_path, check):
    with pytest.raises(
        TeacherError, match=r"distillation.teacher.model_path: \S+no.nemo' does not exist; give the path"
    ):
        check(TeacherConfig(model_path=str(tmp_path / "no.nemo")))


def test_missing_archive_is_found_before_the_data_are_read(student_config, tmp_path):
    config = student_config(**{"train_ds.src_file_name": str(tmp_path / "no.de")})
    config.distillation.teacher.model_path = str(tmp_path / "no.nemo")
    with pytest.raises(TeacherError, match=r"no.nemo' does not exist"):
        DistilledMTEncDecModel(config)


@pytest.mark.parametrize("check", [check_teacher, load_teacher_model])
def test_unknown_name(check):
    with pytest.raises(
        TeacherError,
        match="model_name: NGC has no translation model 'nmt_xx'.*; known are .*nmt_de_en_",
    ):
        check(TeacherConfig(model_name="nmt_xx"))


def test_known_name_without_a_network(monkeypatch, tmp_path):
    """The real download, through a proxy that refuses."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would keep the proxy for all that comes after
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TeacherConfig(model_name="nmt_de_en_transformer12x2")
    check_teacher(config)
    with pytest.raises(
        TeacherError, match="model_name: 'nmt_de_en_transformer12x2' could not be fetched .*. Fetch https://api.ngc"
    ):
        load_teacher_model(config)
    assert issubclass(TeacherError, InputError)
