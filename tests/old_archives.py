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
"""Stand-ins for NGC's translation models: tiny archives with the configurations of the releases that wrote them.

python tests/old_archives.py DIRECTORY

writes one of each generation. The keys are those of NeMo's tags v1.0.0rc1, v1.0.0, v1.2.0 and v1.5.0:
`examples/nlp/machine_translation/conf/aayn_base.yaml` merged into `mt_enc_dec_config.py`, as `enc_dec_nmt.py` did,
with the paths of a training machine. Weights are random, of stock modules that are told everything.
"""

import io
import itertools
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

GENERATIONS = ("1.0.0rc1", "1.0.0", "1.2.0", "1.5.0")
"""Of NGC's 29 names, each is of one of these; the last is called 1.5 there."""
HIDDEN, LAYERS, INNER, HEADS, POSITIONS = 16, 2, 32, 4, 64
LANGUAGES = ("de", "es", "fr")
TEXT = ["The lamp is open.", "Die Lampe ist offen.", "La lampe est ouverte.", "La bombilla es de ella."] * 3
_MACHINE = "/mnt/D1/Data/NMT/wmt21"


def yttm_model(text: Sequence[str] = TEXT, merges: int = 20) -> bytes:
    """Return a YouTokenToMe model, which is text, without the library: pad 0, unk 1, bos 2, eos 3."""
    words = [["\u2581", *word] for line in text for word in line.split()]
    pieces = {character: number for number, character in enumerate(sorted({c for word in words for c in word}), 4)}
    rules: list[tuple[str, str]] = []
    for _ in range(merges):
        pairs = [pair for word in words for pair in itertools.pairwise(word) if pair not in rules]
        if not pairs:
            break
        left, right = max(sorted(set(pairs)), key=pairs.count)
        rules.append((left, right))
        pieces[left + right] = 4 + len(pieces)
        for word in words:
            for place in range(len(word) - 2, -1, -1):
                if tuple(word[place : place + 2]) == (left, right):
                    word[place : place + 2] = [left + right]
    characters = [piece for piece in pieces if len(piece) == 1]
    lines = [f"{len(characters)} {len(rules)}", *(f"{ord(piece)} {pieces[piece]}" for piece in characters)]
    lines += [f"{pieces[left]} {pieces[right]} {pieces[left + right]}" for left, right in rules]
    return ("\n".join([*lines, "1 0 2 3"]) + "\n").encode()


def sentencepiece_model(symbols: Sequence[str] = (), text: Sequence[str] = TEXT, **options: Any) -> bytes:
    """Return a SentencePiece model with the same special pieces, and control symbols such as `<de>`."""
    import sentencepiece

    model = io.BytesIO()
    options = {"vocab_size": 60 + len(symbols), "model_type": "bpe", **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, control_symbols=list(symbols),
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, minloglevel=2, **options,
    )  # fmt: skip
    return model.getvalue()


def _dataset(generation: str, train: bool) -> dict[str, Any]:
    found = {"src_file_name": "???", "tgt_file_name": "???", "tokens_in_batch": 8192, "clean": train, "shuffle": train}
    found |= {"max_seq_length": 512, "num_samples": -1, "drop_last": False, "pin_memory": False, "num_workers": 8}
    if generation == "1.0.0rc1":
        found |= {"cache_ids": False, "cache_data_per_node": False, "use_cache": False}
    if not train:
        return found | {name: f"{_MACHINE}/wmt14.{name[:3]}" for name in ("src_file_name", "tgt_file_name")}
    shards = f"pipe:s3cmd get s3://wmt21/batches.tokens.16000._OP_0..511_CL_.tar - --access={_MACHINE}/key"
    return found | {
        "src_file_name": None,
        "tgt_file_name": None,
        "use_tarred_dataset": True,
        "tar_files": shards,
        "metadata_file": f"{_MACHINE}/metadata.tokens.16000.json",
        "lines_per_dataset_fragment": 1000000,
        "num_batches_per_tarfile": 100,
        "tar_shuffle_n": 100,
        "shard_strategy": "scatter",
    }


def _transformer(generation: str, encoder: bool) -> dict[str, Any]:
    first = generation == "1.0.0rc1"
    found = {} if first else {"library": "nemo", "model_name": None, "pretrained": False}
    found |= {"max_sequence_length": POSITIONS, "num_token_types": 2 if first else 0, "embedding_dropout": 0.1}
    found |= {"learn_positional_encodings": False, "hidden_size": HIDDEN, "num_layers": LAYERS, "inner_size": INNER}
    found |= {"num_attention_heads": HEADS, "ffn_dropout": 0.1, "attn_score_dropout": 0.1, "attn_layer_dropout": 0.1}
    found |= {"hidden_act": "relu", "mask_future": False, "pre_ln": not first}
    if not first:
        found |= {"pre_ln_final_layer_norm": True}
    if not encoder:
        del found["mask_future"]
    return found


def _tokenizer(generation: str, library: str) -> dict[str, Any]:
    found = {"tokenizer_name" if generation == "1.0.0rc1" else "library": library}
    found |= {"tokenizer_model": None, "vocab_size": 32000, "bpe_dropout": None, "vocab_file": None}
    found |= {"special_tokens": None}
    if generation != "1.0.0rc1":
        found |= {"training_sample_size": None, "coverage": 0.999}
    return found | ({"r2l": False} if generation in ("1.2.0", "1.5.0") else {})


def old_section(generation: str, library: str = "yttm") -> dict[str, Any]:
    """Return the configuration of an archive, but for the paths of its tokenizers."""
    section = {
        "num_val_examples": 3,
        "num_test_examples": 3,
        "max_generation_delta": -1 if generation == "1.5.0" else 5,
        "label_smoothing": 0.1,
        "beam_size": 4,
        "len_pen": 0.6,
        "find_unused_parameters": True,
        "shared_tokenizer": True,
        "preproc_out_dir": f"{_MACHINE}/preproc",
        "train_ds": _dataset(generation, train=True),
        "validation_ds": _dataset(generation, train=False),
        "test_ds": _dataset(generation, train=False),
        "optim": {
            "_target_": "apex.optimizers.FusedAdam",
            "name": "adam",
            "lr": 0.0004,
            "betas": [0.9, 0.98],
            "weight_decay": 0.0,
            "sched": {"name": "InverseSquareRootAnnealing", "min_lr": 0.0, "last_epoch": -1, "warmup_steps": 30000},
        },
        "encoder_tokenizer": _tokenizer(generation, library),
        "decoder_tokenizer": _tokenizer(generation, library),
        "encoder": _transformer(generation, encoder=True),
        "decoder": _transformer(generation, encoder=False),
        "head": {
            "num_layers": 1,
            "activation": "relu",
            "log_softmax": True,
            "dropout": 0.0,
            "use_transformer_init": True,
        },
        "target": "nemo.collections.nlp.models.machine_translation.mt_enc_dec_model.MTEncDecModel",
    }
    if generation == "1.0.0rc1":
        return section | {"sentencepiece_model": None}
    section |= {"src_language": "de", "tgt_language": "en"}
    section |= {"multilingual": False} if generation in ("1.2.0", "1.5.0") else {}
    return section | ({"validate_input_ids": True} if generation == "1.5.0" else {})


def old_weights(section: Mapping[str, Any], pieces: int, seed: int = 1) -> dict[str, Any]:
    """Return random weights, also of biases and norms, for a section whose every key is as its release read it."""
    import torch
    from nemo.collections.nlp.modules.common import TokenClassifier
    from nemo.collections.nlp.modules.common.transformer.transformer_utils import get_nemo_transformer

    torch.manual_seed(seed)
    first = "tokenizer_name" in section["encoder_tokenizer"]
    parts = {}
    for side in ("encoder", "decoder"):
        config = {**section[side], "vocab_size": pieces, "hidden_size": section["encoder"]["hidden_size"]}
        config["num_token_types"] = 2 if first else config["num_token_types"]
        norm = config.get("pre_ln_final_layer_norm", False)
        parts[side] = get_nemo_transformer(config_dict=config, encoder=side == "encoder", pre_ln_final_layer_norm=norm)
    parts["log_softmax"] = TokenClassifier(config["hidden_size"], pieces)
    parts["log_softmax"].mlp.layer0.weight = parts["decoder"].embedding.token_embedding.weight
    for part in parts.values():
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        parts["log_softmax"].mlp.layer0.bias[:3] -= 8  # what is written are words and their end
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def write_old_archive(
    path: Path,
    generation: str,
    tokenizer: bytes | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
    library: str = "yttm",
) -> dict[str, Any]:
    """Write an archive as that release did: gzip, `./` before the names, the tokenizers' paths in its own manner.

    Args:
        path: to write.
        generation: one of `GENERATIONS`.
        tokenizer: model of both sides; by default one of YouTokenToMe.
        change: of the section, before weights are made for it.
        library: as the section names it.

    Returns:
        The section and the weights that are in it.
    """
    import torch
    import yaml

    from nemo_distill.support.tokenizer_guard import library_of, vocabulary_size

    tokenizer = yttm_model() if tokenizer is None else tokenizer
    section = old_section(generation, library)
    members = {}
    for side in ("encoder_tokenizer", "decoder_tokenizer"):
        name = "shared_tokenizer.32000.BPE.model"
        if generation != "1.0.0rc1":
            name = f"{'0123456789abcdef' * 2}_{side}_{name}"
        members[name] = tokenizer
        section[side]["tokenizer_model"] = f"{_MACHINE}/{name}" if generation == "1.0.0rc1" else f"nemo:{name}"
    if change is not None:
        change(section)
    weights = old_weights(section, vocabulary_size(library_of(tokenizer), tokenizer))
    members["model_config.yaml"] = yaml.safe_dump(section).encode()
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    members["model_weights.ckpt"] = buffer.getvalue()
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        top = tarfile.TarInfo("./")
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for name, content in members.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return {"section": section, "weights": weights}


def plain_log_probs(
    written: Mapping[str, Any], source: Any, target: Any, mask_future: bool = False, states: bool = False
) -> Any:
    """Return log-probabilities [B, T, V] of NeMo's transformer, written out in float64.

    Args:
        written: what `write_old_archive` returns.
        source: token ids [B, S], padded with 0.
        target: token ids [B, T], padded with 0.
        mask_future: whether a source position sees earlier ones alone.
        states: return what the encoder says, [B, S, H], and no more.
    """
    import torch
    from torch.nn.functional import layer_norm, linear, log_softmax

    sides, state = written["section"], {name: value.double() for name, value in written["weights"].items()}

    def affine(name: str, x: Any) -> Any:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Any) -> Any:
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def attention(name: str, queries: Any, keys: Any, allowed: Any) -> Any:
        heads = sides[name.split(".")[0]]["num_attention_heads"]
        parts = [affine(f"{name}.{kind}_net", x) for kind, x in (("query", queries), ("key", keys), ("value", keys))]
        query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in parts)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 - 10000.0 * ~allowed
        return affine(f"{name}.out_projection", (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def run(side: str, ids: Any, own: Any, memory=None, seen=None) -> Any:
        options, place = sides[side], f"{side}._embedding"
        x = state[f"{place}.token_embedding.weight"][ids]
        x = norm(f"{place}.layer_norm", x + state[f"{place}.position_embedding.pos_enc"][: ids.shape[1]])
        for number in range(options["num_layers"]):
            layer = f"{side}._{side}.layers.{number}"
            steps = [lambda x, keys, at=f"{layer}.first_sub_layer": attention(at, x, keys, own)]
            if memory is not None:
                steps.append(lambda x, _, at=f"{layer}.second_sub_layer": attention(at, x, memory, seen))
            ffn = f"{layer}.{'second' if memory is None else 'third'}_sub_layer"
            steps.append(lambda x, _, at=ffn: affine(f"{at}.dense_out", affine(f"{at}.dense_in", x).relu()))
            for place, step in enumerate(steps, 1):
                name = f"{layer}.layer_norm_{place}"
                if options["pre_ln"]:
                    inner = norm(name, x)
                    x = x + step(inner, inner)
                else:
                    x = norm(name, x + step(x, x))
        final = f"{side}._{side}.final_layer_norm"
        return norm(final, x) if f"{final}.weight" in state else x

    real, causal = (source != 0)[:, None, None], torch.ones(99, 99).tril().bool()
    seen = real & causal[: source.shape[1], : source.shape[1]] if mask_future else real
    memory = run("encoder", source, seen)
    if states:
        return memory
    past = (target != 0)[:, None, None] & causal[: target.shape[1], : target.shape[1]]
    return log_softmax(affine("log_softmax.mlp.layer0", run("decoder", target, past, memory, real)), -1)


def to_many(section: dict[str, Any]) -> None:
    """Make a section that of a one-to-many model, from English."""
    section.update(multilingual=True, src_language="en", tgt_language=list(LANGUAGES))
    section["train_ds"]["tar_files"] = [section["train_ds"]["tar_files"]] * len(LANGUAGES)


def from_many(section: dict[str, Any]) -> None:
    """Make a section that of a many-to-one model, to English."""
    to_many(section)
    section.update(src_language=list(LANGUAGES), tgt_language="en")


def main(directory: Path) -> None:
    """Write one archive of each generation, and the two multilingual kinds of 1.2.0."""
    directory.mkdir(parents=True, exist_ok=True)
    for generation in GENERATIONS:
        write_old_archive(directory / f"nmt_{generation}.nemo", generation)
    pieces = sentencepiece_model([f"<{language}>" for language in LANGUAGES])
    for name, change in (("mnmt_en_deesfr", to_many), ("mnmt_deesfr_en", from_many)):
        write_old_archive(directory / f"{name}_1.2.0.nemo", "1.2.0", pieces, change, "sentencepiece")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
