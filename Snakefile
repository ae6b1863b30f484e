"""The workflow that reproduces the paper: a file for each stage in rules/, and the settings in config/."""

from snakemake.utils import min_version

min_version("9.0")

# A configuration given with --configfile, or by a workflow that includes this one, replaces the default one; Snakemake
# would merge the two.
if not workflow.configfiles:

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


if workflow.is_main_process:
    SETTINGS = workflow.output_settings
    WATCH = terminal.watch(logger, with_bars=not (SETTINGS.dryrun or SETTINGS.quiet or SETTINGS.verbose))


onstart:
    # Who forces jobs does not want them to keep their files. Jobs inherit the environment.
    forced = (
        workflow.dag_settings.forcerun
        or workflow.dag_settings.forceall
        or workflow.dag_settings.forcetargets
    )
    if workflow.is_main_process and forced:
        os.environ[REMAKE] = "1"
    # To keep its default rate, Snakemake starts a timer in each pass of its scheduler and a pass at the end of each
    # timer: as many more a second as jobs have ended (benchmarks/snakemake_timers.md). No job here is that short.
    rate = workflow.scheduling_settings.max_jobs_per_timespan
    if (rate.max_jobs, rate.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None
    if workflow.local_exec:  # a cluster's scheduler knows its nodes
        try:
            preflight.check_memory(workflow.dag.needrun_jobs())
        except UserError as error:
            raise WorkflowError(f"nothing is started: {error}") from None


onsuccess:
    logger.info(WATCH.end(successful=True))


onerror:
    logger.error(WATCH.end(successful=False))


rule all:
    default_target: True
    input:
        rules.figures.input,
        rules.hypotheses.output if CONFIG.summed else [],
        rules.claims.input if MODELS or CLAIMED else [],
    message:
        f"Figures are in {Path('results/figures').absolute()}, tables and claims next to that folder"
