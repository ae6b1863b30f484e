"""Real data and checkpoints, verified by their content, in the folder that all runs share."""

for dataset, files in FETCHED.items():

    rule:
        name:
            f"fetch_{dataset}"
        output:
            shared(RESOURCES / dataset / file for file in files),
        log:
            f"logs/fetch/{dataset}.log",
        benchmark:
            f"benchmarks/fetch/{dataset}.tsv"
        retries: 2
        resources:
            **asks(estimates.FETCH),
        params:
            dataset=dataset,
            destination=RESOURCES / dataset,
            folder=[f"--folder={CONFIG.fetch[dataset]}"] if dataset in CONFIG.fetch else [],
        message:
            f"Fetch {dataset}"
        shell:
            "decaymerge fetch {params.dataset} {params.destination:q} {params.folder:q} > {log} 2>&1"


# The folder of a fetched checkpoint is named after its source, so that configurations can share the cache.
CHECKPOINTS = {
    models.folder_of(model, RESOURCES).name: model
    for model in MODELS.values()
    if not model.sources[0].startswith("path:")
}


rule fetch_model:
    output:
        shared([RESOURCES / "models/{checkpoint}" / models.MANIFEST]),
    log:
        "logs/fetch/{checkpoint}.log",
    benchmark:
        "benchmarks/fetch/{checkpoint}.tsv"
    resources:
        **asks(estimates.FETCH),
    params:
        arguments=lambda wildcards: model_arguments(CHECKPOINTS[wildcards.checkpoint]),
        cache=RESOURCES,
    message:
        "Fetch {wildcards.checkpoint}"
    shell:
        "decaymerge fetch-model {params.arguments:q} --cache {params.cache:q} > {log} 2>&1"
