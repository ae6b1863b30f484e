"""Pages that `make report` adds: settings, scans and origin, in Snakemake's report, and one to explore the run."""


rule overview:
    input:
        results=expand(layout.result(layout.SUMMARY), experiment=CONFIG.summarised)
        + expand(layout.result(layout.CLAIMS), experiment=CLAIMED)
        + expand(layout.result(layout.SCAN), model=MODELS),
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


rule explore:
    input:
        expand(layout.result(layout.SUMMARY), experiment=CONFIG.summarised)
        + expand(layout.result(layout.CLAIMS), experiment=CLAIMED),
    output:
        "results/explore.html",  # beside the report: a browser refuses pages of 2 MB inside of one
    log:
        "logs/figures/explore.log",
    benchmark:
        "benchmarks/figures/explore.tsv"
    resources:
        **asks(estimates.figure([])),
    params:
        code=code("explore"),
    message:
        "Write the page on which one explores the run"
    shell:
        "decaymerge explore {output} {input} > {log} 2>&1"
