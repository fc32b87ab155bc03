"""Results that are read-only: said before any work, and nothing is broken by it."""

from faults import differing

ON_A_READ_ONLY_DISK = "results cannot be written to: Read-only file system. Remedy: run in a folder that can be"


def test_results_on_a_read_only_disk(project, unbroken, disk):
    results = project.folder / "results"
    (results / "conclusion.txt").unlink()
    itself = disk(results, "--bind", str(results))
    itself.remount("ro,bind")
    printed = project.run(ok=False)
    assert f"LesionMap: start: {ON_A_READ_ONLY_DISK}" in printed
    assert "Traceback" not in printed
    project.config["evaluation"]["min_lesion_um"] = 0  # whose results are there: Snakemake itself sees it first
    assert "Write-protected output files for rule " in project.run(ok=False)
    del project.config["evaluation"]["min_lesion_um"]
    itself.remount("rw,bind")
    project.run()
    assert differing(project, unbroken) == set()
    itself.remount("ro,bind")
    assert "Nothing to be done" in project.run()
