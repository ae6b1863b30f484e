"""Evaluation of own and merged networks on each task at each kept step, and the summary of an experiment."""


rule evaluate:
    input:
        tasks=of_tasks(rules.tasks.output),
        own=of_tasks(rules.train.output),
        merged=lambda wildcards: rules.merge.output if EXPERIMENTS[wildcards.experiment].merges else [],
        code=modules("evaluate", "network", "measure", "store"),
    output:
        layout.result(layout.EVALUATED),
    log:
        layout.log(layout.EVALUATED),
    benchmark:
        layout.benchmark(layout.EVALUATED)
    resources:
        **asks(estimates.evaluate),
        **DEVICE,
    params:
        settings=settings(jobs.EvaluateJob),
        files=lambda wildcards, input: " ".join(
            f"--{name} {path}" for name in ("tasks", "own", "merged") for path in input.get(name)
        ),
    message:
        "Evaluate {wildcards.experiment}/{wildcards.merge_set} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge evaluate {output} {params.files} --settings {params.settings:q}"
        " --device {resources.device} > {log} 2>&1"


rule gather:
    input:
        evaluations=of_experiment(rules.evaluate.output),
        code=modules("evaluate", "collapse", "statistics", "store"),
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
        settings=settings(jobs.GatherJob),
        results=lambda wildcards, output: Path(output.summary).parents[1],
    message:
        "Gather the evaluations of {wildcards.experiment}"
    shell:
        "decaymerge gather {params.results} {output.summary} --settings {params.settings:q} > {log} 2>&1"


rule hypotheses:
    input:
        summaries=expand(rules.gather.output.summary, experiment=CONFIG.summed),
        code=modules("hypotheses", "collapse", "statistics", "store"),
    output:
        "results/hypotheses.csv",
    log:
        "logs/hypotheses.log",
    benchmark:
        "benchmarks/hypotheses.tsv"
    resources:
        **asks(estimates.VERDICTS),
    params:
        settings=ORIGINS.job(jobs.HypothesesJob).model_dump_json(),
    message:
        "Judge the hypotheses about sums of networks"
    shell:
        "decaymerge hypotheses {output} {input.summaries} --settings {params.settings:q} 2>&1 | tee {log}"
