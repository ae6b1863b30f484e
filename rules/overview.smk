"""The page of settings, scans and origin, which `make report` adds to Snakemake's report."""


rule overview:
    input:
        results=expand(rules.gather.output.summary, experiment=CONFIG.summarised)
        + expand(rules.check_claims.output.traces, experiment=CLAIMED)
        + expand(rules.scan_model.output, model=MODELS),
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
    resources:
        **asks(estimates.figure([])),
    params:
        code=code("overview"),
        settings=CONFIG.model_dump_json(exclude_unset=True),
    message:
        "Write the page of settings, scans and origin, for the report"
    shell:
        "decaymerge overview {output} {input.results} --settings {params.settings:q} > {log} 2>&1"
