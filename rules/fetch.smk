"""Real data, verified by content, into the folder that all runs share."""


rule fetch_fashion_mnist:
    message:
        "Fetch Fashion-MNIST"
    output:
        images=f"{RESOURCES}/fashion_mnist/train-images-idx3-ubyte.gz",
        labels=f"{RESOURCES}/fashion_mnist/train-labels-idx1-ubyte.gz",
        test_images=f"{RESOURCES}/fashion_mnist/t10k-images-idx3-ubyte.gz",
        test_labels=f"{RESOURCES}/fashion_mnist/t10k-labels-idx1-ubyte.gz",
    params:
        destination=f"{RESOURCES}/fashion_mnist",
        folder=f"--folder {CONFIG.fetch.fashion_mnist}" if CONFIG.fetch.fashion_mnist else "",
    log:
        "logs/fetch/fashion_mnist.log",
    benchmark:
        "benchmarks/fetch/fashion_mnist.tsv"
    threads: 1
    resources:
        mem_mb=500,
        runtime=20,
    retries: 2
    conda:
        ENVIRONMENT
    shell:
        "decaymerge fetch fashion_mnist {params.destination:q} {params.folder} > {log} 2>&1"
