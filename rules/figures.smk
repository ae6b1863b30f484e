"""Figures. A single rule draws all of them. ``config/figures.py`` has the table of figures."""

SOURCES = {
    "summary": layout.result(layout.SUMMARY),
    "claims": layout.result(layout.CLAIMS),
    "scan": layout.result(layout.SCAN),
}


rule draw:
    input:
        files=lambda wildcards: [
            file
            for name in PICTURES[wildcards.figure].names
            for file in expand(SOURCES[PICTURES[wildcards.figure].reads], experiment=name, model=name)
        ],
    output:
        pdf=layout.result(layout.FIGURE, ".pdf"),
        png=report(
            layout.result(layout.FIGURE, ".png"),
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda wildcards: labels.figure_labels(wildcards.figure, PICTURES[wildcards.figure]),
        ),
    log:
        layout.log(layout.FIGURE),
    benchmark:
        layout.benchmark(layout.FIGURE)
    resources:
        **asks(estimates.figure),
    params:
        code=code("figures"),
        settings=settings(jobs.FigureJob),
        caption=lambda wildcards: PICTURES[wildcards.figure].caption,
    message:
        "Draw {wildcards.figure}"
    shell:
        "decaymerge figures {output.pdf} {input.files} --settings {params.settings:q} > {log} 2>&1"


rule table1:
    input:
        scans=expand(layout.result(layout.SCAN), model=MODELS),
    output:
        report(
            "results/figures/table1.md",
            caption="../report/figure.rst",
            category="Figures",
            labels=labels.figure_labels("table1", Picture("table1", list(MODELS))),
        ),
    log:
        "logs/figures/table1.log",
    benchmark:
        "benchmarks/figures/table1.tsv"
    resources:
        **asks(estimates.figure([])),
    params:
        code=code("figures"),
        settings=ORIGINS.settings(jobs.FigureJob, figure="table1"),
        caption=Picture("table1", list(MODELS)).caption,
    message:
        "Write Table 1"
    shell:
        "decaymerge figures {output} {input.scans} --settings {params.settings:q} > {log} 2>&1"


DRAWN = {
    name: expand([layout.result(layout.FIGURE, ".pdf"), layout.result(layout.FIGURE, ".png")], figure=name)
    for name in PICTURES
}
if MODELS:
    DRAWN["figure1"] += rules.table1.output
    DRAWN["figure1"] += expand(
        [layout.result(layout.FIGURE, ".pdf"), layout.result(layout.FIGURE, ".png")],
        figure=[f"figure1_{name}" for name in MODELS],
    )

# A target for each figure of the paper and for each figure that compares experiments.
for name in [*COMPARISONS, "figure1", "fashion_mnist"]:
    if name in DRAWN:

        rule:
            name:
                name
            input:
                DRAWN[name],
            message:
                f"{labels.title_of(name)} is results/figures/{name}.pdf"


rule figures:
    input:
        DRAWN.values(),
    message:
        "All figures are in results/figures"
