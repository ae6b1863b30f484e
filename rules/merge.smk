"""Merged networks of every pair of tasks, and of all of them where there are more than two."""


def own_networks(wildcards):
    tasks = experiment_pairs(EXPERIMENTS[wildcards.experiment])[wildcards.pair]
    return expand(rules.train.output, task=tasks, allow_missing=True)


def merge_settings(wildcards):
    return jobs.MergeJob(methods=EXPERIMENTS[wildcards.experiment].merging).model_dump_json()


rule merge:
    message:
        "Merge {wildcards.experiment}/{wildcards.pair} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    input:
        own=own_networks,
        code=modules("merge", "store"),
    output:
        "results/{experiment}/merge/{pair}/weight_decay={weight_decay}/seeds={block}.nc",
    params:
        settings=merge_settings,
    log:
        "logs/{experiment}/merge/{pair}/weight_decay={weight_decay}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/merge/{pair}/weight_decay={weight_decay}/seeds={block}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    conda:
        ENVIRONMENT
    shell:
        "decaymerge merge {output} {input.own} --settings {params.settings:q} > {log} 2>&1"
