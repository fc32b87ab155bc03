# The workflow's own folder, whoever imports the workflow, and its config: the user's over config/config.yaml there.

import os
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.sourcecache import HostingProviderFile, LocalSourceFile
from snakemake.utils import update_config


def own_folder():
    """The folder of this workflow's Snakefile."""
    folder = workflow.current_basedir.join("../..")
    if isinstance(folder, HostingProviderFile):
        return fetched(folder)
    if isinstance(folder, LocalSourceFile):
        return Path(folder.path).resolve()
    raise WorkflowError(
        f"LesionMap cannot be imported from {folder}: its library would not come along. "
        "Remedy: import the Snakefile of a checkout, by its path, or of a server, by github(…) or gitlab(…)."
    )


def fetched(folder):
    """Fetch those files of a workflow on a server that Snakemake itself does not; their folder in its cache."""
    home = Path(workflow.sourcecache.get_path(folder.join("config/config.yaml"))).parents[1]
    tree = folder.hosted_repo.repo.commit(folder.ref).tree
    for part in ("scripts", "workflow/schemas"):
        for file in (tree / part).traverse(lambda item, depth: item.type == "blob"):
            if not (home / file.path).exists():
                write_bytes(home / file.path, file.data_stream.read())
    return home


def write_bytes(path, content):
    """Write a file so that no other process ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)


HOME = own_folder()
sys.path.insert(0, f"{HOME}/scripts")

import lesionmap

if Path(lesionmap.__file__).resolve() != (HOME / "scripts/lesionmap/__init__.py").resolve():
    raise WorkflowError(
        f"LesionMap: the workflow in {HOME} would run the library of {lesionmap.__file__}. "
        "Remedy: import one version of LesionMap per Snakefile."
    )


# How an import changes the names of rules, and the paths of inputs and outputs.
AS_IMPORTED = workflow.modifier


# That of the working directory, as in any workflow; where another workflow imports this one, it hands its config over.
if Path("config/config.yaml").is_file():

    configfile: "config/config.yaml"


def with_prefix(path):
    """A path of the workflow's results or logs that Python itself reads or writes."""
    return AS_IMPORTED.path_modifier.replace_prefix(path)


def over_defaults(config):
    """Merge a config over the workflow's own, key by key."""
    merged = load_configfile(HOME / "config/config.yaml")
    update_config(merged, config)
    return merged


if not workflow.config_settings.replace_workflow_config:
    config = over_defaults(config)
