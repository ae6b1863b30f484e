"""A run whose results are in a bucket, on a server that speaks the protocol of S3 (moto)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import xarray as xr
import yaml
from moto.server import ThreadedMotoServer

from builders import smoke_config
from conftest import REPOSITORY, Workflow
from decaymerge import store

EXPERIMENT = "weight_decay"
KEYS = {"access": "an-access-key", "secret": "a-secret-key"}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server with the bucket of the profile."""
    for kind, key in KEYS.items():
        monkeypatch.setenv(f"SNAKEMAKE_STORAGE_S3_{kind.upper()}_KEY", key)
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.slow
@pytest.mark.workflow
def test_results_in_a_bucket_are_those_of_a_folder(smoke: Workflow, address: str, tmp_path: Path) -> None:
    profile = yaml.safe_load((REPOSITORY / "profiles/s3/config.yaml").read_text())
    bucket = profile["default-storage-prefix"].removeprefix("s3://")
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEYS["access"],
        aws_secret_access_key=KEYS["secret"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)
    config = {"experiments": {EXPERIMENT: smoke_config()["experiments"][EXPERIMENT]}}
    workflow = Workflow(tmp_path, config)
    options = ["--profile", str(REPOSITORY / "profiles/s3"), "--storage-s3-endpoint-url", address]
    process = workflow.start(*options)
    assert process.wait() == 0
    names = [entry["Key"] for entry in client.list_objects(Bucket=bucket)["Contents"]]
    assert {f"results/figures/{EXPERIMENT}.pdf", "results/hypotheses.csv"} <= set(names)
    compared = [name for name in names if name.startswith("results/") and name.endswith(".nc")]
    assert len(compared) > 8 and not (tmp_path / "results").exists()
    for name in compared:
        copy = tmp_path / "copy.nc"
        client.download_file(bucket, name, str(copy))
        xr.testing.assert_identical(store.read(copy), store.read(smoke.folder / name))
    # One more λ: the jobs that need it run, and those of the data do not.
    config["experiments"][EXPERIMENT]["training"]["weight_decay"].append(1e-2)

    def times(kind: str) -> dict[str, Any]:
        entries = client.list_objects(Bucket=bucket)["Contents"]
        return {entry["Key"]: entry["LastModified"] for entry in entries if f"/{kind}/" in entry["Key"]}

    before = times("tasks")
    process = workflow.start(*options)
    assert process.wait() == 0
    assert times("tasks") == before
    trained = [name for name in times("train") if name.endswith(".nc") and "weight_decay=0.01/" in name]
    assert len(trained) == 2
