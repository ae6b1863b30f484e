"""Evaluation of own and merged networks on each task at each kept step, and the summary of an experiment."""

for part, name, experiments in parts_of("evaluate"):

    rule:
        name:
            name
        input:
            unpack(reads("evaluate", part)),
        output:
            written("evaluate", part),
        log:
            layout.log(parts.place("evaluate", part[0])),
        benchmark:
            layout.benchmark(parts.place("evaluate", part[0]))
        wildcard_constraints:
            experiment=one_of(experiments),
        resources:
            **asks(estimates.evaluate, len(part)),
            **DEVICE,
        params:
            code=code("evaluate"),
            settings=settings_of("evaluate", part),
            command=command("evaluate", part),
        message:
            f"Evaluate {{wildcards.experiment}}/{parts.described(part)}, seeds {{wildcards.block}}"
        shell:
            "DECAYMERGE_DEVICE={resources.device} decaymerge {params.command} > {log} 2>&1"


rule gather:
    input:
        evaluations=of_experiment(layout.EVALUATED),
    output:
        summary=layout.result(layout.SUMMARY),
        table=layout.result(layout.TABLE, ".csv"),
    log:
        layout.log(layout.SUMMARY),
    benchmark:
        layout.benchmark(layout.SUMMARY)
    resources:
        **asks(estimates.gather),
    params:
        code=code("gather"),
        settings=settings(jobs.GatherJob),
        results=lambda wildcards, output: Path(output.summary).parents[1],
    message:
        "Gather the evaluations of {wildcards.experiment}"
    shell:
        "decaymerge gather {params.results} {output.summary} --settings {params.settings:q} > {log} 2>&1"


rule hypotheses:
    input:
        summaries=expand(layout.result(layout.SUMMARY), experiment=CONFIG.summed),
    output:
        "results/hypotheses.csv",
    log:
        "logs/hypotheses.log",
    benchmark:
        "benchmarks/hypotheses.tsv"
    resources:
        **asks(estimates.VERDICTS),
    params:
        code=code("hypotheses"),
        settings=ORIGINS.settings(jobs.HypothesesJob),
    message:
        "Judge the hypotheses about sums of networks"
    shell:
        "decaymerge hypotheses {output} {input.summaries} --settings {params.settings:q} > {log} 2>&1"
