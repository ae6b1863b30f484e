"""Training of own networks, of as many tasks and λ in one job as fill some minutes."""

for part, name, experiments in parts_of("train"):

    rule:
        name:
            name
        input:
            unpack(reads("train", part)),
        output:
            written("train", part),
        log:
            layout.log(parts.place("train", part[0])),
        benchmark:
            layout.benchmark(parts.place("train", part[0]))
        wildcard_constraints:
            experiment=one_of(experiments),
        resources:
            **asks(estimates.train, len(part)),
            **DEVICE,
        params:
            code=code("train"),
            settings=settings_of("train", part),
            command=command("train", part),
        message:
            f"Train {{wildcards.experiment}}/{parts.described(part)}, seeds {{wildcards.block}}"
        shell:
            "DECAYMERGE_DEVICE={resources.device} decaymerge {params.command} > {log} 2>&1"
