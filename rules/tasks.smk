"""Inputs and labels of every task."""


def real_data(wildcards):
    """Files that the task's data are drawn from."""
    task = EXPERIMENTS[wildcards.experiment].named_tasks[wildcards.task]
    if task.dataset == "fashion_mnist":
        return [rules.fetch_fashion_mnist.output.images, rules.fetch_fashion_mnist.output.labels]
    return []


def tasks_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.tasks_job(wildcards.experiment, experiment, wildcards.task, wildcards.block).model_dump_json()


rule tasks:
    message:
        "Make task {wildcards.experiment}/{wildcards.task}, seeds {wildcards.block}"
    input:
        data=real_data,
        code=modules("tasks", "seeding", "store"),
    output:
        "results/{experiment}/tasks/{task}/seeds={block}.nc",
    params:
        settings=tasks_settings,
    log:
        "logs/{experiment}/tasks/{task}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/tasks/{task}/seeds={block}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        ENVIRONMENT
    shell:
        "decaymerge tasks {output} {input.data} --settings {params.settings:q} > {log} 2>&1"
