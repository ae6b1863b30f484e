"""Own networks: one job for each task, λ and block of seeds."""


def train_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.train_job(
        wildcards.experiment, experiment, wildcards.task, wildcards.weight_decay
    ).model_dump_json()


rule train:
    message:
        "Train {wildcards.experiment}/{wildcards.task} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    input:
        tasks=rules.tasks.output,
        code=modules("train", "network", "measure", "seeding", "store"),
    output:
        "results/{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}.nc",
    params:
        settings=train_settings,
    log:
        "logs/{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        # The device determines no result, so it is no param: those re-run what they change.
        device=CONFIG.device,
    conda:
        ENVIRONMENT
    shell:
        "decaymerge train {input.tasks} {output} --settings {params.settings:q}"
        " --device {resources.device} > {log} 2>&1"
