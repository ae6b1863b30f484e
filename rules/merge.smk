"""Merged networks of every merge set: each pair of tasks, and all tasks where there are more than two."""


rule merge:
    input:
        own=of_tasks(rules.train.output),
        code=modules("merge", "merge_methods", "store"),
    output:
        weights(layout.result(layout.MERGED)),
    log:
        layout.log(layout.MERGED),
    benchmark:
        layout.benchmark(layout.MERGED)
    resources:
        **asks(estimates.merge),
    params:
        settings=settings(jobs.MergeJob),
    message:
        "Merge {wildcards.experiment}/{wildcards.merge_set} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge merge {output} {input.own} --settings {params.settings:q} > {log} 2>&1"
