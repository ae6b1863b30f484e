"""Norms and stable ranks of transformers."""


rule scan_model:
    input:
        checkpoint=lambda wildcards: shared(models.files_of(MODELS[wildcards.model], RESOURCES)),
    output:
        layout.result(layout.SCAN),
    log:
        layout.log(layout.SCAN),
    benchmark:
        layout.benchmark(layout.SCAN)
    resources:
        **asks(estimates.SCAN),
    params:
        code=code("scan"),
        arguments=lambda wildcards: model_arguments(MODELS[wildcards.model]),
        exceptions=lambda wildcards: exceptions(MODELS[wildcards.model]),
        cache=RESOURCES,
        tolerance=CONFIG.scan.tolerance,
        spectrum="--spectrum" if CONFIG.scan.spectrum else "--no-spectrum",
    message:
        "Scan {wildcards.model}"
    shell:
        "decaymerge scan {params.arguments:q} {params.exceptions} --cache {params.cache:q} --output {output}"
        " --tolerance {params.tolerance} {params.spectrum} > {log} 2>&1"


rule scans:
    input:
        expand(layout.result(layout.SCAN), model=MODELS),
    message:
        "Scans are in results/scan"
