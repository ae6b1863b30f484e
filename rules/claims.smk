"""Verdicts on the paper's claims: about the networks of experiments in float64, and about scans of transformers."""


rule check_claims:
    input:
        tasks=of_experiment(layout.TASKS),
        networks=of_experiment(layout.TRAINED),
    output:
        verdicts=layout.result(layout.CLAIMS, ".json"),
        traces=layout.result(layout.CLAIMS),
    log:
        layout.log(layout.CLAIMS),
    benchmark:
        layout.benchmark(layout.CLAIMS)
    resources:
        **asks(estimates.claims),
    params:
        code=code("check-claims"),
        settings=settings(jobs.ClaimsJob),
        results=lambda wildcards, output: Path(output.verdicts).parents[1],
    message:
        "Check the claims about the experiment {wildcards.experiment}"
    shell:
        "decaymerge check-claims {params.results} {output.verdicts} --traces {output.traces}"
        " --settings {params.settings:q} > {log} 2>&1"


rule check_scan:
    input:
        scan=rules.scan_model.output,
    output:
        layout.result(layout.SCAN, ".claims.json"),
    log:
        "logs/claims/scan/{model}.log",
    benchmark:
        "benchmarks/claims/scan/{model}.tsv"
    resources:
        **asks(estimates.VERDICTS),
    params:
        code=code("check-scan"),
    message:
        "Check the claims about the model {wildcards.model}"
    shell:
        "decaymerge check-scan {wildcards.model} {input.scan} {output} > {log} 2>&1"


rule gather_claims:
    input:
        verdicts=expand(layout.result(layout.CLAIMS, ".json"), experiment=CLAIMED)
        + expand(layout.result(layout.SCAN, ".claims.json"), model=MODELS),
        traces=expand(layout.result(layout.CLAIMS), experiment=CLAIMED),
    output:
        "results/claims.json",
    log:
        "logs/claims/gather.log",
    benchmark:
        "benchmarks/claims/gather.tsv"
    resources:
        **asks(estimates.VERDICTS),
    params:
        code=code("gather-claims"),
        traces=lambda wildcards, input: [f"--traces={path}" for path in input.traces],
    message:
        "Gather the verdicts on all claims"
    shell:
        "decaymerge gather-claims {output} {input.verdicts:q} {params.traces:q} > {log} 2>&1"


rule claims_page:
    input:
        verdicts=rules.gather_claims.output,
        traces=expand(layout.result(layout.CLAIMS), experiment=CLAIMED),
    output:
        page=report(
            "results/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={
                "claim": "all claims",
                "source": "on the page",
                "outcome": "on the page",
            },
        ),
        pictures=report(
            directory("results/figures/claims"),
            patterns=["{claim}.png"],
            caption="../report/claim.rst",
            category="Claims",
            labels=lambda wildcards: labels.claim_labels(
                Path(rules.gather_claims.output[0]), wildcards.claim
            ),
        ),
    log:
        "logs/claims/page.log",
    benchmark:
        "benchmarks/claims/page.tsv"
    threads: 2
    resources:
        **asks(estimates.CLAIMS_PAGE),
    params:
        code=code("claims-page"),
        settings=ORIGINS.settings(jobs.FigureJob, figure="claims"),
        traces=lambda wildcards, input: [f"--traces={path}" for path in input.traces],
    message:
        "Draw the claims and write their page"
    shell:
        "decaymerge claims-page {input.verdicts} {output.page} {params.traces:q} --settings {params.settings:q}"
        " --threads {threads} > {log} 2>&1"


rule claims:
    input:
        rules.gather_claims.output,
        rules.claims_page.output.page,
    message:
        "Claims are in results/claims.json and results/claims.html"
