"""Own and merged networks on each task at each kept step, and the summary of an experiment."""


def task_data(wildcards):
    tasks = experiment_pairs(EXPERIMENTS[wildcards.experiment])[wildcards.pair]
    return expand(rules.tasks.output, task=tasks, allow_missing=True)


def merged_networks(wildcards):
    return rules.merge.output if EXPERIMENTS[wildcards.experiment].merging else []


def evaluate_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.evaluate_job(experiment, wildcards.pair, wildcards.weight_decay).model_dump_json()


rule evaluate:
    message:
        "Evaluate {wildcards.experiment}/{wildcards.pair} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    input:
        tasks=task_data,
        own=own_networks,
        merged=merged_networks,
        code=modules("evaluate", "network", "measure", "store"),
    output:
        "results/{experiment}/evaluate/{pair}/weight_decay={weight_decay}/seeds={block}.nc",
    params:
        settings=evaluate_settings,
        files=lambda wildcards, input: " ".join(
            f"--{name} {path}" for name in ("tasks", "own", "merged") for path in input.get(name)
        ),
    log:
        "logs/{experiment}/evaluate/{pair}/weight_decay={weight_decay}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/evaluate/{pair}/weight_decay={weight_decay}/seeds={block}.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=20,
        device=CONFIG.device,
    conda:
        ENVIRONMENT
    shell:
        "decaymerge evaluate {output} {params.files} --settings {params.settings:q}"
        " --device {resources.device} > {log} 2>&1"


def gather_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.gather_job(experiment).model_dump_json()


def evaluations(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    job = jobs.gather_job(experiment)
    return expand(
        rules.evaluate.output,
        pair=job.pairs,
        weight_decay=job.weight_decay,
        block=job.blocks,
        allow_missing=True,
    )


rule gather:
    message:
        "Gather the evaluations of {wildcards.experiment}"
    input:
        evaluations=evaluations,
        code=modules("evaluate", "store"),
    output:
        "results/{experiment}/summary.nc",
    params:
        settings=gather_settings,
        folder="results/{experiment}/evaluate",
    log:
        "logs/{experiment}/gather.log",
    benchmark:
        "benchmarks/{experiment}/gather.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    conda:
        ENVIRONMENT
    shell:
        "decaymerge gather {params.folder} {output} --settings {params.settings:q} > {log} 2>&1"
