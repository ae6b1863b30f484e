"""Norms and stable ranks of transformers."""


rule scan_model:
    input:
        checkpoint=checkpoint_files,
        code=modules("scan", "store"),
    output:
        "results/scan/{model}.nc",
    log:
        "logs/scan/{model}.log",
    benchmark:
        "benchmarks/scan/{model}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.SCAN),
        runtime=minutes(demand.SCAN),
    params:
        arguments=lambda wildcards: model_arguments(MODELS[wildcards.model]),
        cache=RESOURCES,
        tolerance=CONFIG.scan.tolerance,
        spectrum="--spectrum" if CONFIG.scan.spectrum else "--no-spectrum",
    message:
        "Scan {wildcards.model}"
    shell:
        "decaymerge scan {params.arguments:q} --cache {params.cache:q} --output {output}"
        " --tolerance {params.tolerance} {params.spectrum} > {log} 2>&1"


rule scans:
    input:
        expand(rules.scan_model.output, model=MODELS),
    message:
        "Scans are in results/scan"
