"""Merged networks of every merge set: each pair of tasks, and all tasks where there are more than two."""


rule merge:
    input:
        own=of_tasks(rules.train.output),
        tasks=lambda wildcards: (
            of_tasks(rules.tasks.output)(wildcards)
            if asks_for_inputs(EXPERIMENTS[wildcards.experiment].merges)
            else []
        ),
        code=modules("low_rank", "merge", "merge_methods", "network", "store"),
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
        tasks=lambda wildcards, input: [f"--tasks={path}" for path in input.get("tasks")],
    message:
        "Merge {wildcards.experiment}/{wildcards.merge_set} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge merge {output} {input.own} {params.tasks:q} --settings {params.settings:q} > {log} 2>&1"
