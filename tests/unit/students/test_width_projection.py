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
"""Slim students of wide models: what is projected fits together."""

import runpy
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.transformer.transformer_modules import FixedPositionalEncoding

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.layers import InitConfig
from nemo_distill.errors import InputError
from nemo_distill.students.layer_init import initialise
from nemo_distill.students.width_projection import _cosines, _of_rank, _rectified

PROJECT = InitConfig(from_teacher="every_nth", width="project")


def log_probs(model: MTEncDecModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randint(4, 100, (3, length), generator=generator) for length in (7, 6))
    with torch.no_grad():
        return model(source, torch.ones_like(source), target, torch.ones_like(target))


def attentions(model: MTEncDecModel):
    return [module for name, module in model.named_modules() if hasattr(module, "query_net")]


def feed_forwards(model: MTEncDecModel):
    return [module for name, module in model.named_modules() if hasattr(module, "dense_in")]


def test_equal_sizes_are_a_copy(random_model):
    teacher, student = random_model(1), random_model(2)
    initialise(student, teacher, PROJECT)
    assert torch.equal(log_probs(student), log_probs(teacher))


def test_silent_neurons_are_the_ones_dropped(random_model):
    """A student with half the neurons computes what its teacher does where the other half is silent."""
    teacher, student = random_model(1, inner=64), random_model(2, inner=32)
    with torch.no_grad():
        for index, module in enumerate(feed_forwards(teacher)):
            silent = torch.randperm(64, generator=torch.Generator().manual_seed(index))[:32]
            module.dense_out.weight[:, silent] = 0
    initialise(student, teacher, PROJECT)
    torch.testing.assert_close(log_probs(student), log_probs(teacher))


@pytest.mark.parametrize("alive", [32, 20])
def test_neurons_that_no_word_wakes_are_not_taken_or_learn_anew(random_model, alive):
    """However large their weights are: in a student with half of the neurons, for want of others, they are random ones
    that write nothing, so that it computes what its teacher does.
    """
    teacher, student = random_model(1, inner=64), random_model(2, inner=32)
    own = [module.dense_in.weight.clone() for module in feed_forwards(student)]
    with torch.no_grad():
        for index, module in enumerate(feed_forwards(teacher)):
            dead = torch.randperm(64, generator=torch.Generator().manual_seed(index))[alive:]
            module.dense_in.weight[dead] *= 10
            module.dense_out.weight[:, dead] *= 10
            module.dense_in.bias[dead] = -1000
    initialise(student, teacher, PROJECT)
    torch.testing.assert_close(log_probs(student), log_probs(teacher))
    for before, module in zip(own, feed_forwards(student), strict=True):
        silent = module.dense_out.weight.abs().sum(0) == 0
        assert 32 - alive <= silent.sum() < 32  # of those that are left some may be as silent
        assert torch.equal(module.dense_in.weight[silent], before[silent])
        assert (module.dense_in.bias > -1000).all()


@pytest.mark.parametrize(("mean", "deviation"), [(0.3, 1.7), (-2.0, 0.5), (4.0, 1.0), (0.0, 0.01)])
def test_what_a_rectified_normal_variable_is_on_average(mean, deviation):
    """Against sums over a grid of eight deviations, whose error is far below 1e-6 of them."""
    x = mean + deviation * torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x - mean) / deviation) ** 2)
    density /= density.sum()
    active, moment = _rectified(torch.tensor([mean]).double(), torch.tensor([deviation]).double())
    assert active.item() == pytest.approx(((x > 0) * density).sum().item(), abs=1e-4)
    assert moment.item() == pytest.approx((x.clamp_min(0).square() * density).sum().item(), rel=1e-4, abs=1e-9)
    assert [each.item() for each in _rectified(torch.tensor([-1.0]), torch.tensor([0.0]))] == [0.0, 0.0]


def isometry(rows: int, columns: int, seed: int, centred: bool = False) -> torch.Tensor:
    """Return random orthonormal columns; centred: at right angles to the vector of ones."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn - drawn.mean(0) if centred else drawn).Q


def grown(slim: MTEncDecModel, wide: MTEncDecModel, basis: torch.Tensor, kept_heads: list[int]) -> MTEncDecModel:
    """Write a model into a wide one, whose stream is the slim one's in some directions, [wide, slim], and 0 in others.

    Heads lie among silent ones, in directions of their own; so do neurons.
    """
    gain = (len(basis) / basis.shape[1]) ** 0.5  # a norm of the wide model divides by so much less
    modules = dict(slim.named_modules())
    for path, module in wide.named_modules():
        own = modules[path]
        exact = {name: tensor.double() for name, tensor in own.state_dict().items()}
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.copy_(own.weight[0] / gain), module.bias.copy_(basis @ exact["bias"])
        elif isinstance(module, torch.nn.Embedding):
            module.weight.copy_(exact["weight"] @ basis.T)
        elif isinstance(module, FixedPositionalEncoding):
            module.pos_enc.copy_(exact["pos_enc"] @ basis.T)
        elif hasattr(module, "query_net"):
            size, wide_size = own.attn_head_size, module.attn_head_size
            for parameter in module.parameters():
                parameter.zero_()
            for head, place in enumerate(kept_heads):
                mine, theirs = slice(head * size, (head + 1) * size), slice(place * wide_size, (place + 1) * wide_size)
                turned = isometry(wide_size, size, seed=head)
                for name in ("query_net", "key_net", "value_net"):
                    # A wide head divides its scores by the root of a larger size.
                    scale = 1 if name == "value_net" else (wide_size / size) ** 0.25
                    net = getattr(module, name)
                    net.weight[theirs] = (scale * turned @ exact[f"{name}.weight"][mine] @ basis.T).float()
                    net.bias[theirs] = (scale * turned @ exact[f"{name}.bias"][mine]).float()
                written = basis @ exact["out_projection.weight"][:, mine] @ turned.T
                module.out_projection.weight[:, theirs] = written.float()
            module.out_projection.bias.copy_(basis @ exact["out_projection.bias"])
        elif hasattr(module, "dense_in"):
            for parameter in module.parameters():
                parameter.zero_()
            neurons = slice(3, 3 + own.dense_in.out_features)
            module.dense_in.weight[neurons] = (exact["dense_in.weight"] @ basis.T).float()
            module.dense_in.bias[neurons] = own.dense_in.bias
            module.dense_out.weight[:, neurons] = (basis @ exact["dense_out.weight"]).float()
            module.dense_out.bias.copy_(basis @ exact["dense_out.bias"])
    wide.log_softmax.mlp.layer0.bias.copy_(slim.log_softmax.mlp.layer0.bias)
    return wide


@pytest.mark.parametrize("pre_ln", [True, False])
@pytest.mark.parametrize(("heads", "wide_heads"), [(2, 4), (2, 2), (1, 4)])
def test_finds_the_model_inside_a_wide_one(random_model, heads, wide_heads, pre_ln):
    """A slim model that a wide one holds in directions of no order computes what it did once it is taken out again.

    Of its norms, each with one weight for all units, as the wide model's must have.
    """
    kind = {f"{side}.pre_ln": pre_ln for side in ("encoder", "decoder")}
    hidden = random_model(1, hidden_size=8, heads=heads, inner=16, **kind)
    wide = random_model(2, hidden_size=32, heads=wide_heads, inner=24, **kind)
    student = random_model(3, hidden_size=8, heads=heads, inner=16, **kind)
    for model in (hidden, wide, student):
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 0  # else it counts for more where the deviation is smaller
    kept_heads = [wide_heads - 1] if heads == 1 else [wide_heads // 2 - 1, wide_heads - 1]
    basis = isometry(32, 7, seed=5, centred=True) @ _cosines(8)
    with torch.no_grad():
        for module in hidden.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(module.weight[0].abs() + 0.5)
                module.bias.sub_(module.bias.mean())  # the mean is what a wide stream of these directions lacks
        grown(hidden, wide, basis, kept_heads)
    torch.testing.assert_close(log_probs(wide), log_probs(hidden), atol=1e-5, rtol=1e-4)
    initialise(student, wide, PROJECT)
    torch.testing.assert_close(log_probs(student), log_probs(hidden), atol=1e-5, rtol=1e-4)


def test_a_head_is_cut_to_its_largest_singular_values():
    """The error is that of Eckart and Young: the root of the sum of the other squared singular values."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(2, 6, width, generator=generator, dtype=torch.float64) for width in (9, 8))
    cut_left, cut_right = _of_rank(4, left, right)
    assert (cut_left.shape, cut_right.shape) == ((2, 4, 9), (2, 4, 8))
    products = left.mT @ right
    errors = torch.linalg.matrix_norm(products - cut_left.mT @ cut_right)
    torch.testing.assert_close(errors, torch.linalg.svdvals(products)[:, 4:].square().sum(1).sqrt())
    torch.testing.assert_close(torch.linalg.matrix_norm(cut_left), torch.linalg.matrix_norm(cut_right))


def permuted(model: MTEncDecModel, units: torch.Tensor, head_order: torch.Tensor) -> None:
    """Renumber the residual units and the heads of a model, which changes nothing that it computes."""
    size = model.decoder.hidden_size // len(head_order)
    head_units = (head_order[:, None] * size + torch.arange(size)).flatten()
    done = set()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() in done:
                continue
            done.add(tensor.data_ptr())
            if any(part in name for part in ("query_net", "key_net", "value_net")):
                tensor.copy_(tensor[head_units][:, units] if tensor.ndim == 2 else tensor[head_units])
            elif "out_projection" in name:
                tensor.copy_(tensor[units][:, head_units] if tensor.ndim == 2 else tensor[units])
            elif "dense_out" in name or "layer_norm" in name:
                tensor.copy_(tensor[units])
            elif tensor.ndim == 2:  # embeddings, positions, dense_in
                tensor.copy_(tensor[:, units])


def test_the_choice_does_not_hang_on_the_numbering(random_model):
    """Renumbering the teacher's units and heads leaves what the student computes, its positions included."""

    def start() -> MTEncDecModel:
        student = random_model(2, hidden_size=16, heads=2)
        initialise(student, teacher, PROJECT)
        return student

    teacher = random_model(1, hidden_size=32, heads=4)
    before, plain = log_probs(teacher), start()
    generator = torch.Generator().manual_seed(1)
    permuted(teacher, torch.randperm(32, generator=generator), torch.randperm(4, generator=generator))
    torch.testing.assert_close(log_probs(teacher), before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(log_probs(start()), log_probs(plain), atol=1e-5, rtol=1e-4)


def test_positions_are_of_the_students_own_width(random_model):
    """Mixtures of the teacher's are no sines and cosines of one frequency, by which attention finds near words."""
    teacher, student = random_model(1, hidden_size=32, heads=4), random_model(2, hidden_size=16, heads=2)
    names = [f"{side}._embedding.position_embedding.pos_enc" for side in ("encoder", "decoder")]
    wanted = FixedPositionalEncoding(16, len(student.state_dict()[names[0]])).pos_enc
    report = initialise(student, teacher, PROJECT)
    assert report.kept == dict.fromkeys(names, "sines and cosines of the student's own width")
    assert all(torch.equal(student.state_dict()[name], wanted) for name in names)


def test_learned_positions_are_projected(random_model):
    """Onto the directions in which the words are, too: of all inner products with these, the same number is kept."""
    learned = {f"{side}.learn_positional_encodings": True for side in ("encoder", "decoder")}
    teacher = random_model(1, hidden_size=32, heads=4, **learned)
    student = random_model(2, hidden_size=16, heads=2, **learned)
    assert not initialise(student, teacher, PROJECT).kept
    mine, theirs = (
        torch.cat(
            [model.state_dict()[f"encoder._embedding.{name}_embedding.weight"] for name in ("token", "position")]
        ).double()
        for model in (student, teacher)
    )
    basis = torch.linalg.lstsq(theirs, mine).solution
    torch.testing.assert_close(theirs @ basis, mine, atol=1e-6, rtol=1e-5)
    wanted = torch.eye(16, dtype=torch.float64) - 1 / 16  # orthonormal, but for the mean
    torch.testing.assert_close(basis.T @ basis, wanted, atol=1e-5, rtol=1e-5)


def test_ties_and_shapes_and_report(random_model):
    teacher, student = random_model(1, num_layers=4, heads=4), random_model(2, hidden_size=16, heads=2, num_layers=2)
    report = initialise(student, teacher, PROJECT)
    table = student.decoder.embedding.token_embedding.weight
    assert student.log_softmax.mlp.layer0.weight is table
    assert student.encoder.embedding.token_embedding.weight is table
    assert set(report.kept) == {f"{side}._embedding.position_embedding.pos_enc" for side in ("encoder", "decoder")}
    wanted = "decoder._decoder.layers.1.first_sub_layer.query_net.weight <- "
    assert any(
        line.split()
        == f"{wanted} decoder._decoder.layers.2.first_sub_layer.query_net.weight ([16, 16], [32, 32])".split()
        for line in str(report).splitlines()
    )


def test_better_than_chance(tiny_teacher_path, tiny_model_config, student_config, first_batch):
    """After the same few steps the student made of a trained teacher is ahead of one made at random."""
    losses = {}
    for init in (None, {"from_teacher": "every_nth", "width": "project"}):
        torch.manual_seed(1)
        config = student_config(hidden_size=24, num_layers=2, objective={"nll": {"weight": 0}})
        config.distillation.init = init
        student = DistilledMTEncDecModel(config)
        batch = first_batch(student)
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
        for _ in range(20):
            loss = student.distillation_terms(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[init is None] = loss.item()
    assert losses[False] < losses[True]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 64}, "only makes models slimmer, but hidden_size is 64 in the student and 32 in the source"),
        (
            {"inner": 128},
            "only makes models slimmer, but encoder.inner_size is 128 in the student and 64 in the source",
        ),
        (
            {"hidden_size": 16, "heads": 4},
            "but encoder.num_attention_heads is 4 in the student and 2 in the source; give",
        ),
        (
            {"heads": 1},
            "but hidden_size / num_attention_heads of the encoder is 32 in the student and 16 in the source",
        ),
    ],
)
def test_a_wider_student_is_refused(random_model, sizes, message):
    with pytest.raises(InputError, match=message):
        initialise(random_model(2, **sizes), random_model(1), PROJECT)


def test_foreign_modules_are_refused(random_model):
    teacher, student = random_model(1), random_model(2, hidden_size=16)
    for one in (teacher, student):
        one.encoder._encoder.layers[0].gate = torch.nn.Linear(4, 4)
    with pytest.raises(
        InputError, match=r"not encoder._encoder.layers.0.gate.weight, of a Linear; give the student the"
    ):
        initialise(student, teacher, PROJECT)


def test_earlier_versions_selection_starts_no_student(random_model):
    """But archives that say so are read."""
    config = InitConfig(from_teacher="every_nth", width="select")
    assert config.faults("init", {}) == []
    with pytest.raises(InputError, match=r"distillation.init.width: `select` is of earlier versions; give `project`"):
        initialise(random_model(2, hidden_size=16), random_model(1), config)


def test_a_name_that_no_sub_layer_of_nemos_has_is_refused(random_model):
    teacher, student = random_model(1), random_model(2, hidden_size=16)
    for one in (teacher, student):
        one.encoder._encoder.layers[0].first_sub_layer.gate = torch.nn.Linear(4, 4)
    with pytest.raises(
        InputError, match=r"distillation.init: width projection .* not \S+first_sub_layer.gate.weight, of a"
    ):
        initialise(student, teacher, PROJECT)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_teacher_is_refused(random_model, value):
    teacher, name = random_model(1), "encoder._encoder.layers.0.second_sub_layer.dense_in.bias"
    teacher.state_dict()[name][3] = value
    for config in (PROJECT, InitConfig(from_teacher="every_nth")):
        with pytest.raises(InputError, match=f"the source's {name} holds numbers that are not finite; give another"):
            initialise(random_model(2), teacher, config)


def test_a_head_that_looks_nowhere_is_not_kept_by_chance(random_model):
    """Without queries every attention is a mean, and what is written decides."""
    teacher, student = random_model(1, hidden_size=32, heads=4), random_model(2, hidden_size=16, heads=1, inner=32)
    loud = 2
    with torch.no_grad():
        for module in attentions(teacher):
            module.query_net.weight.zero_(), module.query_net.bias.zero_()
            module.out_projection.weight.unflatten(1, (4, 8))[:, [0, 1, 3]] *= 1e-6
            module.out_projection.weight.unflatten(1, (4, 8))[:, loud] += 1
    with pytest.raises(InputError, match="hidden_size / num_attention_heads of the encoder is 16"):
        initialise(student, teacher, PROJECT)
    student = random_model(2, hidden_size=8, heads=1, inner=32)
    initialise(student, teacher, PROJECT)
    assert all(module.out_projection.weight.norm() > 1e-3 for module in attentions(student))


def test_the_number_of_threads_turns_nothing(random_model):
    """Where positions leave directions free, rounding must not choose them: Adam sees how a stream is turned."""
    teacher, found = random_model(1, hidden_size=128, heads=4, inner=64), []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        student = random_model(2, hidden_size=96, heads=4, inner=64)
        initialise(student, teacher, PROJECT)
        torch.set_num_threads(before)
        found.append(student.decoder.embedding.token_embedding.weight.detach())
    torch.testing.assert_close(*found)


def test_positions_are_aligned_where_the_encoder_alone_has_waves(random_model):
    """Projected, the teacher's lie near the student's; in directions of no order the mean cosine is 0."""
    learned = {"decoder.learn_positional_encodings": True}
    teacher, student = random_model(1, hidden_size=32, heads=4, **learned), random_model(2, hidden_size=16, **learned)
    initialise(student, teacher, PROJECT)
    basis = torch.linalg.lstsq(
        *(each.decoder.embedding.token_embedding.weight.detach().double() for each in (teacher, student))
    ).solution
    mine, theirs = (each.encoder.embedding.position_embedding.pos_enc[:32].double() for each in (student, teacher))
    assert torch.cosine_similarity(theirs @ basis, mine).mean() > 0.5


def test_the_activity_of_neurons_is_counted(tiny_teacher_path, tiny_corpus):
    """By the script that docs/studies.md names: of neurons that are always on and never on; and nats of the text."""
    script = runpy.run_path(str(Path(__file__).parents[3] / "docs" / "neuron_activity.py"))
    model = restore_model(tiny_teacher_path)
    sources, targets = ((tiny_corpus / f"valid.{each}").read_text().splitlines() for each in ("de", "en"))
    _, before = script["activity"](model, sources, targets)
    with torch.no_grad():
        for module in feed_forwards(model):
            module.dense_in.bias[:4], module.dense_in.bias[4:8] = 1000, -1000
            module.dense_out.weight[:, :8] = 0
    shares, nats = script["activity"](model, sources, targets)
    assert len(shares) == len(feed_forwards(model))
    for share in shares.values():
        assert (share[:4] == 1).all()
        assert (share[4:8] == 0).all()
        assert ((share >= 0) & (share <= 1)).all()
    assert nats > before > 0
