"""Inputs and labels of every task."""

for part, name, experiments in parts_of("tasks"):

    rule:
        name:
            name
        input:
            unpack(reads("tasks", part)),
        output:
            written("tasks", part),
        log:
            layout.log(parts.place("tasks", part[0])),
        benchmark:
            layout.benchmark(parts.place("tasks", part[0]))
        wildcard_constraints:
            experiment=one_of(experiments),
        resources:
            **asks(estimates.tasks, len(part)),
        params:
            code=code("tasks"),
            settings=settings_of("tasks", part),
            command=command("tasks", part),
        message:
            f"Make the data of {{wildcards.experiment}}/{parts.described(part)}, seeds {{wildcards.block}}"
        shell:
            "decaymerge {params.command} > {log} 2>&1"
