"""The paper's claims, each with a status."""


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
        mem_mb=1000,
        runtime=10,
    message:
        "Check the claims about {wildcards.model}"
    shell:
        "decaymerge claims {output} --scan {wildcards.model}={input.scan} > {log} 2>&1"


rule gather_claims:
    input:
        checked=expand(rules.check_scan_claims.output, model=MODELS),
        code=modules("claims"),
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
        mem_mb=1000,
        runtime=10,
    params:
        files=lambda wildcards, input: [f"--gather={path}" for path in input.get("checked")],
    message:
        "Gather the claims"
    shell:
        "decaymerge claims {output} {params.files:q} 2>&1 | tee {log}"


rule claims:
    input:
        rules.gather_claims.output,
    message:
        "Claims are in results/claims.json"
