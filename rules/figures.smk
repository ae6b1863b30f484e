"""Figures. A single rule draws all of them. ``config/figures.py`` has the table of figures."""


def title_of(figure):
    """Name of a figure for readers, such as ``Figure 2``."""
    return re.sub(r"^(figure|table)(?=\d)", r"\1 ", figure).replace("_", " ").capitalize()


def figure_files(wildcards):
    """The summaries, traces of claims or scans that a figure shows."""
    figure, names = CONFIG.pictures[wildcards.figure]
    place = {
        "summary": rules.gather.output,
        "claims": rules.check_claims.output.traces,
        "scan": rules.scan_model.output,
    }[FIGURES[figure].reads]
    return [file for name in names for file in expand(place, experiment=name, model=name)]


def figure_labels(wildcards):
    """Labels of a figure in the report's list."""
    return {
        "figure": title_of(wildcards.figure),
        "shows": FIGURES[CONFIG.pictures[wildcards.figure].figure].shows,
    }


rule draw:
    input:
        files=figure_files,
        code=modules("figures", "store"),
    output:
        pdf=layout.result(layout.FIGURE, ".pdf"),
        png=report(
            layout.result(layout.FIGURE, ".png"),
            caption="../report/figure.rst",
            category="Figures",
            labels=figure_labels,
        ),
    log:
        layout.log(layout.FIGURE),
    benchmark:
        layout.benchmark(layout.FIGURE)
    resources:
        **asks(estimates.figure),
    params:
        settings=settings(jobs.FigureJob),
        caption=lambda wildcards: CONFIG.pictures[wildcards.figure].caption,
    message:
        "Draw {wildcards.figure}"
    shell:
        "decaymerge figures {output.pdf} {input.files} --settings {params.settings:q} > {log} 2>&1"


rule table1:
    input:
        scans=expand(rules.scan_model.output, model=MODELS),
        code=modules("figures", "store"),
    output:
        report(
            "results/figures/table1.md",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": title_of("table1"), "shows": FIGURES["table1"].shows},
        ),
    log:
        "logs/figures/table1.log",
    benchmark:
        "benchmarks/figures/table1.tsv"
    resources:
        **asks(estimates.figure([])),
    params:
        settings=jobs.FigureJob.of(CONFIG, "table1").model_dump_json(),
        caption=FIGURES["table1"].caption,
    message:
        "Write Table 1"
    shell:
        "decaymerge figures {output} {input.scans} --settings {params.settings:q} > {log} 2>&1"


PICTURES = {name: expand(f"results/figures/{name}.{{kind}}", kind=["pdf", "png"]) for name in CONFIG.pictures}
if MODELS:
    PICTURES["figure1"] = [
        *rules.table1.output,
        *(file for name, files in PICTURES.items() if name.startswith("figure1") for file in files),
    ]

# A target for each figure of the paper and for each figure that compares experiments.
for name in [*COMPARISONS, "figure1", "fashion_mnist"]:
    if name in PICTURES:

        rule:
            name:
                name
            input:
                PICTURES[name],
            message:
                f"{title_of(name)} is results/figures/{name}.pdf"


rule figures:
    input:
        PICTURES.values(),
    message:
        "All figures are in results/figures"
