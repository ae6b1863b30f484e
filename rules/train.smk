"""Training of own networks, a job for each task, λ and block of seeds."""


rule train:
    input:
        tasks=rules.tasks.output,
        code=modules("train", "network", "gradient", "measure", "seeding", "store"),
    output:
        weights(layout.result(layout.TRAINED)),
    log:
        layout.log(layout.TRAINED),
    benchmark:
        layout.benchmark(layout.TRAINED)
    resources:
        **asks(estimates.train),
        **DEVICE,
    params:
        settings=settings(jobs.TrainJob),
    message:
        "Train {wildcards.experiment}/{wildcards.task} at λ = {wildcards.weight_decay}, seeds {wildcards.block}"
    shell:
        "decaymerge train {input.tasks} {output} --settings {params.settings:q}"
        " --device {resources.device} > {log} 2>&1"
