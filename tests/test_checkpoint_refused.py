"""Checkpoints that are refused, by scans and by merges, in one line: incomplete ones, adapters, quantised ones."""

# mypy: disable-error-code="func-returns-value"
# Tables of small changes: a tuple does one after the other.

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from builders_checkpoints import QUERY, as_bin, bert, config_with, edit, lora, sharded
from commands import decaymerge
from refusals import assert_refused


def without_last_shard(folder: Path, *, index: bool = True) -> None:
    sharded(folder)
    sorted(folder.glob("model-*"))[-1].unlink()
    if not index:
        (folder / "model.safetensors.index.json").unlink()


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
    "a part of a pretraining's head is missing": (
        lambda f: (
            config_with(f, architectures=["BertForMaskedLM"]),
            edit(f, lambda tensors: tensors.update({"cls.predictions.bias": torch.zeros(50)})),
        ),
        "tensors of BertForMaskedLM are missing",
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
    "weights in a folder below alone": (
        lambda f: (
            (f / "0_Transformer").mkdir(),
            (f / "model.safetensors").rename(f / "0_Transformer/model.safetensors"),
        ),
        "such as one of its folders 0_Transformer",
    ),
    "a pointer of Git LFS": (
        lambda f: (f / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        ),
        "is a Git LFS pointer, not the weights",
    ),
    "weights that the config names and that are not there": (
        lambda f: config_with(f, transformers_weights="mine.safetensors"),
        "names mine.safetensors as transformers_weights, and it is not there",
    ),
    "other configs for other versions": (
        lambda f: config_with(f, configuration_files=["config.5.0.0.json"]),
        "names other configs for other versions",
    ),
    "a config of a hundred thousand brackets": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        "is not readable as JSON",
    ),
    "a shard outside": (
        lambda f: (
            sharded(f),
            (f.parent / first_shard(f)).write_bytes((f / first_shard(f)).read_bytes()),
            edit_index(
                f,
                lambda index: index["weight_map"].update(
                    {
                        name: f"../{file}"
                        for name, file in index["weight_map"].items()
                        if file == first_shard(f)
                    }
                ),
            ),
        ),
        "put all files into one folder",
    ),
    "heads that do not divide the width": (
        lambda f: config_with(f, num_attention_heads=3),
        "transformers refuses this checkpoint of bert (ValueError",
    ),
    "a type of numbers that there is not": (
        lambda f: config_with(f, dtype="nonsense"),
        "transformers refuses this checkpoint of bert",
    ),
    "one matrix under two names": (
        lambda f: edit(f, lambda tensors: tensors.update({f"bert.{QUERY}": torch.ones(16, 16)})),
        f"{QUERY} of BertModel, which loads one of them",
    ),
    "a matrix of whole numbers": (
        lambda f: edit(f, lambda tensors: tensors.update({QUERY: (100 * tensors[QUERY]).to(torch.int8)})),
        "1 tensors hold no floating-point numbers, unlike BertModel: encoder.layer.0",
    ),
    "a matrix of complex numbers": (
        lambda f: edit(f, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(torch.complex64)})),
        "1 tensors hold no floating-point numbers, unlike BertModel",
    ),
    "names of a model in parallel": (
        lambda f: edit(
            f,
            lambda tensors: [tensors.update({f"module.{name}": tensors.pop(name)}) for name in list(tensors)],
        ),
        "All names begin with module., which is a wrapper's: save the model inside it",
    ),
    "layers without end in a part of the config": (
        lambda f: config_with(f, vision_config={"encoder_layers": 10**8}),
        "vision_config.encoder_layers is 100000000",
    ),
    "a config that is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        "holds a list, not a mapping",
    ),
    "labels that the head does not have": (
        lambda f: (
            shutil.rmtree(f),
            hf.BertForSequenceClassification(
                hf.BertConfig(
                    hidden_size=16,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=32,
                    vocab_size=30,
                )
            ).save_pretrained(f),
            config_with(f, id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2}),
        ),
        "2 tensors have another shape than in BertForSequenceClassification",
    ),
    # Adapters
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
        "is a LoRA with x.ia3_l, which is more than a sum",
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
    "MXFP4 without its scales": (
        lambda f: (
            edit(f, lambda tensors: tensors.update({"x_blocks": torch.ones(2, 4, 1, 16, dtype=torch.uint8)})),
            config_with(f, quantization_config={"quant_method": "mxfp4"}),
        ),
        "has few bits, which mean nothing without their scale",
    ),
    "fp8 whose scales are of rows": (
        lambda f: (
            edit(
                f,
                lambda tensors: tensors.update(
                    {QUERY: tensors[QUERY].to(torch.float8_e4m3fn), f"{QUERY}_scale_inv": torch.ones(16, 1)}
                ),
            ),
            config_with(f, quantization_config={"quant_method": "fp8"}),
        ),
        "has (16, 1) scales for blocks of 128 x 128, where (1, 1) are expected",
    ),
    "fp8 with scales, of which the config says nothing": (
        lambda f: edit(
            f,
            lambda tensors: tensors.update(
                {QUERY: tensors[QUERY].to(torch.float8_e4m3fn), f"{QUERY}_scale_inv": torch.ones(1, 1)}
            ),
        ),
        "fp8 whose config.json has no quantization_config",
    ),
    "integers of PyTorch's own quantisation": (
        lambda f: as_bin(
            f,
            lambda tensors: tensors | {QUERY: torch.quantize_per_tensor(tensors[QUERY], 0.1, 0, torch.qint8)},
        ),
        "is sparse, quantised, or has no data",
    ),
    "fp8 without its scale": (
        lambda f: edit(f, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(torch.float8_e4m3fn)})),
        "has few bits, which mean nothing without their scale",
    ),
    "fp8 without its scale in a .bin": (
        lambda f: as_bin(f, lambda tensors: tensors | {QUERY: tensors[QUERY].to(torch.float8_e4m3fn)}),
        "has few bits, which mean nothing without their scale",
    ),
}


def first_shard(folder: Path) -> str:
    return sorted(folder.glob("model-*"))[0].name


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.inputs
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_scan_and_merge(kind: str, tmp_path: Path) -> None:
    break_it, expected = REFUSED[kind]
    for name in "ab":
        bert(tmp_path / name, ord(name))
    break_it(tmp_path / "b")
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
        assert_refused(lambda command=command: decaymerge(*command), tmp_path, expected)  # type: ignore[misc]
