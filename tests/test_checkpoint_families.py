"""Checkpoints as people have them: what is scanned or merged is what transformers would load, or is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders_checkpoints import bert, gpt2
from builders_model_types import tiny
from commands import decaymerge
from decaymerge import store
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.form import judge

QUERY = "encoder.layer.0.attention.self.query.weight"


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def config_with(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any], name: str = "model.safetensors") -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


def as_bin(folder: Path, content: Callable[[dict[str, Tensor]], Any] = dict) -> None:
    torch.save(content(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(folder: Path) -> None:
    shutil.rmtree(folder)
    bert(folder, 0, shard="8kB")


def without_last_shard(folder: Path, *, index: bool = True) -> None:
    sharded(folder)
    sorted(folder.glob("model-*"))[-1].unlink()
    if not index:
        (folder / "model.safetensors.index.json").unlink()


def lora(folder: Path) -> dict[str, Tensor]:
    """Tensors of an adapter of PEFT."""
    return {
        f"base_model.model.encoder.layer.{layer}.attention.self.query.lora_{side}.weight": torch.randn(shape)
        for layer in range(2)
        for side, shape in (("A", (4, 16)), ("B", (16, 4)))
    }


def only_adapter(folder: Path, name: str = "adapter_model.safetensors") -> None:
    for path in folder.iterdir():
        path.unlink()
    save_file(lora(folder), folder / name)
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 4})
    )


def quantised(folder: Path, names: dict[str, str], **config: Any) -> None:
    """The query's weight is replaced by integers under other names."""
    replaced = {
        QUERY.replace("weight", new): torch.ones(2, 2, dtype=getattr(torch, kind))
        for new, kind in names.items()
    }
    edit(folder, lambda tensors: (tensors.pop(QUERY), tensors.update(replaced)))
    if config:
        config_with(folder, quantization_config=config)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    # Completeness
    "one shard of many, with an index": (without_last_shard, "is missing"),
    "one shard of many, without an index": (lambda f: without_last_shard(f, index=False), "is missing"),
    "an index without any shard": (
        lambda f: (sharded(f), [path.unlink() for path in f.glob("model-*")]),
        "and none is there",
    ),
    "an index that names tensors which no shard holds": (
        lambda f: (
            sharded(f),
            edit_index(f, lambda index: index["weight_map"].update({"x.weight": first_shard(f)})),
        ),
        "the index names 1 tensors that no file holds: x.weight",
    ),
    "one matrix is missing": (
        lambda f: edit(f, lambda tensors: tensors.pop(QUERY)),
        "1 tensors of BertModel are missing",
    ),
    "a layer more in the config": (
        lambda f: config_with(f, num_hidden_layers=3),
        "16 tensors of BertModel are missing",
    ),
    "a thousand million layers": (
        lambda f: config_with(f, num_hidden_layers=10**9),
        "num_hidden_layers is 1000000000",
    ),
    "another width in the config": (
        lambda f: config_with(f, intermediate_size=64),
        "6 tensors have another shape",
    ),
    "the embeddings are missing": (
        lambda f: edit(f, lambda tensors: tensors.pop("embeddings.word_embeddings.weight")),
        "1 tensors of BertModel are missing",
    ),
    "a head that the class has is missing": (
        lambda f: config_with(f, architectures=["BertForSequenceClassification"]),
        "2 tensors of BertForSequenceClassification are missing",
    ),
    "tensors beside a nested state_dict": (
        lambda f: as_bin(
            f, lambda tensors: {"state_dict": dict(list(tensors.items())[1:]), "x": torch.ones(2, 2)}
        ),
        "holds tensors beside 'state_dict'",
    ),
    "half of a .bin in shards": (
        lambda f: (
            torch.save(load_file(f / "model.safetensors"), f / "pytorch_model-00001-of-00002.bin"),
            (f / "model.safetensors").unlink(),
        ),
        "pytorch_model-00002-of-00002.bin is missing",
    ),
    # Files
    "two weights with other names": (
        lambda f: (
            shutil.copy(f / "model.safetensors", f / "a.safetensors"),
            (f / "model.safetensors").rename(f / "b.safetensors"),
        ),
        "a.safetensors, b.safetensors, of which transformers reads none",
    ),
    "weights of another format alone": (
        lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"),
        "holds no *.safetensors",
    ),
    "a trainer's state alone": (
        lambda f: (f / "model.safetensors").rename(f / "optimizer.pt"),
        "holds no *.safetensors",
    ),
    # Adapters
    "a LoRA": (only_adapter, "is an adapter (LORA, for org/base)"),
    "a LoRA in a .bin": (
        lambda f: (
            only_adapter(f),
            torch.save(lora(f), f / "adapter_model.bin"),
            (f / "adapter_model.safetensors").unlink(),
        ),
        "is an adapter (LORA, for org/base)",
    ),
    "a LoRA under the name of a model": (
        lambda f: only_adapter(f, "model.safetensors"),
        "is an adapter (LORA, for org/base)",
    ),
    "a model with a LoRA that was not merged": (
        lambda f: edit(f, lambda tensors: tensors.update(lora(f))),
        "is an adapter (of PEFT) and no model, as base_model",
    ),
    "an IA3": (
        lambda f: (
            only_adapter(f),
            save_file({"x.ia3_l": torch.ones(4, 1)}, f / "adapter_model.safetensors"),
        ),
        "is an adapter",
    ),
    # Quantised
    "GPTQ": (
        lambda f: quantised(
            f, {"qweight": "int32", "qzeros": "int32", "scales": "float16"}, quant_method="gptq"
        ),
        "is quantised (GPTQ or AWQ)",
    ),
    "GPTQ without its config": (
        lambda f: quantised(f, {"qweight": "int32", "scales": "float16"}),
        "is quantised (GPTQ or AWQ)",
    ),
    "AWQ": (
        lambda f: quantised(
            f, {"qweight": "int32", "qzeros": "int32", "scales": "float16"}, quant_method="awq"
        ),
        "is quantised (GPTQ or AWQ)",
    ),
    "bitsandbytes, 8 bits": (
        lambda f: quantised(f, {"weight": "int8", "SCB": "float32"}, load_in_8bit=True),
        "is quantised (bitsandbytes)",
    ),
    "bitsandbytes, 4 bits": (
        lambda f: quantised(f, {"weight": "uint8", "weight.absmax": "float32"}, load_in_4bit=True),
        "is quantised (bitsandbytes)",
    ),
    "compressed-tensors": (
        lambda f: quantised(f, {"weight_packed": "int32"}, quant_method="compressed-tensors"),
        "is quantised (compressed-tensors)",
    ),
    "a method that only the config names": (
        lambda f: config_with(f, quantization_config={"quant_method": "eetq"}),
        "is quantised (eetq)",
    ),
    "fp8 without its scale": (
        lambda f: edit(f, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(torch.float8_e4m3fn)})),
        "has 8 bits, which mean nothing without their scale",
    ),
    "fp8 without its scale in a .bin": (
        lambda f: as_bin(f, lambda tensors: tensors | {QUERY: tensors[QUERY].to(torch.float8_e4m3fn)}),
        "has 8 bits, which mean nothing without their scale",
    ),
}


def first_shard(folder: Path) -> str:
    return sorted(folder.glob("model-*"))[0].name


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_scan_and_merge(kind: str, tmp_path: Path) -> None:
    break_it, expected = REFUSED[kind]
    for name in "ab":
        bert(tmp_path / name, ord(name))
    break_it(tmp_path / "b")
    before = digests(tmp_path)
    commands: list[tuple[object, ...]] = [
        ("scan", f"path:{tmp_path}/b"),
        ("merge-checkpoints", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out"),
        ("merge-checkpoints", tmp_path / "b", tmp_path / "a", "--output", tmp_path / "out"),
        (
            "merge-checkpoints",
            tmp_path / "a",
            tmp_path / "b",
            "--base",
            tmp_path / "b",
            "--output",
            tmp_path / "out",
        ),
    ]
    for command in commands:
        answer = decaymerge(*command)
        assert (
            answer.returncode == 1 and answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
        )
        assert expected in answer.stderr, answer.stderr
    assert digests(tmp_path) == before


READ: dict[str, Callable[[Path], Any]] = {
    "consolidated weights beside the model": lambda f: save_file(
        {name: torch.zeros_like(x) for name, x in load_file(f / "model.safetensors").items()},
        f / "consolidated.safetensors",
    ),
    "a stray adapter beside a .bin": lambda f: (
        as_bin(f),
        save_file(lora(f), f / "adapter_model.safetensors"),
    ),
    "a stale index beside a single file": lambda f: (
        save_file({QUERY: torch.zeros(16, 16)}, f / "model-00001-of-00001.safetensors"),
        (f / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {QUERY: "model-00001-of-00001.safetensors"}})
        ),
    ),
    "an old .bin beside safetensors": lambda f: torch.save(
        {QUERY: torch.zeros(16, 16)}, f / "pytorch_model.bin"
    ),
    "another precision beside the model": lambda f: save_file(
        {QUERY: torch.zeros(16, 16)}, f / "model.fp16.safetensors"
    ),
    "a trainer's state beside the model": lambda f: [
        torch.save({"w": torch.ones(3, 3)}, f / name)
        for name in ("optimizer.pt", "training_args.bin", "scheduler.pt")
    ],
    "the name that the config gives": lambda f: (
        (f / "model.safetensors").rename(f / "mine.safetensors"),
        save_file({QUERY: torch.zeros(16, 16)}, f / "other.safetensors"),
        config_with(f, transformers_weights="mine.safetensors"),
    ),
    "shards": sharded,
    "a .bin": as_bin,
    "position_ids, which nobody needs any more": lambda f: edit(
        f, lambda tensors: tensors.update({"embeddings.position_ids": torch.arange(8)[None]})
    ),
    "names with the prefix of a model with a head": lambda f: edit(
        f,
        lambda tensors: [tensors.update({f"bert.{name}": tensors.pop(name)}) for name in list(tensors)],
    ),
    "tensors that the class does not have": lambda f: edit(
        f, lambda tensors: tensors.update({"cls.bias": torch.ones(4), "cls.weight": torch.ones(4, 16)})
    ),
    "an ema beside the state_dict": lambda f: as_bin(
        f, lambda tensors: {"state_dict": tensors, "ema": {QUERY: torch.zeros(16, 16)}}
    ),
    "no architectures in the config": lambda f: config_with(f, architectures=None),
    "a class that transformers does not have": lambda f: config_with(f, architectures=["MyOwnBert"]),
}
LOADS_ALIKE = {name for name in READ if not name.startswith(("an ema", "the name that"))}
"""Kinds that ``from_pretrained`` of BertModel reads as well."""


@pytest.mark.parametrize("kind", READ)
def test_what_is_read_is_what_transformers_reads(kind: str, tmp_path: Path) -> None:
    expected = torch.linalg.matrix_norm(load_file(Path(bert(tmp_path / "a", 3)) / "model.safetensors")[QUERY])
    READ[kind](tmp_path / "a")
    if kind == "shards":
        expected = (
            hf.BertModel.from_pretrained(tmp_path / "a").encoder.layer[0].attention.self.query.weight.norm()
        )
    if kind in LOADS_ALIKE:
        model = hf.BertModel.from_pretrained(tmp_path / "a")
        torch.testing.assert_close(model.encoder.layer[0].attention.self.query.weight.norm(), expected)
    before = digests(tmp_path)
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--output", tmp_path / "scan.nc")
    assert answer.returncode == 0, answer.stderr
    measured = store.read(tmp_path / "scan.nc").frobenius_norm.sel(role="Q").isel(layer=0)
    assert float(measured) == pytest.approx(float(expected), rel=1e-6)
    (tmp_path / "scan.nc").unlink()
    assert digests(tmp_path) == before


def test_partial_and_by_name_are_said(tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    edit(tmp_path / "a", lambda tensors: tensors.pop(QUERY))
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--partial")
    assert answer.returncode == 0 and "incomplete: 1 tensors of BertModel are missing" in answer.stdout
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--by-name")
    assert answer.returncode == 0 and "nothing vouches for completeness" in answer.stdout
    (tmp_path / "a/config.json").unlink()
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert "class: unknown, as there is no config.json; names decide, and nothing vouches" in answer.stdout


def fp8(folder: Path, block: int = 8) -> Tensor:
    """The query in fp8 with a scale for each block; the numbers that it stands for are returned."""
    weight = load_file(folder / "model.safetensors")[QUERY]
    blocks = weight.unflatten(0, (-1, block)).unflatten(2, (-1, block))
    scale = blocks.abs().amax((1, 3)) / 448
    spread = scale.repeat_interleave(block, 0).repeat_interleave(block, 1)
    stored = (weight / spread).to(torch.float8_e4m3fn)
    edit(folder, lambda tensors: tensors.update({QUERY: stored, f"{QUERY}_scale_inv": scale}))
    config_with(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [block, block]})
    return stored.float() * spread


@pytest.mark.parametrize("in_bin", [False, True])
def test_fp8_is_read_as_its_numbers(in_bin: bool, tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    bert(tmp_path / "b", 1)
    numbers = fp8(tmp_path / "a")
    if in_bin:
        as_bin(tmp_path / "a")
    checkpoint = Checkpoint(tmp_path / "a")
    assert not judge(checkpoint).problems and f"{QUERY}_scale_inv" not in checkpoint.tensors
    torch.testing.assert_close(checkpoint.read([QUERY])[0], numbers, rtol=1e-6, atol=0)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    merged, info = hf.BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    other = load_file(tmp_path / "b/model.safetensors")[QUERY]
    torch.testing.assert_close(merged.encoder.layer[0].attention.self.query.weight.detach(), numbers + other)


def test_mxfp4_is_read_as_its_numbers(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_local_experts": 4,
        "num_hidden_layers": 2,
        "head_dim": 8,
    }
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
    hf.GptOssForCausalLM(hf.GptOssConfig(**sizes)).save_pretrained(tmp_path)
    name = next(name for name in Checkpoint(tmp_path).tensors if name.endswith("experts.down_proj"))
    experts, into, out = Checkpoint(tmp_path).tensors[name].shape
    codes = torch.randint(0, 256, (experts, out, into // 32, 16), dtype=torch.uint8)
    scales = torch.randint(120, 130, (experts, out, into // 32), dtype=torch.uint8)
    edit(
        tmp_path,
        lambda tensors: (
            tensors.pop(name),
            tensors.update({f"{name}_blocks": codes, f"{name}_scales": scales}),
        ),
    )
    checkpoint = Checkpoint(tmp_path)
    assert not judge(checkpoint).problems
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    pairs = torch.stack([table[(codes & 15).long()], table[(codes >> 4).long()]], -1).flatten(-2)
    numbers = (pairs * 2.0 ** (scales.float() - 127)[..., None]).flatten(2).mT
    torch.testing.assert_close(checkpoint.read([name])[0], numbers)


def test_a_copy_of_a_tied_head_is_left_out(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        gpt2(tmp_path / name, seed)
    edit(
        tmp_path / "a",
        lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].clone()}),
    )
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert (
        "left out, copies of a tied table: lm_head.weight (tied to transformer.wte.weight)" in answer.stdout
    )
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    assert_merged_in_memory(tmp_path, hf.GPT2LMHeadModel)


def assert_merged_in_memory(place: Path, model_class: Any) -> None:
    """The merged model loads whole, and its outputs are those of the merge done in memory."""
    merged, info = model_class.from_pretrained(place / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    a, b = (model_class.from_pretrained(place / name) for name in "ab")
    summed = {
        name: x + b.state_dict()[name] if x.is_floating_point() else x for name, x in a.state_dict().items()
    }
    a.load_state_dict(summed)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    inputs = {"decoder_input_ids": ids} if a.config.is_encoder_decoder else {}
    with torch.no_grad():
        outputs = [model.eval()(input_ids=ids, **inputs)[0] for model in (merged, a)]
    torch.testing.assert_close(*outputs)


KINDS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "BERT with a head": (
        hf.BertForSequenceClassification,
        lambda: hf.BertConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=30
        ),
    ),
    "T5": (
        hf.T5ForConditionalGeneration,
        lambda: hf.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=30),
    ),
    "BART": (
        hf.BartForConditionalGeneration,
        lambda: hf.BartConfig(
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            vocab_size=60,
            max_position_embeddings=16,
            pad_token_id=1,
        ),
    ),
    "Mixtral": (
        hf.MixtralForCausalLM,
        lambda: hf.MixtralConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            vocab_size=30,
            num_local_experts=3,
        ),
    ),
    "Llama, tied": (
        hf.LlamaForCausalLM,
        lambda: hf.LlamaConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=30,
            tie_word_embeddings=True,
        ),
    ),
    "ALBERT": (
        hf.AlbertForMaskedLM,
        lambda: hf.AlbertConfig(
            hidden_size=16, embedding_size=8, num_attention_heads=2, intermediate_size=32, vocab_size=30
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_models_load_whole_and_give_the_outputs_of_a_merge_in_memory(
    kind: str, tmp_path: Path
) -> None:
    model_class, config = KINDS[kind]
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model_class(config()).save_pretrained(tmp_path / name)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    assert_merged_in_memory(tmp_path, model_class)


DIFFERENT: dict[str, tuple[str, Any, Any, str]] = {
    "heads in a nested part": (
        "gemma3",
        {"text_config": {"query_pre_attn_scalar": 7}},
        {},
        "text_config.query_pre_attn_scalar",
    ),
    "rotary scaling in one of them": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {},
        "rope_parameters",
    ),
    "another activation": ("llama", {"hidden_act": "relu"}, {}, "hidden_act is relu in a and silu in b"),
    "another epsilon than the default": ("llama", {"rms_norm_eps": 1e-3}, {}, "rms_norm_eps"),
    "another number of experts per token": ("mixtral", {"num_experts_per_tok": 1}, {}, "num_experts_per_tok"),
    "a window of attention": ("mistral", {"sliding_window": 7}, {}, "sliding_window"),
    "a multiplier": ("granite", {"residual_multiplier": 0.5}, {}, "residual_multiplier"),
    "a soft cap": ("gemma2", {"attn_logit_softcapping": 9.0}, {}, "attn_logit_softcapping"),
    "the type of positions": ("bert", {"layer_norm_eps": 1e-3}, {}, "layer_norm_eps"),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_configs_are_compared_whole(kind: str, tmp_path: Path) -> None:
    model_type, change, _, expected = DIFFERENT[kind]
    for name in "ab":
        model = tiny(model_type)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(ord(name) % 7)
        model.save_pretrained(tmp_path / name)
    config = json.loads((tmp_path / "a/config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(config.get(key), dict) else value
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    answer = decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    assert answer.returncode == 1 and f"config.json: {expected}" in answer.stderr, (
        answer.stderr + answer.stdout
    )


def test_another_tokenizer_is_told(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        vocabulary = {"x": 0, "y": 1} if name == "a" else {"y": 0, "x": 1}
        content = {"model": {"vocab": vocabulary}, "added_tokens": [], "truncation": name}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(content))
    answer = decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b")
    assert "warning: tokenizer.json of b gives tokens other numbers than that of a" in answer.stdout
    shutil.copy(tmp_path / "a/tokenizer.json", tmp_path / "b/tokenizer.json")
    assert "other numbers" not in decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b").stdout


def test_all_files_of_a_model_are_copied_and_no_other(tmp_path: Path) -> None:
    ours = [
        "modules.json",
        "1_Pooling/config.json",
        "spiece.model",
        "source.spm",
        "chat_template.jinja",
        "LICENSE",
    ]
    ours += [
        "preprocessor_config.json",
        "processor_config.json",
        "sentence_bert_config.json",
        "modeling_own.py",
    ]
    ours += [
        "config_sentence_transformers.json",
        "tokenizer_config.json",
        "additional_chat_templates/tool.jinja",
    ]
    not_ours = [
        "README.md",
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        "checkpoint-5/config.json",
    ]
    not_ours += ["onnx/model.onnx", ".git/config", "runs/events.out.tfevents.1", "tf_model.h5", "merge.json"]
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        for file in [*ours, *not_ours]:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(name)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    written = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert written == {*ours, "config.json", "model.safetensors", "merge.json"}
    assert (tmp_path / "out/merge.json").read_text() != "a"


def test_parts_with_weights_of_their_own_are_never_dropped(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        (tmp_path / name / "2_Dense").mkdir()
        save_file({"linear.weight": torch.eye(4)}, tmp_path / name / "2_Dense/model.safetensors")
    command = ("merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output")
    assert decaymerge(*command, tmp_path / "same").returncode == 0
    assert (tmp_path / "same/2_Dense/model.safetensors").is_file()
    save_file({"linear.weight": torch.ones(4, 4)}, tmp_path / "b/2_Dense/model.safetensors")
    answer = decaymerge(*command, tmp_path / "out")
    assert answer.returncode == 1 and "2_Dense/model.safetensors is a part of" in answer.stderr
    assert not (tmp_path / "out").exists()


def same(place: Path, how: str) -> None:
    """The checkpoint b is the checkpoint a by another name."""
    if how == "a link to the folder":
        (place / "b").symlink_to(place / "a")
    elif how == "a copy":
        shutil.copytree(place / "a", place / "b")
    elif how == "a copy in shards":
        hf.BertModel.from_pretrained(place / "a").save_pretrained(place / "b", max_shard_size="8kB")
    else:
        (place / "b").mkdir()
        for path in (place / "a").iterdir():
            (place / "b" / path.name).hardlink_to(path)


@pytest.mark.parametrize("how", ["a link to the folder", "a copy", "a copy in shards", "hard links"])
def test_equal_tensors_are_the_same_checkpoint(how: str, tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    same(tmp_path, how)
    answer = decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b")
    assert answer.returncode == 1 and "a and b are the same checkpoint" in answer.stderr
    bert(tmp_path / "c", 1)
    answer = decaymerge(
        "merge-checkpoints",
        tmp_path / "a",
        tmp_path / "c",
        "--base",
        tmp_path / "b",
        "--no-predict",
        "--output",
        tmp_path / "out",
    )
    assert "warning: a is the base itself" in answer.stdout


def test_checkpoints_may_share_a_shard(tmp_path: Path) -> None:
    """As in the hub's cache, where equal files of two models are one."""
    for name in "ab":
        bert(tmp_path / name, 0, shard="8kB")
    last = sorted((tmp_path / "b").glob("model-*"))[-1].name
    edit(tmp_path / "b", lambda tensors: [x.add_(1) for x in tensors.values()], last)
    for path in sorted((tmp_path / "b").glob("model-*"))[:-1]:
        path.unlink()
        path.symlink_to(tmp_path / "a" / path.name)
    bert(tmp_path / "base", 2)
    answer = decaymerge(
        "merge-checkpoints",
        tmp_path / "a",
        tmp_path / "b",
        "--base",
        tmp_path / "base",
        "--no-predict",
        "--output",
        tmp_path / "out",
    )
    assert answer.returncode == 0 and "is the base itself" not in answer.stdout


def scan_of(folder: Path, place: Path) -> Any:
    answer = decaymerge("scan", f"path:{folder}", "--output", place / "scan.nc", "--plot", place / "scan.pdf")
    assert answer.returncode == 0, answer.stderr
    return store.read(place / "scan.nc"), answer.stdout


def test_encoder_and_decoder_are_two_series(tmp_path: Path) -> None:
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 30,
    }
    pair = hf.EncoderDecoderModel(
        encoder=hf.BertModel(hf.BertConfig(**small)),
        decoder=hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=30, add_cross_attention=True)
        ),
    )
    pair.save_pretrained(tmp_path / "a")
    scan, printed = scan_of(tmp_path / "a", tmp_path)
    stacks = scan["stack"].values.tolist()
    assert [stacks.count("encoder.encoder.layer"), stacks.count("decoder.transformer.h")] == [2, 3]
    assert scan.frobenius_norm.sel(role=["Q", "K", "V", "O", "QKV", "M1", "M2"]).notnull().all()
    key = pair.encoder.encoder.layer[1].attention.self.key.weight
    measured = scan.frobenius_norm.sel(role="K").isel(layer=stacks.index("encoder.encoder.layer") + 1)
    assert float(measured) == pytest.approx(float(key.detach().norm()), rel=1e-6)
    assert "% of all entries" in printed


def test_experts_are_shown_by_their_median_and_range(tmp_path: Path) -> None:
    model = tiny("mixtral")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    experts = model.model.layers[1].mlp.experts.down_proj.detach()  # (experts, out, in)
    norms = torch.linalg.matrix_norm(experts)
    layer = scan.isel(layer=1).sel(role="E2")
    assert float(layer.frobenius_norm) == pytest.approx(float(norms.quantile(0.5)), rel=1e-5)
    assert float(layer.smallest_frobenius_norm) == pytest.approx(float(norms.min()), rel=1e-5)
    assert float(layer.largest_frobenius_norm) == pytest.approx(float(norms.max()), rel=1e-5)


def test_packed_experts_are_taken_apart(tmp_path: Path) -> None:
    model = tiny("granitemoe")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    norms = torch.linalg.matrix_norm(model.model.layers[0].block_sparse_moe.experts.gate_up_proj.detach())
    assert float(scan.largest_frobenius_norm.sel(role="E1")[0]) == pytest.approx(float(norms.max()), rel=1e-5)


def test_the_gate_is_no_part_of_the_query(tmp_path: Path) -> None:
    model = tiny("qwen3_next")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    attention = model.model.layers[3].self_attn
    heads = attention.q_proj.weight.detach().unflatten(0, (model.config.num_attention_heads, 2, -1))
    measured = scan.frobenius_norm.sel(role="Q").dropna("layer")
    assert float(measured[-1]) == pytest.approx(float(heads[:, 0].norm()), rel=1e-6)


def test_a_type_that_is_not_verified_is_scanned_by_name(tmp_path: Path) -> None:
    model = tiny("deepseek_v3")
    model.save_pretrained(tmp_path / "a")
    scan, printed = scan_of(tmp_path / "a", tmp_path)
    assert scan.role.values.tolist() == ["matrix"]
    assert "unknown; every matrix is scanned by its name" in printed
