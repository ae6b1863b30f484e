"""Pictures. Figures 2 and 3, the overlap and sweeps show several experiments; others have a figure of their own."""

FIGURE2 = CONFIG.figure2
FIGURE3 = CONFIG.figure3
OVERLAP = CONFIG.figures.overlap
SWEEPS = CONFIG.figures.sweeps
SHOWS = {
    "many_tasks": "sums of more and more networks",
    "depth": "own networks and their sum against the depth",
    "layers": "the gap between own networks and their sum, layer by layer",
    "phase": "own networks and their sum over steps and λ",
}
SWEPT = [name for names in SWEEPS.values() for name in names]
# Experiments that are there for their claims are shown by the claims' pictures.
DRAWN_ALONE = [name for name in EXPERIMENTS if name not in [*FIGURE2, *FIGURE3, *CLAIMED, *SWEPT]]


rule draw_figure2:
    input:
        summaries=expand(rules.gather.output, experiment=FIGURE2),
        code=modules("figures", "store"),
    output:
        pdf="results/figures/figure2.pdf",
        png=report(
            "results/figures/figure2.png",
            caption="../report/figure2.rst",
            category="Figures",
            labels={"figure": "Figure 2", "shows": "norm ratio and errors against λ, one task"},
        ),
    log:
        "logs/figures/figure2.log",
    benchmark:
        "benchmarks/figures/figure2.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.figure([EXPERIMENTS[name] for name in FIGURE2])),
        runtime=minutes(demand.figure([EXPERIMENTS[name] for name in FIGURE2])),
    params:
        settings=lambda wildcards: jobs.figure_job(CONFIG, FIGURE2).model_dump_json(),
    message:
        "Draw Figure 2"
    shell:
        "decaymerge figures figure2 {output.pdf} {input.summaries} --settings {params.settings:q} > {log} 2>&1"


rule draw_overlap:
    input:
        summaries=expand(rules.check_claims.output.traces, experiment=OVERLAP),
        code=modules("figures", "store"),
    output:
        pdf="results/figures/overlap.pdf",
        png=report(
            "results/figures/overlap.png",
            caption="../report/overlap.rst",
            category="Figures",
            labels={
                "figure": "Overlap",
                "shows": "interference of the first layer, measured, foreseen, bounded",
            },
        ),
    log:
        "logs/figures/overlap.log",
    benchmark:
        "benchmarks/figures/overlap.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.figure([EXPERIMENTS[name] for name in OVERLAP])),
        runtime=minutes(demand.figure([EXPERIMENTS[name] for name in OVERLAP])),
    params:
        settings=lambda wildcards: jobs.figure_job(CONFIG, OVERLAP).model_dump_json(),
    message:
        "Draw interference against overlap"
    shell:
        "decaymerge figures overlap {output.pdf} {input.summaries} --settings {params.settings:q} > {log} 2>&1"


rule draw_figure3:
    input:
        summaries=expand(rules.gather.output, experiment=FIGURE3),
        code=modules("figures", "store"),
    output:
        pdf="results/figures/figure3.pdf",
        png=report(
            "results/figures/figure3.png",
            caption="../report/figure3.rst",
            category="Figures",
            labels={"figure": "Figure 3", "shows": "own and merged networks of two tasks"},
        ),
    log:
        "logs/figures/figure3.log",
    benchmark:
        "benchmarks/figures/figure3.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.figure([EXPERIMENTS[name] for name in FIGURE3])),
        runtime=minutes(demand.figure([EXPERIMENTS[name] for name in FIGURE3])),
    params:
        settings=lambda wildcards: jobs.figure_job(CONFIG, FIGURE3).model_dump_json(),
    message:
        "Draw Figure 3"
    shell:
        "decaymerge figures figure3 {output.pdf} {input.summaries} --settings {params.settings:q} > {log} 2>&1"


rule draw_sweep:
    input:
        summaries=lambda wildcards: expand(rules.gather.output, experiment=SWEEPS[wildcards.sweep]),
        code=modules("figures", "store"),
    output:
        pdf="results/figures/{sweep}.pdf",
        png=report(
            "results/figures/{sweep}.png",
            caption="../report/sweep.rst",
            category="Figures",
            labels=lambda wildcards: {
                "figure": wildcards.sweep.replace("_", " ").capitalize(),
                "shows": SHOWS[wildcards.sweep],
            },
        ),
    log:
        "logs/figures/{sweep}.log",
    benchmark:
        "benchmarks/figures/{sweep}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * sweep_demand(wildcards).megabytes,
        runtime=lambda wildcards, attempt: attempt * sweep_demand(wildcards).minutes,
    params:
        settings=lambda wildcards: jobs.figure_job(CONFIG, SWEEPS[wildcards.sweep]).model_dump_json(),
    message:
        "Draw {wildcards.sweep}"
    shell:
        "decaymerge figures {wildcards.sweep} {output.pdf} {input.summaries} --settings {params.settings:q}"
        " > {log} 2>&1"


rule draw_experiment:
    input:
        summaries=rules.gather.output,
        code=modules("figures", "store"),
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
        code=modules("figures", "store"),
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
        code=modules("figures", "store"),
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


ruleorder:
    draw_figure2
    > draw_figure3
    > draw_overlap
    > draw_sweep
    > draw_figure1_overview
    > draw_figure1
    > draw_experiment


if FIGURE2:

    rule figure2:
        input:
            rules.draw_figure2.output,
        message:
            "Figure 2 is results/figures/figure2.pdf"


if OVERLAP:

    rule overlap:
        input:
            rules.draw_overlap.output,
        message:
            "Interference against overlap is results/figures/overlap.pdf"


for sweep in SWEEPS:

    rule:
        name:
            sweep
        input:
            expand(rules.draw_sweep.output, sweep=sweep),
        message:
            f"{SHOWS[sweep]}: results/figures/{sweep}.pdf"


if FIGURE3:

    rule figure3:
        input:
            rules.draw_figure3.output,
        message:
            "Figure 3 is results/figures/figure3.pdf"


if "fashion_mnist" in DRAWN_ALONE:

    rule fashion_mnist:
        input:
            expand(rules.draw_experiment.output, experiment="fashion_mnist"),
        message:
            "The Fashion-MNIST figure is results/figures/fashion_mnist.pdf"


rule figures:
    input:
        rules.draw_figure2.output if FIGURE2 else [],
        rules.draw_figure3.output if FIGURE3 else [],
        rules.draw_overlap.output if OVERLAP else [],
        expand(rules.draw_sweep.output, sweep=SWEEPS),
        rules.figure1.input if MODELS else [],
        expand(rules.draw_experiment.output, experiment=DRAWN_ALONE),
    message:
        "All figures are in results/figures"


rule overview:
    input:
        results=expand(rules.gather.output, experiment=[*FIGURE2, *FIGURE3, *DRAWN_ALONE])
        + expand(rules.check_claims.output.traces, experiment=CLAIMED)
        + expand(rules.scan_model.output, model=MODELS),
        code=modules("figures", "store"),
    output:
        report(
            "results/overview.html",
            caption="../report/overview.rst",
            category="Run",
            labels={"page": "settings, scans, origin"},
        ),
    log:
        "logs/figures/overview.log",
    benchmark:
        "benchmarks/figures/overview.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.figure([])),
        runtime=minutes(demand.figure([])),
    params:
        settings=CONFIG.model_dump_json(exclude_unset=True),
    message:
        "Write the page of settings, scans and origin, for the report"
    shell:
        "decaymerge overview {output} {input.results} --settings {params.settings:q} > {log} 2>&1"
