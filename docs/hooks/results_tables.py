"""Tables of the README and of the page of results, each from a folder of ``docs/numbers``."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from decaymerge import store
from decaymerge.claims import CLAIMS
from decaymerge.hypotheses import HYPOTHESES
from markdown_tables import PERCENT, Table, markdown, with_interval

MERGING = {
    "independent": "independent",
    "same_inputs": "same inputs",
    "weight_decay": "weight decay",
    "fashion_mnist": "Fashion-MNIST",
}


def _over_merging(run: Path, head: Sequence[str], cells: Callable[[Table, float], Sequence[str]]) -> str:
    rows = []
    for experiment, title in MERGING.items():
        table = Table(run, experiment)
        for i, decay in enumerate(table.sweep):
            rows.append(["" if i else title, f"{decay:g}", *cells(table, decay), table.networks(decay)])
    return markdown(["experiment", "λ", *head, "seeds"], rows)


def losses(run: Path) -> str:
    """Losses of own networks, and gaps of merged ones, of Figure 3 and Fashion-MNIST."""
    head = ["own loss", "own test loss", "gap of the sum", "test gap of the sum", "gap of the average"]
    columns = [("loss", "own"), ("test_loss", "own"), ("gap", "sum"), ("test_gap", "sum"), ("gap", "average")]
    return _over_merging(run, head, lambda table, decay: [table.cell(*column, decay) for column in columns])


def errors(run: Path) -> str:
    """Errors and stable ranks of Figure 3 and Fashion-MNIST."""
    head = ["own test error %", "error of the sum %", "test error of the sum %", "stable rank W₁", "W₂"]
    percent = [("test_error", "own"), ("error", "sum"), ("test_error", "sum")]
    ranks = [("stable_rank_1", "own"), ("stable_rank_2", "own")]
    return _over_merging(
        run,
        head,
        lambda table, decay: [
            *(table.cell(*column, decay, PERCENT) for column in percent),
            *(table.cell(*column, decay) for column in ranks),
        ],
    )


def hypotheses(run: Path) -> str:
    """The four hypotheses: effect, interval and outcome."""
    verdicts = store.read_table(run / "hypotheses.csv")
    rows = []
    for key, hypothesis in HYPOTHESES.items():
        for _, row in verdicts[verdicts.hypothesis == key].iterrows():
            place = f"{row.experiment}, {row.samples} data"
            claimed = f"{hypothesis.side} {hypothesis.threshold:g}"
            rows.append([hypothesis.statement, place, claimed, with_interval(row), row.outcome])
    return markdown(["hypothesis", "experiment", "claimed", "effect", "outcome"], rows)


def figure2(run: Path) -> str:
    """Figure 2: inverse norm ratio with its change from the λ before, and errors."""
    head = [
        "labels",
        "λ",
        "mean ‖W‖₂/‖W‖_F",
        "change from the λ before",
        "seeds in which it rises",
        "W₁",
        "W₂",
    ]
    head += ["error %", "test error %", "loss", "test loss", "networks left"]
    rows = []
    for experiment, title in {"labels_linear": "linear", "labels_quadratic": "quadratic"}.items():
        table = Table(run, experiment)
        for i, decay in enumerate(table.sweep):
            cells = _ratio(table, decay)
            cells += [table.cell(name, "own", decay, PERCENT) for name in ("error", "test_error")]
            cells += [table.cell(name, "own", decay) for name in ("loss", "test_loss")]
            rows.append(["" if i else title, f"{decay:g}", *cells, table.networks(decay)])
    return markdown(head, rows)


def _ratio(table: Table, weight_decay: float) -> list[str]:
    """Mean ratio, its change from the λ before, and the seeds in which it rises: all layers, layer 1, layer 2."""
    ratio = table.rows.get(("inverse_norm_ratio", "own", weight_decay))
    if ratio is None:
        return ["-"] * 5
    rises = ["", "", ""]
    if np.isfinite(ratio.change):
        ranks = [table.rows[f"stable_rank_{layer}", "own", weight_decay] for layer in (1, 2)]
        falls = [rank.change_n - rank.rises for rank in ranks]  # the ratio rises where the stable rank falls
        rises = [f"{count:g}" for count in (ratio.rises, *falls)]
    return [with_interval(ratio), with_interval(ratio, "change"), *rises]


def figure2_variants(run: Path) -> str:
    """The change of the ratio from λ = 3e-3 to 1e-2 with linear labels, under other kinds of training."""
    kinds = {
        "labels_linear": "SGD, η = 0.1, 1000 epochs",
        "labels_step_size": "SGD, η = 0.03, 3333 epochs",
        "labels_epochs": "SGD, η = 0.1, 5000 epochs",
        "labels_full_batch": "gradient descent, η = 0.1, 10 000 steps",
    }
    rows = [[title, *_ratio(Table(run, experiment), 1e-2)] for experiment, title in kinds.items()]
    head = [
        "training",
        "mean ‖W‖₂/‖W‖_F at λ = 1e-2",
        "change from 3e-3",
        "seeds in which it rises",
        "W₁",
        "W₂",
    ]
    return markdown(head, rows)


def overlap(run: Path) -> str:
    """How many times the bound by ε/λ exceeds the bound from the data."""
    ratios = store.read_table(run / "interference.csv").sort_values(["weight_decay", "experiment"])
    rows = [
        [row.experiment.removeprefix("overlap_"), f"{row.weight_decay:g}", with_interval(row)]
        for _, row in ratios.iterrows()
    ]
    return markdown(["overlap, %", "λ", "bound by ε/λ over bound from the data"], rows)


def claims(run: Path) -> str:
    """A row for each claim about trained networks: how many verdicts could have failed, outcomes, least slack."""
    verdicts = store.read_table(run / "claims.csv")
    head = [
        "claim",
        "source",
        "what is claimed",
        "could have failed",
        "outcome",
        "worst measured",
        "slack",
    ]
    rows = [_claim(name, verdicts[verdicts.claim == name]) for name in CLAIMS]
    return markdown([*head, "slack at the last step"], rows)


def _claim(name: str, verdicts: pd.DataFrame) -> list[str]:
    """A row of the table, with the worst of the verdicts that could fail and whose assumptions are met, if any."""
    counts = verdicts.outcome.value_counts()
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))
    could_fail = verdicts.trivial.isna()
    judged = verdicts[verdicts.slack.notna()]
    for narrower in (judged[judged.outcome != "assumption unmet"], judged[judged.trivial.isna()]):
        judged = judged.loc[judged.index.intersection(narrower.index)] if len(narrower) else judged
    cells = ["-", "-", "-"]
    if len(judged):
        worst = judged.nsmallest(1, "slack").iloc[0]
        cells = [f"{worst.measured:.3g} against {worst.bound:.3g}", f"{worst.slack:.3g}"]
        last = "-" if np.isnan(worst.last_slack) else f"{worst.last_slack:.3g}"
        cells += [last if worst.last_slack != worst.slack else "the same"]
    share = f"{could_fail.sum()} of {len(verdicts)}"
    return [f"`{name}`", CLAIMS[name].source, CLAIMS[name].brief, share, outcomes, *cells]


def scans(run: Path) -> str:
    """The claims about transformers: measured side of each model."""
    verdicts = store.read_table(run / "claims.csv")
    verdicts = verdicts[verdicts.experiment.str.startswith("scan/")]
    table = verdicts.pivot(index="claim", columns="experiment", values="measured")
    bounds = {row.claim: row.bound for _, row in verdicts.iterrows()}
    rows = [[f"`{name}`", f"{bounds[name]:g}", *(f"{x:.3g}" for x in row)] for name, row in table.iterrows()]
    return markdown(
        ["claim", "threshold", *(str(name).removeprefix("scan/") for name in table.columns)], rows
    )


def findings(run: Path) -> str:
    """The statements of the README, with their outcomes and numbers."""
    verdicts = store.read_table(run / "hypotheses.csv")
    claims = store.read_table(run / "claims.csv")
    outcomes = {name: list(claims.outcome[claims.claim == name]) for name in claims.claim.unique()}
    sweep, same, fashion = (Table(run, name) for name in ("weight_decay", "same_inputs", "fashion_mnist"))

    def answer(hypothesis: str, experiment: str) -> str:
        rows = verdicts[(verdicts.hypothesis == hypothesis) & (verdicts.experiment == experiment)]
        return ", ".join(dict.fromkeys(rows.outcome))

    refuted = [name for name, of_claim in outcomes.items() if "not supported" in of_claim]
    scans = [
        outcome for name, of_claim in outcomes.items() if name.startswith("scan_") for outcome in of_claim
    ]
    rows = [
        [
            "Independent tasks merge by summing",
            answer("sums_solve_independent_tasks", "weight_decay"),
            f"gap {sweep.cell('gap', 'sum', 1e-3)}, test error {sweep.cell('test_error', 'sum', 1e-3, PERCENT)}%"
            f" (own {sweep.cell('test_error', 'own', 1e-3, PERCENT)}%); λ = 1e-3",
        ],
        [
            "Tasks on the same inputs do not",
            answer("sums_fail_on_the_same_inputs", "same_inputs"),
            f"gap {same.cell('gap', 'sum', 1e-3)}",
        ],
        [
            "Without weight decay the gap stays",
            answer("decay_closes_the_gap", "weight_decay"),
            f"gap {sweep.cell('gap', 'sum', 0)} at λ = 0",
        ],
        [
            "Weight decay lowers the stable rank",
            answer("decay_lowers_the_rank", "weight_decay"),
            f"layer 1: {sweep.cell('stable_rank_1', 'own', 0)} at λ = 0,"
            f" {sweep.cell('stable_rank_1', 'own', 1e-3)} at 1e-3",
        ],
        [
            "Weight decay closes the gap on Fashion-MNIST",
            answer("decay_closes_the_gap", "fashion_mnist"),
            f"gap {fashion.cell('gap', 'sum', 0)} at λ = 0, {fashion.cell('gap', 'sum', 1e-3)} at 1e-3",
        ],
        [
            "Lemmas and theorems, the paper's and ours",
            f"{len(outcomes) - len(refuted)} of {len(outcomes)} claims are not contradicted",
            f"contradicted: {', '.join(refuted)}",
        ],
        [
            "Transformers are as described",
            f"{scans.count('holds')} of {len(scans)} hold",
            "two models; the paper's were not run",
        ],
    ]
    return markdown(["statement", "outcome", "number"], rows)


WRITERS = [findings, losses, errors, hypotheses, figure2, figure2_variants, overlap, claims, scans]
