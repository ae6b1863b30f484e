"""Inputs and labels of every task."""


rule tasks:
    input:
        data=real_data,
        code=modules("tasks", "fetch", "seeding", "store"),
    output:
        "results/{experiment}/tasks/{task}/seeds={block}.nc",
    log:
        "logs/{experiment}/tasks/{task}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/tasks/{task}/seeds={block}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.tasks),
        runtime=minutes(demand.tasks),
    params:
        settings=tasks_settings,
    message:
        "Make task {wildcards.experiment}/{wildcards.task}, seeds {wildcards.block}"
    shell:
        "decaymerge tasks {output} {input.data:q} --settings {params.settings:q} > {log} 2>&1"
