"""Merged networks of every pair of tasks, and of all of them where there are more than two."""


rule merge:
    input:
        own=own_networks,
        code=modules("merge", "store"),
    output:
        weights("results/{experiment}/merge/{pair}/weight_decay={weight_decay}/seeds={block}.nc"),
    log:
        "logs/{experiment}/merge/{pair}/weight_decay={weight_decay}/seeds={block}.log",
    benchmark:
        "benchmarks/{experiment}/merge/{pair}/weight_decay={weight_decay}/seeds={block}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.merge),
        runtime=minutes(demand.merge),
    params:
        settings=merge_settings,
    message:
        "Merge {wildcards.experiment}/{wildcards.pair} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge merge {output} {input.own} --settings {params.settings:q} > {log} 2>&1"
