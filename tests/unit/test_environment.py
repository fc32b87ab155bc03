import importlib.util
import re


def test_the_conda_environment_mirrors_the_lock(request):
    envs = request.config.rootpath / "envs"
    spec = importlib.util.spec_from_file_location("mirror", envs / "mirror.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (envs / "lesionmap.yaml").read_text() == module.mirror()


def test_the_lock_names_no_address(request):
    lock = (request.config.rootpath / "envs/requirements.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"^\s*-", lock.replace("    --hash", ""), flags=re.MULTILINE)
