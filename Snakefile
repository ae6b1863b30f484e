"""Low-rank bias, weight decay and model merging: the paper as a workflow. Stages are in rules/, settings in config/."""

from snakemake.utils import min_version

min_version("9.0")

# A config given with --configfile replaces the default one instead of being merged into it.
if not workflow.overwrite_configfiles:

    configfile: workflow.source_path("config/config.yaml")


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/fetch.smk"
include: "rules/tasks.smk"
include: "rules/train.smk"
include: "rules/merge.smk"
include: "rules/evaluate.smk"
include: "rules/scan.smk"
include: "rules/claims.smk"
include: "rules/figures.smk"
include: "rules/overview.smk"


rule all:
    default_target: True
    input:
        rules.figures.input,
        rules.claims.input if MODELS or CLAIMED else [],
    message:
        "Figures are in results/figures, claims in results/claims.json"
