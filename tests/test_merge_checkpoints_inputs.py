"""Checkpoints merged with inputs at hand: against the classes' own passes, numpy, and finite differences."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor, nn

from builders_architectures import MODELS
from builders_checkpoints import bert, digests, edit, with_words
from commands import decaymerge
from decaymerge import store
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.judge import judge
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_checkpoints.output_change import output_changes
from decaymerge.merge_checkpoints.with_inputs import Follower, as_map, features
from decaymerge.workflow.jobs import CheckpointsJob

IDS = torch.tensor([[3, 7, 11, 2, 9], [4, 4, 8, 1, 1], [5, 6, 7, 8, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])


def batch_of(model: Any, shift: int = 0) -> dict[str, Tensor]:
    if model.main_input_name == "pixel_values":
        generator = torch.Generator().manual_seed(shift)
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}
    batch = {"input_ids": (IDS + shift) % 20, "attention_mask": MASK}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        batch["decoder_input_ids"] = (IDS + shift) % 20
    return batch


def pair(name: str, folder: Path) -> tuple[list[Any], Follower]:
    """Two random models of a kind, and the follower of both on inputs of their own."""
    models = []
    for seed, place in enumerate("ab"):
        torch.manual_seed(seed)
        model = MODELS[name]().eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder / place)
        models.append(model)
    checkpoints = {place: Checkpoint(folder / place) for place in "ab"}
    forms = {place: judge(checkpoint) for place, checkpoint in checkpoints.items()}
    sources = Sources(checkpoints, None, forms)
    return models, Follower(sources, {place: batch_of(models[0], i) for i, place in enumerate("ab")})


def job_of(method: Any, folder: Path) -> CheckpointsJob:
    return CheckpointsJob.model_validate(
        {"models": [str(folder / "a"), str(folder / "b")], "base": None, "method": method}
    )


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_own_and_merged_outputs_are_those_of_the_class(name: str, tmp_path: Path) -> None:
    models, follower = pair(name, tmp_path)
    followed = follower.follow(job_of("average", tmp_path), tmp_path)
    average = MODELS[name]().eval()
    average.load_state_dict(
        {
            key: (value + models[1].state_dict()[key]) / 2 if value.is_floating_point() else value
            for key, value in models[0].state_dict().items()
        }
    )
    for i, place in enumerate("ab"):
        batch = batch_of(models[0], i)
        for network, outputs in ((models[i], followed.own[place]), (average, followed.merged[place])):
            torch.testing.assert_close(outputs, features(network(**batch), batch), rtol=1e-4, atol=1e-5)


def applied(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inputs of each matrix as rows (sample, in), without padding, from hooks in the class's own forward pass."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(_: Any, args: tuple[Tensor, ...]) -> None:
            hidden = args[0]
            masked = hidden.ndim == 3 and hidden.shape[:2] == MASK.shape and "attention_mask" in batch
            found[name] = hidden[MASK.bool()] if masked else hidden.flatten(0, -2)

        return keep

    handles = [
        module.register_forward_pre_hook(hook(name))
        for name, module in model.named_modules()
        if as_map(module)
    ]
    model(**batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama", "ViT"])
@torch.no_grad()
def test_matrices_are_the_least_squares_of_numpy(name: str, tmp_path: Path) -> None:
    """On own activations, with a ridge and without a base; GPT-2's matrices are stored transposed and joined."""
    models, follower = pair(name, tmp_path)
    method = {"method": "least_squares", "activations": "own", "ridge": 0.01, "shrinkage": 0.1}
    followed = follower.follow(job_of(method, tmp_path), tmp_path)
    solved: dict[str, Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        solved |= load_file(file)
    assert set(solved) == set(followed.solved)
    hidden = [applied(model, batch_of(model, i)) for i, model in enumerate(models)]
    checked = 0
    for module, layer in models[0].named_modules():
        stored = follower.names.of(f"{module}.weight") if as_map(layer) else None
        if stored not in solved:
            continue
        turn = as_map(layer) == "in, out"
        grams, products = [], []
        for model, inputs in zip(models, hidden, strict=True):
            weight = model.get_submodule(module).weight.double().numpy()
            h = inputs[module].double().numpy()
            gram = h.T @ h / len(h)
            gram = 0.9 * gram + 0.1 * np.diag(np.diag(gram))
            grams.append(gram)
            products.append((weight.T if turn else weight) @ gram)
        total = sum(grams)
        expected = sum(products) @ np.linalg.inv(total + 0.01 * np.diag(total).mean() * np.eye(len(total)))
        matrix = solved[stored].double().numpy()
        np.testing.assert_allclose(matrix.T if turn else matrix, expected, rtol=1e-3, atol=1e-4)
        checked += 1
    assert checked == len(solved) >= 8
    tied = {"GPT-2": "transformer.wte.weight"}.get(name)
    assert tied is None or tied not in solved


def test_the_base_draws_and_the_written_merge_gives_the_measured_outputs(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "base")):
        bert(tmp_path / name, seed)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", input_ids=(IDS + ord(name)) % 30, attention_mask=MASK)
    before = digests(tmp_path)
    command = ["merge-checkpoints", tmp_path / "a", tmp_path / "b", "--base", tmp_path / "base"]
    given = [f"--inputs=a={tmp_path}/a.npz", f"--inputs={tmp_path}/b={tmp_path}/b.npz"]
    for options, name in (([], "merged"), (["--ridge", 1e6], "drawn")):
        arguments = [*command, *given, "--method", "least_squares", *options, "--output", tmp_path / name]
        answer = decaymerge(*arguments, "--report", tmp_path / f"{name}.nc")
        assert answer.returncode == 0, answer.stderr
        assert "merged from their inputs: 13 matrices; everything else: sum" in answer.stdout
    assert {key: value for key, value in digests(tmp_path).items() if key in before} == before
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a", "b", "base", "a.npz", "b.npz", "merged", "drawn", "merged.nc", "drawn.nc")
    }
    base, drawn = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "drawn"))
    key = "encoder.layer.1.output.dense.weight"
    torch.testing.assert_close(drawn[key], base[key], rtol=0, atol=1e-5)
    report = store.read(tmp_path / "merged.nc")
    assert report.output_change.notnull().all() and set(report.role.values) >= {"Q", "M1"}
    models = [
        hf.BertModel.from_pretrained(tmp_path / name, add_pooling_layer=True).eval()
        for name in ("a", "merged")
    ]
    batch = {"input_ids": (IDS + ord("a")) % 30, "attention_mask": MASK}
    with torch.no_grad():
        own, merged = (features(model(**batch), batch) for model in models)
    change = float((merged - own).norm(dim=1).mean())
    assert f"outputs on the inputs of a: mean norm {own.norm(dim=1).mean():.3g}, changed by {change:.3g}" in (
        decaymerge(*command, *given, "--method", "least_squares").stdout
    )


def test_effects_of_single_matrices_can_be_left_out(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        np.savez(tmp_path / f"{name}.npz", input_ids=(IDS + seed) % 30, attention_mask=MASK)
    command = ["merge-checkpoints", tmp_path / "a", tmp_path / "b", "--method", "least_squares"]
    command += [f"--inputs={name}={tmp_path}/{name}.npz" for name in "ab"]
    whole = decaymerge(*command, "--output", tmp_path / "whole").stdout
    short = decaymerge(*command, "--output", tmp_path / "short", "--no-predict").stdout
    effects, rest = whole.split("merged from their inputs")
    assert "largest changes" in effects and "largest changes" not in short
    assert short.endswith("merged from their inputs" + rest.replace("whole", "short"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "short")]
    assert weights[0] == weights[1]


def test_outputs_of_few_inputs_are_reproduced(tmp_path: Path) -> None:
    """With fewer inputs than dimensions, and without a ridge."""
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
    maps = {key for key in load_file(tmp_path / "a/model.safetensors") if is_map(key)}
    rest = {
        key: value for key, value in load_file(tmp_path / "a/model.safetensors").items() if key not in maps
    }
    edit(tmp_path / "b", lambda tensors: tensors.update(rest))
    checkpoints = {name: Checkpoint(tmp_path / name) for name in "ab"}
    forms = {name: judge(checkpoint) for name, checkpoint in checkpoints.items()}
    ids = {"a": torch.tensor([[3, 7, 11]]), "b": torch.tensor([[4, 9, 12]])}
    follower = Follower(
        Sources(checkpoints, None, forms), {name: {"input_ids": tokens} for name, tokens in ids.items()}
    )
    for activations in ("own", "merged"):
        method = {"method": "least_squares", "activations": activations, "ridge": 0}
        followed = follower.follow(job_of(method, tmp_path), tmp_path)
        for name in "ab":
            torch.testing.assert_close(followed.merged[name], followed.own[name], rtol=1e-4, atol=1e-4)


def is_map(key: str) -> bool:
    return key.endswith("weight") and "LayerNorm" not in key and "embeddings" not in key


@pytest.mark.parametrize("name", ["BERT with a head", "GPT-2", "Llama", "OPT", "ViT"])
def test_changes_of_the_output_are_finite_differences(name: str, tmp_path: Path) -> None:
    models, follower = pair(name, tmp_path)
    batch = follower.batches["a"]
    model = models[0].double()
    few = lambda output: features(output, batch)[:, :3]  # noqa: E731
    found = output_changes(
        follower.fresh_model(),
        batch,
        lambda module: follower.own_parameters("a", module),
        lambda module: follower.others("a", module),
        outputs_of=few,
    )
    double = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    with torch.no_grad():
        for module, change in found.items():
            weight = model.get_submodule(module).weight
            matrix = follower.others("a", module)
            assert matrix is not None
            if follower.names.is_tied(f"{module}.weight"):
                continue
            step = 1e-3 * (matrix if as_map(model.get_submodule(module)) == "out, in" else matrix.mT)
            outputs = []
            for direction in (1, -2, 1):  # to both sides, and back
                weight += direction * step
                outputs.append(few(model(**double)))
            difference = (outputs[0] - outputs[1]) / 2e-3
            # Llama's norms compute in float32, whatever the type of the model is.
            assert (change - difference).norm() < 5e-3 * difference.norm(), module
    assert len(found) >= 8


def classifiers(folder: Path) -> None:
    """Two classifiers with a tokenizer of single words."""
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        config = hf.BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=17,
            id2label={0: "bad", 1: "good"},
            label2id={"bad": 0, "good": 1},
        )
        hf.BertForSequenceClassification(config).save_pretrained(folder / name)
        with_words(folder / name, 17)


def test_texts_labels_and_the_best_coefficient(tmp_path: Path) -> None:
    classifiers(tmp_path)
    lines = [f"w{i} w{(3 * i) % 12}" for i in range(8)]
    (tmp_path / "x.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "y.txt").write_text("good\nbad\n0\n1\ngood\nbad\n1\n0\n")
    given = [f"--inputs={name}={tmp_path}/x.txt" for name in "ab"]
    given += [f"--labels={name}={tmp_path}/y.txt" for name in "ab"]
    command = ["merge-checkpoints", tmp_path / "a", tmp_path / "b", *given]
    answer = decaymerge(*command, "--method", "scaled", "--coefficient", "auto", "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    assert "accuracy 0." in answer.stdout and "--coefficient 0." in answer.stdout
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(tmp_path / "a")
    own = hf.BertForSequenceClassification.from_pretrained(tmp_path / "a").eval()
    with torch.no_grad():
        predicted = own(**tokenizer(lines, padding=True, return_tensors="pt")).logits.argmax(1)
    truth = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0])
    assert f"accuracy {(predicted == truth).float().mean():.3f} before" in answer.stdout
    for wrong, expected in (
        ("good\n" * 7, "holds 7 labels for 8 inputs"),
        ("good\n" * 7 + "w1 w3\n", "line 8 is 'w1 w3', no label of this head: bad, good, 0"),
    ):
        (tmp_path / "y.txt").write_text(wrong)
        assert expected in decaymerge(*command, "--method", "least_squares").stderr
    (tmp_path / "b/vocab.txt").write_text((tmp_path / "b/vocab.txt").read_text().replace("w0", "other"))
    answer = decaymerge(*command, "--method", "least_squares")
    assert "is text, but vocab.txt of b gives tokens other numbers" in answer.stderr
