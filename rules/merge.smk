"""Merged networks of every merge set: each pair of tasks, and all tasks where there are more than two."""

for part, name, experiments in parts_of("merge"):

    rule:
        name:
            name
        input:
            unpack(reads("merge", part)),
        output:
            written("merge", part),
        log:
            layout.log(parts.place("merge", part[0])),
        benchmark:
            layout.benchmark(parts.place("merge", part[0]))
        wildcard_constraints:
            experiment=one_of(experiments),
        resources:
            **asks(estimates.merge, len(part)),
        params:
            code=code("merge"),
            settings=settings_of("merge", part),
            command=command("merge", part),
        message:
            f"Merge {{wildcards.experiment}}/{parts.described(part)}, seeds {{wildcards.block}}"
        shell:
            "decaymerge {params.command} > {log} 2>&1"
