"""Own and merged networks on each task at each kept step, and the summary of an experiment."""


rule evaluate:
    input:
        tasks=task_data,
        own=own_networks,
        merged=merged_networks,
        code=modules("evaluate", "gap", "network", "measure", "store"),
    output:
        "results/{experiment}/evaluate/{pair}/weight_decay={weight_decay}/seeds={block}.nc",
    log:
        "logs/{experiment}/evaluate/{pair}/weight_decay={weight_decay}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/evaluate/{pair}/weight_decay={weight_decay}/seeds={block}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.evaluate),
        runtime=minutes(demand.evaluate),
        device=CONFIG.device,
        gpu=int(CONFIG.device == "cuda"),
    params:
        settings=evaluate_settings,
        files=lambda wildcards, input: " ".join(
            f"--{name} {path}" for name in ("tasks", "own", "merged") for path in input.get(name)
        ),
    message:
        "Evaluate {wildcards.experiment}/{wildcards.pair} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge evaluate {output} {params.files} --settings {params.settings:q}"
        " --device {resources.device} > {log} 2>&1"


rule gather:
    input:
        evaluations=evaluations,
        code=modules("evaluate", "store"),
    output:
        "results/{experiment}/summary.nc",
    log:
        "logs/{experiment}/gather.log",
    benchmark:
        "benchmarks/{experiment}/gather.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.gather),
        runtime=minutes(demand.gather),
    params:
        settings=gather_settings,
        folder="results/{experiment}/evaluate",
    message:
        "Gather the evaluations of {wildcards.experiment}"
    shell:
        "decaymerge gather {params.folder} {output} --settings {params.settings:q} > {log} 2>&1"
