"""Real data, verified by content, into the folder that all runs share."""


rule fetch_fashion_mnist:
    output:
        images=f"{RESOURCES}/fashion_mnist/train-images-idx3-ubyte.gz",
        labels=f"{RESOURCES}/fashion_mnist/train-labels-idx1-ubyte.gz",
        test_images=f"{RESOURCES}/fashion_mnist/t10k-images-idx3-ubyte.gz",
        test_labels=f"{RESOURCES}/fashion_mnist/t10k-labels-idx1-ubyte.gz",
    log:
        "logs/fetch/fashion_mnist.log",
    benchmark:
        "benchmarks/fetch/fashion_mnist.tsv"
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.FETCH),
        runtime=minutes(demand.FETCH),
    params:
        destination=lambda wildcards, output: Path(output.images).parent,
        folder=[f"--folder={CONFIG.fetch.fashion_mnist}"] if CONFIG.fetch.fashion_mnist else [],
    message:
        "Fetch Fashion-MNIST"
    shell:
        "decaymerge fetch fashion_mnist {params.destination:q} {params.folder:q} > {log} 2>&1"


rule fetch_model:
    output:
        f"{RESOURCES}/models/{{checkpoint}}/{models.MANIFEST}",
    log:
        "logs/fetch/{checkpoint}.log",
    benchmark:
        "benchmarks/fetch/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=megabytes(demand.FETCH),
        runtime=minutes(demand.FETCH),
    params:
        arguments=lambda wildcards: model_arguments(FETCHED[wildcards.checkpoint]),
        cache=lambda wildcards, output: Path(output[0]).parent.parent.parent,
    message:
        "Fetch {wildcards.checkpoint}"
    shell:
        "decaymerge fetch-model {params.arguments:q} --cache {params.cache:q} > {log} 2>&1"
