"""An S3-compatible server and a web server with the slides of a cohort, and a run that has fetched them."""

import logging
import shutil
from collections.abc import Iterator

import boto3
import pandas as pd
import pytest
from lesionmap.demo.cohort import write_cohort
from moto.server import ThreadedMotoServer
from project import COHORT, Project
from servers import BUCKET, Listener, Store
from web_server import serving

ON_S3, ON_THE_WEB = ("train_1", "test_1", "unreadable"), ("train_2",)
SECRETS = ("key-not-to-be-told", "secret-not-to-be-told")
KEYS = {"AWS_ACCESS_KEY_ID": SECRETS[0], "AWS_SECRET_ACCESS_KEY": SECRETS[1], "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Iterator[Store]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch, serving(tmp_path_factory.mktemp("web")) as web:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": endpoint}).items():
            patch.setenv(name, value)
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        store = Store(s3, web)
        log = logging.getLogger("werkzeug")
        log.setLevel(logging.INFO)
        log.addHandler(Listener(store.asked_of_s3))
        yield store
    server.stop()


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> Project:
    """A finished cohort whose slides are files."""
    project = Project(tmp_path_factory.mktemp("local"))
    write_cohort(project.folder, COHORT, jpeg_quality=None)
    project.run()
    return project


@pytest.fixture(scope="session")
def fetched(local, store, tmp_path_factory) -> Project:
    """The same, its slides on servers, with room for one and a half of them here; one is not there, one refused."""
    project = Project(tmp_path_factory.mktemp("remote"))
    shutil.copytree(local.folder / "annotations", project.folder / "annotations")
    web = store.web.folder
    (web / "refused").mkdir()
    (web / "refused/secret.tif").touch()
    sheet = pd.read_csv(local.folder / "slides.tsv", sep="\t", dtype=str, keep_default_na=False).set_index("slide")
    for slide in ON_S3:
        store.s3.upload_file(local.folder / sheet.loc[slide, "path"], BUCKET, f"2026/case 1/{slide}.tif")
        sheet.loc[slide, "path"] = f"s3://{BUCKET}/2026/case 1/{slide}.tif"
    for slide in ON_THE_WEB:
        shutil.copy(local.folder / sheet.loc[slide, "path"], web)
        sheet.loc[slide, "path"] = f"{store.web.address}/{slide}.tif"
    sheet.loc["gone"] = [f"s3://{BUCKET}/gone.tif", "inference", "", ""]
    sheet.loc["secret"] = [f"{store.web.address}/refused/secret.tif", "inference", "", ""]
    store.web.redirects["/led.tif"] = 302, "http://other.example/led.tif?sig=not-to-be-told"
    sheet.loc["led"] = [f"{store.web.address}/led.tif", "inference", "", ""]
    sheet.to_csv(project.folder / "slides.tsv", sep="\t")
    largest = max(path.stat().st_size for path in (local.folder / "slides").iterdir())
    project.config["slides"] |= {
        "roots": [".", f"s3://{BUCKET}/", store.web.address],
        "copies": {"most_gb": 1.5 * largest / 1e9},
    }
    return project
