"""The page of settings, scans and origin that `make report` adds to Snakemake's report."""

# Networks that are there for their claims have no summary, unless a figure shows it.
SUMMARISED = [name for figure, names in COMPARISONS.items() if figure != "overlap" for name in names]


rule overview:
    input:
        results=expand(rules.gather.output, experiment=dict.fromkeys([*SUMMARISED, *DRAWN_ALONE]))
        + expand(rules.check_claims.output.traces, experiment=CLAIMED)
        + expand(rules.scan_model.output, model=MODELS),
        code=modules("figures", "jobs", "scan", "store"),
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
