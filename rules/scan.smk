"""Norms and stable ranks of transformers."""


def checkpoint_files(wildcards):
    """The manifest of a fetched checkpoint, or the files of a checkpoint of your own."""
    folder = models.folder_of(MODELS[wildcards.model], RESOURCES)
    if folder.name in CHECKPOINTS:
        return local(str(folder / models.MANIFEST))
    files = [folder] if folder.is_file() else sorted(file for file in folder.iterdir() if file.is_file())
    return [local(str(file)) for file in files]


rule scan_model:
    input:
        checkpoint=checkpoint_files,
        code=modules("scan", "store"),
    output:
        layout.result(layout.SCAN),
    log:
        layout.log(layout.SCAN),
    benchmark:
        layout.benchmark(layout.SCAN)
    resources:
        **asks(estimates.SCAN),
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
