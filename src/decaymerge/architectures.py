"""The names of the matrices of known transformers, as a table.

A tensor is named ``{stack}{layer}.{suffix}.weight``; a row gives the suffix of each role as a regular expression.
Several tensors of one role (gate and up of a gated layer) are joined along the output axis in the order of their
names. A matrix is a map (out, in) from the layer's input; architectures with ``transposed`` store (in, out).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ROLES = ("Q", "K", "V", "O", "QKV", "M1", "M2")


@dataclass(frozen=True)
class Architecture:
    """One row of the table: the roles of an architecture, and the names of their tensors."""

    name: str
    suffixes: Mapping[str, str]
    """Suffix of each role, a regular expression. A fused matrix has the role ``QKV``, in place of Q, K and V."""
    transposed: bool = False
    """Whether matrices are stored (in, out)."""
    fused: Literal["no", "stacked", "grouped", "interleaved"] = "no"
    """Order of the rows of a fused QKV. ``stacked``: all of Q, then K, then V, of equal size. ``grouped``: in the
    same order, with fewer heads of K and V. ``interleaved``: Q, K and V of head 1, then of head 2, …"""

    def role_of(self, tensor: str) -> tuple[str, int, str] | None:
        """(stack, layer, role) of a tensor by its name, or none if no row of this architecture fits the name."""
        for role, suffix in self.suffixes.items():
            if match := re.fullmatch(rf"(.*?)(\d+)\.{suffix}\.weight", tensor):
                return match[1], int(match[2]), role
        return None

    def fits(self, tensor: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor has the shape of its role. Only that of a stacked QKV is known: it is three squares."""
        place = self.role_of(tensor)
        if self.fused != "stacked" or place is None or place[2] != "QKV" or len(shape) != 2:
            return True
        out, into = shape[::-1] if self.transposed else shape
        return out == 3 * into


def _separate(query: str, key: str, value: str, output: str, first: str, second: str) -> dict[str, str]:
    return {"Q": query, "K": key, "V": value, "O": output, "M1": first, "M2": second}


ARCHITECTURES = (
    Architecture(
        "BERT, RoBERTa",
        _separate(
            r"attention\.self\.query",
            r"attention\.self\.key",
            r"attention\.self\.value",
            r"attention\.output\.dense",
            r"intermediate\.dense",
            r"output\.dense",
        ),
    ),
    Architecture(
        "DistilBERT",
        _separate(
            r"attention\.q_lin",
            r"attention\.k_lin",
            r"attention\.v_lin",
            r"attention\.out_lin",
            r"ffn\.lin1",
            r"ffn\.lin2",
        ),
    ),
    Architecture(
        "MPNet",
        _separate(
            r"attention\.attn\.q",
            r"attention\.attn\.k",
            r"attention\.attn\.v",
            r"attention\.attn\.o",
            r"intermediate\.dense",
            r"output\.dense",
        ),
    ),
    Architecture(
        "GPT-2",
        {"QKV": r"attn\.c_attn", "O": r"attn\.c_proj", "M1": r"mlp\.c_fc", "M2": r"mlp\.c_proj"},
        transposed=True,
        fused="stacked",
    ),
    Architecture(
        "GPT-J",
        _separate(
            r"attn\.q_proj",
            r"attn\.k_proj",
            r"attn\.v_proj",
            r"attn\.out_proj",
            r"mlp\.fc_in",
            r"mlp\.fc_out",
        ),
    ),
    Architecture(
        "GPT-NeoX",
        {
            "QKV": r"attention\.query_key_value",
            "O": r"attention\.dense",
            "M1": r"mlp\.dense_h_to_4h",
            "M2": r"mlp\.dense_4h_to_h",
        },
        fused="interleaved",
    ),
    Architecture(
        "Phi",
        _separate(
            r"self_attn\.q_proj",
            r"self_attn\.k_proj",
            r"self_attn\.v_proj",
            r"self_attn\.dense",
            r"mlp\.fc1",
            r"mlp\.fc2",
        ),
    ),
    Architecture(
        "Phi-3",
        {
            "QKV": r"self_attn\.qkv_proj",
            "O": r"self_attn\.o_proj",
            "M1": r"mlp\.gate_up_proj",
            "M2": r"mlp\.down_proj",
        },
        fused="grouped",
    ),
    Architecture(
        "OPT, BART, fairseq",
        _separate(
            r"self_attn\.q_proj",
            r"self_attn\.k_proj",
            r"self_attn\.v_proj",
            r"self_attn\.out_proj",
            "fc1",
            "fc2",
        ),
    ),
    Architecture(
        "Llama, Mistral, Qwen, Gemma",
        _separate(
            r"self_attn\.q_proj",
            r"self_attn\.k_proj",
            r"self_attn\.v_proj",
            r"self_attn\.o_proj",
            r"mlp\.(?:gate|up)_proj",
            r"mlp\.down_proj",
        ),
    ),
    Architecture(
        "ViT",
        _separate(
            r"attention\.attention\.query",
            r"attention\.attention\.key",
            r"attention\.attention\.value",
            r"attention\.output\.dense",
            r"intermediate\.dense",
            r"output\.dense",
        ),
    ),
    Architecture(
        "T5",
        _separate(
            r"layer\.0\.SelfAttention\.q",
            r"layer\.0\.SelfAttention\.k",
            r"layer\.0\.SelfAttention\.v",
            r"layer\.0\.SelfAttention\.o",
            r"layer\.[12]\.DenseReluDense\.wi(?:_[01])?",
            r"layer\.[12]\.DenseReluDense\.wo",
        ),
    ),
)


def recognise(tensors: Mapping[str, tuple[int, ...]]) -> Architecture | None:
    """The architecture that names most of the tensors, or none if no architecture fits.

    An architecture fits if there are tensors of all its roles and each stacked QKV has the shape of three squares.
    The shape tells nanoGPT and GPT-BigCode apart from GPT-2: they have its names, but other layouts.

    Args:
        tensors: Shape of each tensor by its name.
    """
    best, most = None, 0
    for row in ARCHITECTURES:
        roles = [place[2] for name in tensors if (place := row.role_of(name))]
        if not all(row.fits(name, shape) for name, shape in tensors.items()):
            continue
        if set(roles) == set(row.suffixes) and len(roles) > most:
            best, most = row, len(roles)
    return best
