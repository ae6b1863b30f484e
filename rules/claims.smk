"""The paper's claims, each with a status: about the networks of experiments in float64, and about scans."""


rule check_claims:
    input:
        tasks=claimed_tasks,
        networks=claimed_networks,
        code=modules("claims", "network", "gradient", "measure", "store"),
    output:
        checks="results/{experiment}/claims.json",
        traces="results/{experiment}/claims.nc",
    log:
        "logs/{experiment}/claims.log",
    benchmark:
        "benchmarks/{experiment}/claims.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.claims),
        runtime=minutes(demand.claims),
    params:
        settings=claims_settings,
        folder="results/{experiment}",
    message:
        "Check the claims about {wildcards.experiment}"
    shell:
        "decaymerge claims {output.checks} --experiment {params.folder} --traces {output.traces}"
        " --settings {params.settings:q} > {log} 2>&1"


rule check_scan_claims:
    input:
        scan=rules.scan_model.output,
        code=modules("claims", "store"),
    output:
        "results/scan/{model}.claims.json",
    log:
        "logs/claims/scan/{model}.log",
    benchmark:
        "benchmarks/claims/scan/{model}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.SCAN_CLAIMS),
        runtime=minutes(demand.SCAN_CLAIMS),
    message:
        "Check the claims about {wildcards.model}"
    shell:
        "decaymerge claims {output} --scan {wildcards.model}={input.scan} > {log} 2>&1"


rule gather_claims:
    input:
        checks=expand(rules.check_claims.output.checks, experiment=CLAIMED),
        scans=expand(rules.check_scan_claims.output, model=MODELS),
        traces=expand(rules.check_claims.output.traces, experiment=CLAIMED),
        code=modules("claims", "store"),
    output:
        "results/claims.json",
    log:
        "logs/claims/gather.log",
    benchmark:
        "benchmarks/claims/gather.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.GATHERED_CLAIMS),
        runtime=minutes(demand.GATHERED_CLAIMS),
    params:
        checks=lambda wildcards, input: [f"--gather={path}" for path in [*input.checks, *input.scans]],
        traces=lambda wildcards, input: [f"--traces={path}" for path in input.traces],
    message:
        "Gather the claims"
    shell:
        "decaymerge claims {output} {params.checks:q} {params.traces:q} 2>&1 | tee {log}"


rule report_claims:
    input:
        checks=rules.gather_claims.output,
        traces=expand(rules.check_claims.output.traces, experiment=CLAIMED),
        code=modules("claims", "figures", "jobs", "store"),
    output:
        page=report(
            "results/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={
                "claim": "all of them",
                "source": "each with its own",
                "outcome": "each with its numbers",
            },
        ),
        pictures=report(
            directory("results/figures/claims"),
            patterns=["{claim}.png"],
            caption="../report/claim.rst",
            category="Claims",
            labels=claim_labels,
        ),
    log:
        "logs/claims/report.log",
    benchmark:
        "benchmarks/claims/report.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=megabytes(demand.REPORT),
        runtime=minutes(demand.REPORT),
    params:
        settings=lambda wildcards: jobs.figure_job(CONFIG, CLAIMED).model_dump_json(),
        traces=lambda wildcards, input: [f"--traces={path}" for path in input.traces],
    message:
        "Draw the claims"
    shell:
        "decaymerge report {input.checks} {output.page} {params.traces:q} --settings {params.settings:q} > {log} 2>&1"


rule claims:
    input:
        rules.gather_claims.output,
        rules.report_claims.output.page,
    message:
        "Claims are in results/claims.json and results/claims.html"
