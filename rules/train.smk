"""Own networks: one job for each task, λ and block of seeds."""


rule train:
    input:
        tasks=rules.tasks.output,
        code=modules("train", "network", "gradient", "measure", "seeding", "store"),
    output:
        weights("results/{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}.nc"),
    log:
        "logs/{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.train),
        runtime=minutes(demand.train),
        # The device determines no result, so it is no param: those re-run what they change.
        device=CONFIG.device,
        gpu=int(CONFIG.device == "cuda"),
    params:
        settings=train_settings,
    message:
        "Train {wildcards.experiment}/{wildcards.task} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge train {input.tasks} {output} --settings {params.settings:q}"
        " --device {resources.device} > {log} 2>&1"
