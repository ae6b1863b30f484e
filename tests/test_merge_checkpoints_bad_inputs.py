"""Inputs and options of ``merge-checkpoints --inputs`` that are not as they must be: one line, nothing written."""

# mypy: disable-error-code="func-returns-value"
# A table of small changes: an argument makes one.

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from builders_checkpoints import bert, config_with, edit
from commands import decaymerge
from refusals import assert_refused

IDS = torch.tensor([[3, 7, 11, 2, 9], [4, 4, 8, 1, 1], [5, 6, 7, 8, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])

BAD: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no inputs": (lambda f: [], "merges from inputs of the tasks; give --inputs NAME=FILE"),
    "inputs of one model alone": (lambda f: [f"--inputs=a={f}/a.npz"], "--inputs is missing for b"),
    "a name of no model": (
        lambda f: [f"--inputs=c={f}/a.npz"],
        "names none of the models; give NAME=FILE with",
    ),
    "two files of one model": (
        lambda f: [f"--inputs=a={f}/a.npz", f"--inputs=a={f}/b.npz"],
        "gives a a second file",
    ),
    "a file that is not there": (lambda f: [f"--inputs=a={f}/none.npz"], "there is no"),
    "labels without inputs": (
        lambda f: [f"--labels=a={f}/a.npz", "--method", "sum"],
        "are those of --inputs",
    ),
    "one input": (
        lambda f: both(f, np.savez(f / "a.npz", input_ids=IDS[:1], attention_mask=MASK[:1])),
        "holds 1 input; give 2 or more",
    ),
    "arguments that the model does not take": (
        lambda f: both(f, np.savez(f / "a.npz", pixel_values=np.ones((3, 2)))),
        "BertModel takes no pixel_values; it takes input_ids",
    ),
    "rows that differ in number": (
        lambda f: both(f, np.savez(f / "a.npz", input_ids=IDS, attention_mask=MASK[:2])),
        "arrays differ in their number of rows",
    ),
    "tokens beyond the vocabulary": (
        lambda f: both(f, np.savez(f / "a.npz", input_ids=IDS + 100, attention_mask=MASK)),
        "the forward pass failed (IndexError",
    ),
    "no archive": (lambda f: both(f, (f / "a.npz").write_text("x")), "cannot be read"),
    "objects in the archive": (
        lambda f: both(f, np.savez(f / "a.npz", input_ids=np.array([{}, {}]))),
        "cannot be read",
    ),
    "NaN among the inputs": (
        lambda f: both(f, np.savez(f / "a.npz", inputs_embeds=np.full((3, 5, 16), np.nan))),
        "inputs_embeds has an infinite or NaN entry",
    ),
    "text without a tokenizer": (
        lambda f: [f"--inputs=a={text(f, 'x')}", f"--inputs=b={f}/b.npz"],
        "have no tokenizer that transformers reads",
    ),
    "an empty line": (
        lambda f: [f"--inputs=a={text(f, 'x', '', 'y')}", f"--inputs=b={f}/b.npz"],
        "line 2 is empty",
    ),
    "an empty file": (lambda f: [f"--inputs=a={text(f)}", f"--inputs=b={f}/b.npz"], "is empty"),
    "a folder without images": (
        lambda f: [f"--inputs=a={f}/a", f"--inputs=b={f}/b.npz"],
        "holds no images",
    ),
    "labels without a head": (
        lambda f: [*both(f), f"--labels=a={text(f, '0', '1', '1')}", f"--labels=b={f}/lines.txt"],
        "needs a model that classifies sequences or images, and BertModel does not",
    ),
    "an architecture that transformers does not know": (
        lambda f: [*both(f, [config_with(f / name, model_type="mine") for name in "ab"])],
        "--inputs need a class that transformers knows",
    ),
    "activations that are infinite": (
        lambda f: both(
            f,
            edit(
                f / "a",
                lambda tensors: tensors.update(
                    {name: 1e30 * value for name, value in tensors.items() if "intermediate" in name}
                ),
            ),
        ),
        "infinite or NaN on the inputs of a",
    ),
    "a coefficient to choose on nothing": (
        lambda f: ["--method", "scaled", "--coefficient", "auto"],
        "--coefficient auto is chosen on --inputs",
    ),
    "a coefficient that is a word": (
        lambda f: ["--method", "scaled", "--coefficient", "much"],
        "coefficient = 'much'",
    ),
    "a method for experiments": (
        lambda f: [*both(f), "--method", "projected_sum"],
        "is for the networks of experiments",
    ),
}


def both(folder: Path, *_: object) -> list[object]:
    """Inputs of both models, after a change of files."""
    return [f"--inputs={name}={folder}/{name}.npz" for name in "ab"]


def text(folder: Path, *lines: str) -> Path:
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder / "lines.txt"


@pytest.mark.inputs
@pytest.mark.parametrize("kind", BAD)
def test_bad_inputs_are_one_line(kind: str, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        np.savez(tmp_path / f"{name}.npz", input_ids=IDS, attention_mask=MASK)
    options, expected = BAD[kind]
    given = options(tmp_path)
    method = [] if "--method" in given else ["--method", "least_squares"]
    arguments = [
        "merge-checkpoints",
        tmp_path / "a",
        tmp_path / "b",
        *given,
        *method,
        "--output",
        tmp_path / "out",
    ]
    assert_refused(lambda: decaymerge(*arguments), tmp_path, expected)
