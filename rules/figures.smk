"""Pictures. Figures 2 and 3, the overlap and sweeps show several experiments; others have a figure of their own."""

COMPARISONS = CONFIG.comparisons
SHOWS = {
    "figure2": "norm ratio and errors against λ, one task",
    "figure3": "own and merged networks of two tasks",
    "overlap": "interference of the first layer, measured, foreseen, bounded",
    "many_tasks": "sums of more and more networks",
    "depth": "own networks and their sum against the depth",
    "layers": "the gap between own networks and their sum, layer by layer",
    "phase": "own networks and their sum over steps and λ",
}
COMPARED = [name for names in COMPARISONS.values() for name in names]
# Experiments that are there for their claims are shown by the claims' pictures.
DRAWN_ALONE = [name for name in EXPERIMENTS if name not in [*COMPARED, *CLAIMED]]


for figure, names in COMPARISONS.items():

    rule:
        name:
            f"draw_{figure}"
        input:
            summaries=expand(
                rules.check_claims.output.traces if figure == "overlap" else rules.gather.output,
                experiment=names,
            ),
            code=modules("figures", "jobs", "store"),
        output:
            pdf=f"results/figures/{figure}.pdf",
            png=report(
                f"results/figures/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": title_of(figure), "shows": SHOWS[figure]},
            ),
        log:
            f"logs/figures/{figure}.log",
        benchmark:
            f"benchmarks/figures/{figure}.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=megabytes(demand.figure([EXPERIMENTS[name] for name in names])),
            runtime=minutes(demand.figure([EXPERIMENTS[name] for name in names])),
        params:
            figure=figure,
            settings=jobs.figure_job(CONFIG, names).model_dump_json(),
        message:
            f"Draw {title_of(figure)}"
        shell:
            "decaymerge figures {params.figure} {output.pdf} {input.summaries} --settings {params.settings:q}"
            " > {log} 2>&1"

    rule:
        name:
            figure
        input:
            expand("results/figures/{figure}.{kind}", figure=figure, kind=["pdf", "png"]),
        message:
            f"{title_of(figure)} is results/figures/{figure}.pdf"


rule draw_experiment:
    input:
        summaries=rules.gather.output,
        code=modules("figures", "jobs", "store"),
    output:
        pdf="results/figures/{experiment}.pdf",
        png=report(
            "results/figures/{experiment}.png",
            caption="../report/experiment.rst",
            category="Figures",
            labels={"figure": "{experiment}", "shows": "own and merged networks of this experiment"},
        ),
    log:
        "logs/figures/{experiment}.log",
    benchmark:
        "benchmarks/figures/{experiment}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(lambda experiment: demand.figure([experiment])),
        runtime=minutes(lambda experiment: demand.figure([experiment])),
    params:
        settings=lambda wildcards: jobs.figure_job(CONFIG, [wildcards.experiment]).model_dump_json(),
    message:
        "Draw {wildcards.experiment}"
    shell:
        "decaymerge figures experiment {output.pdf} {input.summaries} --settings {params.settings:q} > {log} 2>&1"


rule draw_figure1:
    input:
        scan=rules.scan_model.output,
        code=modules("figures", "jobs", "store"),
    output:
        pdf="results/figures/figure1_{model}.pdf",
        png=report(
            "results/figures/figure1_{model}.png",
            caption="../report/figure1.rst",
            category="Figures",
            labels={"figure": "Figure 1, {model}", "shows": "norms and stable ranks, layer by layer"},
        ),
    log:
        "logs/figures/figure1_{model}.log",
    benchmark:
        "benchmarks/figures/figure1_{model}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.figure([])),
        runtime=minutes(demand.figure([])),
    params:
        settings=lambda wildcards: scan_figure_settings([wildcards.model]),
    message:
        "Draw norms and ranks of {wildcards.model}"
    shell:
        "decaymerge figures figure1 {output.pdf} {input.scan} --settings {params.settings:q} > {log} 2>&1"


rule draw_figure1_overview:
    input:
        scans=expand(rules.scan_model.output, model=MODELS),
        code=modules("figures", "jobs", "store"),
    output:
        pdf="results/figures/figure1.pdf",
        png=report(
            "results/figures/figure1.png",
            caption="../report/figure1_overview.rst",
            category="Figures",
            labels={"figure": "Figure 1", "shows": "norms and stable ranks of all transformers"},
        ),
        table=report(
            "results/figures/table1.md",
            caption="../report/table1.rst",
            category="Figures",
            labels={"figure": "Table 1", "shows": "layers and dimensions of the transformers"},
        ),
    log:
        "logs/figures/figure1.log",
    benchmark:
        "benchmarks/figures/figure1.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.figure([])),
        runtime=minutes(demand.figure([])),
    params:
        settings=scan_figure_settings(MODELS),
    message:
        "Draw norms and ranks of all models, and Table 1"
    shell:
        "(decaymerge figures figure1 {output.pdf} {input.scans} --settings {params.settings:q}"
        " && decaymerge figures table1 {output.table} {input.scans} --settings {params.settings:q}) > {log} 2>&1"


if MODELS:

    rule figure1:
        input:
            rules.draw_figure1_overview.output,
            expand(rules.draw_figure1.output, model=MODELS),
        message:
            "Figure 1 is results/figures/figure1.pdf"


ruleorder: draw_figure1_overview > draw_figure1 > draw_experiment


if "fashion_mnist" in DRAWN_ALONE:

    rule fashion_mnist:
        input:
            expand(rules.draw_experiment.output, experiment="fashion_mnist"),
        message:
            "The Fashion-MNIST figure is results/figures/fashion_mnist.pdf"


rule figures:
    input:
        expand("results/figures/{figure}.{kind}", figure=COMPARISONS, kind=["pdf", "png"]),
        rules.figure1.input if MODELS else [],
        expand(rules.draw_experiment.output, experiment=DRAWN_ALONE),
    message:
        "All figures are in results/figures"
