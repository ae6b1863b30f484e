"""The names of the matrices of known transformers, as a table.

A tensor is named ``{stack}{layer}.{suffix}.weight``; a scheme gives the suffix of each role as a regular
expression. Attention and the other half of a layer have schemes of their own, as models combine them freely.
Several tensors of one role (gate and up of a gated layer) are joined along the output axis in the order of their
names. A matrix is a map (out, in) from the layer's input; schemes with ``transposed`` store (in, out).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import xarray as xr

ROLES = ("Q", "K", "V", "O", "QKV", "M1", "M2", "E1", "E2")
"""Query, key, value, output, and the first and second map of the MLP and of the experts."""
VERIFIED = Path(__file__).with_name("verified_model_types.txt")
"""The types whose classes were seen to use their matrices as the table says; ``make model-types`` writes it."""


@dataclass(frozen=True, eq=False)
class Scheme:
    """One row of the table: the roles of one half of a layer, and the names of their tensors."""

    name: str
    suffixes: Mapping[str, str]
    """Suffix of each role, a regular expression. A fused matrix has the role ``QKV``, in place of Q, K and V."""
    transposed: bool = False
    """Whether matrices are stored (in, out)."""
    fused: Literal["no", "stacked", "grouped", "interleaved"] = "no"
    """Order of the rows of a fused QKV. ``stacked``: all of Q, then K, then V, of equal size. ``grouped``: in the
    same order, with fewer heads of K and V. ``interleaved``: Q, K and V of head 1, then of head 2, …"""
    gated: bool = False
    """Whether the rows of Q are the queries of head 1, its gate, the queries of head 2, …"""
    goes_with: str = ""
    """Scheme of attention without which the names mean something else."""
    model_types: frozenset[str] = frozenset()
    """The only types that have this scheme; empty if all may."""

    def fits(self, suffix_role: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor has the shape of its role. Only that of a stacked QKV is known: it is three squares."""
        if self.fused != "stacked" or suffix_role != "QKV" or len(shape) != 2:
            return True
        out, into = shape[::-1] if self.transposed else shape
        return out == 3 * into


class Place(NamedTuple):
    """Where a tensor is in its model."""

    stack: str
    """Beginning of its name, up to the number of the layer."""
    layer: int
    role: str
    expert: int
    """Number of the expert; -1 for all experts in one tensor of three dimensions, and for other roles."""
    scheme: Scheme


def _separate(query: str, key: str, value: str, output: str) -> dict[str, str]:
    return {"Q": query, "K": key, "V": value, "O": output}


_BLOCK = r"(?:self_attn|attn|attention|self_attention)"
GATED_QUERIES = frozenset({"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"})
ATTENTIONS = (
    Scheme(
        "gated Llama",
        _separate(r"self_attn\.q_proj", r"self_attn\.k_proj", r"self_attn\.v_proj", r"self_attn\.o_proj"),
        gated=True,
        model_types=GATED_QUERIES,
    ),
    Scheme(
        "Llama",
        _separate(
            rf"{_BLOCK}\.q_proj(?:\.linear)?",
            rf"{_BLOCK}\.k_proj(?:\.linear)?",
            rf"{_BLOCK}\.v_proj(?:\.linear)?",
            rf"{_BLOCK}\.(?:o_proj|out_proj|dense|Wo)(?:\.linear)?",
        ),
    ),
    Scheme(
        "BERT",
        _separate(
            r"attention\.(?:self|attention)\.query",
            r"attention\.(?:self|attention)\.key",
            r"attention\.(?:self|attention)\.value",
            r"attention\.output\.dense",
        ),
    ),
    Scheme(
        "DistilBERT",
        _separate(r"attention\.q_lin", r"attention\.k_lin", r"attention\.v_lin", r"attention\.out_lin"),
    ),
    Scheme(
        "MPNet",
        _separate(r"attention\.attn\.q", r"attention\.attn\.k", r"attention\.attn\.v", r"attention\.attn\.o"),
    ),
    Scheme("GPT-2", {"QKV": r"attn\.c_attn", "O": r"attn\.c_proj"}, transposed=True, fused="stacked"),
    Scheme(
        "GPT-NeoX",
        {"QKV": r"(?:attention|self_attn)\.query_key_value", "O": r"(?:attention|self_attn)\.dense"},
        fused="interleaved",
    ),
    Scheme("Phi-3", {"QKV": r"self_attn\.qkv_proj", "O": r"self_attn\.o_proj"}, fused="grouped"),
    Scheme("ModernBERT", {"QKV": r"attn\.Wqkv", "O": r"attn\.Wo"}, fused="stacked"),
    Scheme("packed ViT", {"QKV": r"attn\.qkv", "O": r"attn\.proj"}, fused="stacked"),
    Scheme(
        "CTRL",
        _separate(*(rf"multi_head_attention\.{name}" for name in ("Wq", "Wk", "Wv", "dense"))),
    ),
    Scheme("T5", _separate(*(rf"layer\.0\.SelfAttention\.{name}" for name in "qkvo"))),
)
MLPS = (
    Scheme(
        "Llama",
        {
            "M1": r"(?:mlp|feed_forward)\.(?:gate|up|gate_up)_proj",
            "M2": r"(?:mlp|feed_forward)\.down_proj",
        },
    ),
    Scheme("GPT-2", {"M1": r"mlp\.c_fc", "M2": r"mlp\.c_proj"}, transposed=True, goes_with="GPT-2"),
    Scheme("StarCoder", {"M1": r"mlp\.c_fc", "M2": r"mlp\.c_proj"}, goes_with="Llama"),
    Scheme("BERT", {"M1": r"intermediate\.dense", "M2": r"output\.dense"}),
    Scheme("CLIP", {"M1": r"(?:mlp\.)?fc1", "M2": r"(?:mlp\.)?fc2"}),
    Scheme("GPT-J", {"M1": r"mlp\.fc_in", "M2": r"mlp\.fc_out"}),
    Scheme("GPT-NeoX", {"M1": r"mlp\.dense_h_to_4h", "M2": r"mlp\.dense_4h_to_h"}),
    Scheme("DistilBERT", {"M1": r"(?:ffn|mlp)\.lin1", "M2": r"(?:ffn|mlp)\.lin2"}),
    Scheme("LFM2", {"M1": r"feed_forward\.w[13]", "M2": r"feed_forward\.w2"}),
    Scheme("ModernBERT", {"M1": r"mlp\.Wi", "M2": r"mlp\.Wo"}),
    Scheme("CTRL", {"M1": r"ffn\.0", "M2": r"ffn\.2"}),
    Scheme(
        "T5",
        {
            "M1": r"layer\.[12]\.DenseReluDense\.wi(?:_[01])?",
            "M2": r"layer\.[12]\.DenseReluDense\.wo",
        },
    ),
)
_EXPERTS = r"(?:mlp|block_sparse_moe|feed_forward|moe)\.experts\."
EXPERTS = (
    Scheme(
        "experts",
        {
            "E1": rf"{_EXPERTS}(?P<expert>\d+)\.(?:gate_proj|up_proj|w1|w3)",
            "E2": rf"{_EXPERTS}(?P<expert>\d+)\.(?:down_proj|w2)",
        },
    ),
    Scheme(
        "packed experts",
        {
            "E1": rf"(?:{_EXPERTS}gate_up_proj|block_sparse_moe\.input_linear)",
            "E2": rf"(?:{_EXPERTS}down_proj|block_sparse_moe\.output_linear)",
        },
    ),
)


def place_of(scheme: Scheme, tensor: str) -> Place | None:
    """Place of a tensor by its name, or none if the name does not belong to this scheme."""
    for role, suffix in scheme.suffixes.items():
        ending = r"(?:\.weight)?" if scheme.name == "packed experts" else r"\.weight"
        if match := re.fullmatch(rf"(.*?)(\d+)\.{suffix}{ending}", tensor):
            number = match.groupdict().get("expert")
            return Place(match[1], int(match[2]), role, -1 if number is None else int(number), scheme)
    return None


def places(shapes: Mapping[str, tuple[int, ...]], model_type: str = "") -> dict[str, Place]:
    """Places of the tensors of one part of a model that belong to known schemes.

    A part may hold several stacks of layers, such as an encoder and a decoder. The schemes that fit most tensors
    are given to their stacks, and the search goes on among the others.

    Args:
        shapes: Shape of each tensor by its name.
        model_type: Type of the part, or empty if it is unknown.
    """
    found: dict[str, Place] = {}
    rest = dict(shapes)
    while rest:
        attention = _best([scheme for scheme in ATTENTIONS if _allows(scheme, model_type)], rest)
        if attention is None:
            break
        stacks = {place.stack for name in rest if (place := place_of(attention, name))}
        inside = {name: shape for name, shape in rest.items() if any(_is_in(name, stack) for stack in stacks)}
        with_it = ("", attention.name, attention.name.removeprefix("gated "))
        mlp = _best([scheme for scheme in MLPS if scheme.goes_with in with_it], inside)
        experts = _best(EXPERTS, inside)
        if mlp is not None or experts is not None:
            for name in inside:
                for scheme in filter(None, (attention, mlp, experts)):
                    if (place := place_of(scheme, name)) and place.stack in stacks:
                        found.setdefault(name, place)
        rest = {name: shape for name, shape in rest.items() if name not in inside}
    return found


def _allows(scheme: Scheme, model_type: str) -> bool:
    return not scheme.model_types or model_type in scheme.model_types


def _is_in(name: str, stack: str) -> bool:
    return name.startswith(stack) and name[len(stack) : len(stack) + 1].isdigit()


def _best(schemes: Iterable[Scheme], shapes: Mapping[str, tuple[int, ...]]) -> Scheme | None:
    """The first scheme with the most tensors, among those of which every role is there and every shape fits."""
    best, most = None, 0
    for scheme in schemes:
        roles = [(place.role, shape) for name, shape in shapes.items() if (place := place_of(scheme, name))]
        if not all(scheme.fits(role, shape) for role, shape in roles):
            continue
        if {role for role, _ in roles} == set(scheme.suffixes) and len(roles) > most:
            best, most = scheme, len(roles)
    return best


def title(found: Iterable[Place]) -> str:
    """Names of the schemes, those of most tensors first."""
    counts = Counter(place.scheme.name for place in found)
    return ", ".join(name for name, _ in counts.most_common())


@cache
def verified_types() -> frozenset[str]:
    """Types of models whose roles were compared with what their own classes do."""
    return frozenset(VERIFIED.read_text().split())


def stacks_of(scan: xr.Dataset) -> dict[str, xr.Dataset]:
    """The stacks of layers of a scan by name, such as an encoder and a decoder.

    Matrices without roles are a stack without a name, and the last one.
    """
    stacks = scan["stack"].values
    names = sorted(dict.fromkeys(stacks.tolist()), key=lambda name: not name)
    return {name: scan.isel(layer=stacks == name).swap_dims(layer="number") for name in names}
