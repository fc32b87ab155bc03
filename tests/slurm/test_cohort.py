"""A cohort on a SLURM cluster while one thing after another goes wrong; one run, at which all tests look."""

import os
import re
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest
import yaml
from cluster import Cluster, until
from lesionmap.demo.cohort import write_cohort
from project import COHORT, ROOT, Project, environment

SLIDES = ("train_1", "train_2", "test_1")


class Trouble:
    """A run on the cluster, and what may befall it."""

    def __init__(self, project: Project, cluster: Cluster) -> None:
        self.project, self.cluster = project, cluster
        self.snakemake = project.start()

    def job(self, name: str) -> str:
        """Wait until SLURM runs a job of a rule or group; its number."""

        def running() -> list[str]:
            assert self.snakemake.poll() is None, self.project.printed()
            return [job["JobId"] for job in self.cluster.jobs(name) if job["JobState"] == "RUNNING"]

        until(lambda: bool(running()), 300, f"a running job {name}")
        return running()[0]

    def kill_snakemake(self) -> None:
        """Its jobs live on, so that they have to be cancelled by the name of the run before another is started."""
        self.snakemake.send_signal(signal.SIGKILL)
        self.snakemake.wait()
        run_id = re.search(r"SLURM run ID: (\S+)", self.project.printed())[1]
        self.cluster.query("scancel", f"--name={run_id}")
        self.project.run("--unlock")
        self.snakemake = self.project.start()

    def restart_controller(self, number: str, seconds: float) -> None:
        """While a job runs of which the controller has taken notice: it saves its state every few seconds."""
        until(lambda: self.cluster.job(number)["RunTime"] >= "00:00:06", 60, "a job that runs for 6 s")
        self.cluster.kill_controller()
        assert "DOWN" in self.cluster.query("scontrol", "ping")
        time.sleep(seconds)
        self.cluster.start_controller()

    def preempt(self, number: str) -> None:
        """Put a more urgent job in the place of one; SLURM has that wait two minutes, which is cut short here."""
        self.cluster.query("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
        until(lambda: self.cluster.job(number)["JobState"] == "PENDING", 60, "a job that gave way")
        self.cluster.query("scontrol", "update", f"JobId={number}", "StartTime=now")

    def end(self) -> str:
        self.snakemake.wait(timeout=600)
        printed = self.project.printed()
        assert self.snakemake.returncode == 0, printed
        return printed


@pytest.fixture(scope="module")
def project(cluster, site, tmp_path_factory) -> Project:
    """The cohort after all that."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, COHORT, jpeg_quality=None)
    project = Project(folder, profile=site)
    project.config["train"]["epochs"] = 3
    trouble = Trouble(project, cluster)
    trouble.job("rule_prepare")
    trouble.kill_snakemake()
    cluster.query("scancel", trouble.job("rule_prepare"))
    number = trouble.job("rule_train")
    until(lambda: "'epoch': 1" in log(project, "train"), 60, "the first epoch")
    trouble.preempt(number)
    trouble.restart_controller(trouble.job("rule_train"), seconds=10)
    trouble.end()
    return project


def log(project, name):
    path = project.folder / f"logs/{name}.log"
    return path.read_text() if path.exists() else ""


def history(cluster, name):
    """State and memory of the jobs of a group or rule, in their order."""
    return [(job["JobState"], int(re.search(r"mem=(\d+)M", job["TRES"])[1])) for job in cluster.jobs(name)]


def test_the_cohort_is_done_and_a_broken_slide_costs_the_others_nothing(project):
    results = project.folder / "results"
    assert list(pd.read_csv(results / "quarantine.tsv", sep="\t")["slide"]) == ["unreadable"]
    assert "Dice" in (results / "conclusion.txt").read_text()
    for slide in SLIDES:
        assert (results / f"lesions/{slide}/probability.ome.tif").stat().st_size > 0


def test_gpu_jobs_are_on_the_gpu_node_with_a_gpu_and_no_others(project, cluster):
    jobs = cluster.jobs("rule_")
    gpu = {job["Comment"].split("_")[1] for job in jobs if job.get("TresPerJob") == "gres:gpu:1"}
    assert gpu == {"train", "infer"}
    assert {job["NodeList"] for job in jobs if job["Comment"].split("_")[1] in gpu} == {"gpu1"}
    assert {job["NodeList"] for job in jobs if job["Comment"].split("_")[1] not in gpu} == {"cpu1"}


def test_what_was_done_before_snakemake_was_killed_is_not_done_again(project, cluster):
    assert history(cluster, "rule_inspect") == [("COMPLETED", 1000)]
    assert not re.search(r"rule inspect_slide", project.printed())


def test_a_cancelled_job_is_tried_again_with_more_memory(project, cluster):
    """The first is what the killed Snakemake left."""
    assert history(cluster, "rule_prepare") == [("CANCELLED", 3000), ("CANCELLED", 3000), ("COMPLETED", 6000)]


def test_training_gives_way_goes_on_where_it_was_and_outlives_the_controller(project, cluster):
    (job,) = cluster.jobs("rule_train")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    first, second = log(project, "train").split("a new attempt begins")[1:]
    assert "train: 0 of " in first
    done, total = map(int, re.search(r"train: (\d+) of (\d+) images, \?", second).groups())
    assert total / 3 <= done < total


@pytest.mark.parametrize(
    ("group", "cpus", "minutes"),
    [
        ("inspect", 1, 4 * 20),
        ("match", 1, 3 * 5),
        ("pictures", 1, 3 * 5),
        ("infer", 2, 3 * 60),
        ("views", 2, 3 * (10 + 60)),
        ("results", 1, 10),
    ],
)
def test_neighbouring_slides_share_a_job_and_take_turns_in_it(project, cluster, group, cpus, minutes):
    (job,) = cluster.jobs(f"rule_{group}_0")
    assert job["NumCPUs"] == str(cpus)
    assert job["TimeLimit"] == f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def test_the_results_are_those_of_a_run_without_a_cluster(project, tmp_path):
    alone = Project(tmp_path, config=project.config)
    write_cohort(alone.folder, COHORT, jpeg_quality=None)
    alone.run()
    ours, theirs = project.results(), alone.results()
    assert set(ours) == set(theirs)
    of_this_run = ("report/", "slides/location/")  # times, and dates of the slides
    assert [name for name in ours if ours[name] != theirs[name] and not name.startswith(of_this_run)] == []


def test_a_job_over_its_memory_is_tried_again_with_more(project, cluster):
    before = len(cluster.jobs("rule_prepare"))
    # The job's own Snakemake takes more for seconds; SLURM looks each second.
    scarce = ("--set-resources", "find_tissue:mem_mb=150*attempt**3")
    project.run("--forcerun", "find_tissue", "--until", "find_tissue", *scarce)
    assert history(cluster, "rule_prepare")[before:] == [("FAILED", 150), ("COMPLETED", 1200)]
    (killed,) = (project.folder / ".snakemake/slurm_logs").glob("group_prepare_0_find_tissue/*.log")
    assert "exceeded memory limit" in killed.read_text()


def test_new_slides_of_a_folder_are_mapped_by_a_model_and_once(project, site, tmp_path):
    """As cron does, on the cluster."""
    shipped, store = tmp_path / "project", tmp_path / "slides of the week"
    shipped.mkdir()
    store.mkdir()
    shutil.copy(project.folder / "results/model/lesionmap.safetensors", shipped)
    only_what_differs = {"slides": {"sheet": "slides.tsv", "roots": [str(store)]}, "tissue": project.config["tissue"]}
    settings = only_what_differs | {"on_quarantine": "warn", "model": {"path": "lesionmap.safetensors"}}
    (shipped / "config.yaml").write_text(yaml.safe_dump(settings))
    add(project, "test_1", store / "case 1/a.tif")
    weekly(shipped, store, site)
    assert (shipped / "results/lesions/case_1_a/lesions.geojson").stat().st_size > 0
    assert list(pd.read_csv(shipped / "slides.tsv", sep="\t")["split"]) == ["inference"]
    assert "Nothing to be done" in weekly(shipped, store, site)
    add(project, "train_1", store / "b.tif")
    (store / "copied just now.tif").touch()
    assert set(re.findall(r"wildcards: slide=(\S+)", weekly(shipped, store, site, "--dry-run"))) == {"b"}
    assert list(pd.read_csv(shipped / "slides.tsv", sep="\t")["slide"]) == ["case_1_a", "b"]


def add(project, slide, path):
    """Put one of the cohort's slides into a folder, as it may have come yesterday."""
    path.parent.mkdir(exist_ok=True)
    shutil.copy(project.folder / f"slides/{slide}.tif", path)
    os.utime(path, (time.time() - 86400,) * 2)


def weekly(folder, store, site, *arguments):
    command = [ROOT / "profiles/slurm/new_slides.sh", folder, store, "--workflow-profile", site, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
