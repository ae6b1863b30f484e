"""Inputs and labels of every task."""


rule tasks:
    input:
        data=lambda wildcards: shared(
            EXPERIMENTS[wildcards.experiment].named_tasks[wildcards.task].files(RESOURCES)
        ),
        code=modules("tasks", "fetch", "seeding", "store"),
    output:
        layout.result(layout.TASKS),
    log:
        layout.log(layout.TASKS),
    benchmark:
        layout.benchmark(layout.TASKS)
    resources:
        **asks(estimates.tasks),
    params:
        settings=settings(jobs.TasksJob),
    message:
        "Make task {wildcards.experiment}/{wildcards.task}, seeds {wildcards.block}"
    shell:
        "decaymerge tasks --settings {params.settings:q} -- {output} {input.data:q} > {log} 2>&1"
