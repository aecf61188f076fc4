"""Tests of the container files that need no container engine: structure, and the entry point's number of threads."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
ENTRYPOINT = DOCKER / "entrypoint.sh"
# Dockerfile -> the stages that are images, and whether torch is in them.
IMAGES = {"Dockerfile": {"runtime": False, "train": True}, "Dockerfile.ipex": {"runtime": True}}

# ---------------------------------------------------------------------------------------------------- Dockerfiles

COMPILER = re.compile(r"(?<![\w.-])(g\+\+|gcc|cpp|clang|make|cmake|build-essential|\S+-dev)(?![\w.-])")
SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)


@dataclass
class Stage:
    """One `FROM` and the instructions below it."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]


def stages(text: str) -> list[Stage]:
    """Returns a Dockerfile's stages, with the `ARG`s above the first `FROM` substituted in their bases."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found, defaults = [], {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        keyword, rest = line.split(maxsplit=1)
        rest = " ".join(rest.split())
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            for argument, value in defaults.items():
                base = base.replace(f"${{{argument}}}", value)
            found.append(Stage(base, name))
        elif not found:
            assert keyword == "ARG", line
            argument, _, value = rest.partition("=")
            defaults[argument] = value
        else:
            found[-1].instructions.append((keyword, rest))
    return found


def with_bases(all_stages: list[Stage], name: str) -> Stage:
    """Returns a stage that holds its own instructions after those of the stages that it is based on."""
    by_name = {stage.name: stage for stage in all_stages}
    stage, instructions = by_name[name], list(by_name[name].instructions)
    while stage.base in by_name:
        stage = by_name[stage.base]
        instructions = stage.instructions + instructions
    return Stage(stage.base, name, instructions)


def enters_a_build(path: Path) -> bool:
    """Returns whether `.dockerignore` includes a file of the repository; the last matching line decides."""
    relative, kept = path.relative_to(ROOT), True
    parents = [relative, *relative.parents][:-1]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            anywhere = "**/" in line
            names = [part.name if anywhere else part.as_posix() for part in parents]
            if any(fnmatch.fnmatch(name, pattern) for name in names):
                kept = line.startswith("!")
    return kept


def problems(text: str, images: dict[str, bool]) -> list[str]:
    """Returns what is wrong with a Dockerfile.

    Args:
        images: the stages that are images, and whether torch is in them.
    """
    all_stages, wrong = stages(text), []
    names = {stage.name for stage in all_stages}
    if len(all_stages) < 2:
        wrong.append("one stage only")
    for stage in all_stages:
        if stage.base not in names and not re.fullmatch(
            r"python:3\.11(\.\d+)?-slim-bookworm(@sha256:[0-9a-f]{64})?", stage.base
        ):
            wrong.append(f"base {stage.base} is not pinned")
    if all_stages[-1].name != "runtime":
        wrong.append("the last stage, built by default, is not the runtime image")
    if any(SECRET.search(rest) for stage in all_stages for word in ("ARG", "ENV") for rest in stage.of(word)):
        wrong.append("a secret in the image")
    installs = [command for stage in all_stages for command in stage.of("RUN") if "pip --python" in command]
    constraints = [re.search(r"--constraint (\S+)", command) for command in installs]
    if not constraints or not all(found and (ROOT / found[1]).is_file() for found in constraints):
        wrong.append("versions are not constrained by requirements/")
    for copy in (copy for stage in all_stages for copy in stage.of("COPY") if "--from=" not in copy):
        for source in [part for part in copy.split() if not part.startswith("--")][:-1]:
            if source != "." and not enters_a_build(ROOT / source):
                wrong.append(f".dockerignore keeps {source} out")
    for name, torch in images.items():
        wrong += _image_problems(all_stages, with_bases(all_stages, name), torch)
    return wrong


def _image_problems(all_stages: list[Stage], image: Stage, torch: bool) -> list[str]:
    wrong = []
    users = image.of("USER")
    if not users or users[-1].split(":")[0] in ("root", "0"):
        wrong.append("runs as root")
    if any(COMPILER.search(command) for command in image.of("RUN")):
        wrong.append("a compiler in the image")
    if any(re.search(r"\bpip3?\b.*\binstall\b", command) for command in image.of("RUN")):
        wrong.append("pip in the image")
    copied = [re.search(r"--from=(\S+) /opt/itrex-sweet ", copy) for copy in image.of("COPY")]
    builders = [found[1] for found in copied if found]
    if len(builders) != 1 or builders[0] not in {stage.name for stage in all_stages}:
        wrong.append("the image holds no environment")
    elif torch != ("itrex-sweet[${EXTRAS}]" in " ".join(with_bases(all_stages, builders[0]).of("RUN"))):
        wrong.append("extras in the wrong image")
    check = 'CMD ["itrex-sweet", "info"]' if torch else 'CMD ["python", "/usr/local/bin/itrex-sweet-healthcheck"]'
    if not image.of("HEALTHCHECK")[-1:] or not image.of("HEALTHCHECK")[-1].endswith(check):
        wrong.append("no health check")
    if not torch and (image.of("CMD")[-1:], image.of("STOPSIGNAL")[-1:]) != (['["serve", "/model"]'], ["SIGTERM"]):
        wrong.append("the image does not serve until SIGTERM")
    entry = image.of("ENTRYPOINT")
    if not entry or json.loads(entry[-1]) != ["itrex-sweet-entrypoint", "itrex-sweet"]:
        wrong.append("the entry point does not run itrex-sweet")
    settings, commands = " ".join(image.of("ENV")), " ".join(image.of("RUN"))
    if torch and ("libtcmalloc_minimal.so.4" not in settings or "libtcmalloc-minimal4" not in commands):
        wrong.append("the allocator is not preloaded, or not installed")
    if "libiomp5.so" in settings and "intel-openmp" not in " ".join(all_stages[0].of("RUN")):
        wrong.append("Intel OpenMP is preloaded and not installed")
    if "HF_HOME=" not in settings or f"install -d -o sweet -g sweet {_hf_home(settings)}" not in commands:
        wrong.append("the user cannot write the hub's cache")
    return wrong


def _hf_home(settings: str) -> str:
    return re.search(r"HF_HOME=(\S+)", settings).group(1)


def read(name: str) -> str:
    return (DOCKER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", IMAGES)
def test_the_dockerfiles_have_no_problems(name):
    assert problems(read(name), IMAGES[name]) == []


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python:3.11-slim-bookworm\n", "python:latest\n", "is not pinned"),
        ("USER 10001:10001\n", "", "runs as root"),
        ("USER 10001:10001\n", "USER 10001\nUSER root\n", "runs as root"),
        ("libgomp1 libjemalloc2", "libgomp1 g++", "a compiler in the image"),
        ("libgomp1 libjemalloc2", "libgomp1 build-essential", "a compiler in the image"),
        ("libgomp1 libjemalloc2", "libgomp1 python3-dev", "a compiler in the image"),
        ("libjemalloc2 libtcmalloc-minimal4", "libjemalloc2", "the allocator is not"),
        ('CMD ["itrex-sweet", "info"]', 'CMD ["true"]', "no health check"),
        ("HEALTHCHECK", "# HEALTHCHECK", "no health check"),
        ("COPY --from=build /opt/itrex-sweet /opt/itrex-sweet\n", "", "holds no environment"),
        ("USER 10001:10001\n", "RUN pip install itrex-sweet\nUSER 10001\n", "pip in the image"),
        ("--constraint requirements/", "--constraint nowhere/", "versions are not constrained"),
        ("ARG VERSION=unknown", "ARG VERSION=unknown\nARG HF_TOKEN", "a secret"),
        ("COPY --chmod=755 docker/entrypoint.sh", "COPY --chmod=755 tests/conftest.py", "keeps tests/conftest.py out"),
        ("-o sweet -g sweet", "-o root -g root", "cannot write the hub's cache"),
        ('["itrex-sweet-entrypoint", "itrex-sweet"]', '["itrex-sweet"]', "does not run itrex-sweet"),
    ],
)
def test_each_problem_is_found(name, old, new, problem):
    text = read(name)
    assert old in text
    assert any(problem in found for found in problems(text.replace(old, new), IMAGES[name]))


def test_torch_in_the_runtime_image_is_found():
    text = read("Dockerfile").replace("COPY --from=build /opt", "COPY --from=build-train /opt")
    assert problems(text, IMAGES["Dockerfile"]) == ["extras in the wrong image"]
    text = read("Dockerfile") + "\nFROM base AS other\n"
    assert any("built by default" in found for found in problems(text, IMAGES["Dockerfile"]))


def test_the_ipex_image_differs_by_what_ipex_needs():
    train, ipex = (
        with_bases(stages(read("Dockerfile")), "train"),
        with_bases(stages(read("Dockerfile.ipex")), "runtime"),
    )
    for keyword in ("ENTRYPOINT", "HEALTHCHECK", "WORKDIR", "STOPSIGNAL"):
        assert train.of(keyword) == ipex.of(keyword), keyword
    assert train.of("USER")[-1] == ipex.of("USER")[-1]
    (settings,) = ipex.of("ENV")
    assert "LD_PRELOAD=/opt/itrex-sweet/lib/libiomp5.so:libtcmalloc_minimal.so.4" in settings
    assert "KMP_BLOCKTIME=1" in settings


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("setup.py", True),
        ("README.md", True),
        ("itrex_sweet/cli.py", True),
        ("itrex_sweet/runtime/backends/torch.py", True),
        ("requirements/default.txt", True),
        ("docker/entrypoint.sh", True),
        ("docker/README.md", False),
        ("tests/conftest.py", False),
        (".git/config", False),
        (".env", False),
        ("itrex_sweet/__pycache__/cli.cpython-311.pyc", False),
        ("model.safetensors", False),
    ],
)
def test_files_in_the_build_context(path, kept):
    assert enters_a_build(ROOT / path) is kept


# ---------------------------------------------------------------------------------------------------- entry point

needs_sh = pytest.mark.skipif(shutil.which("sh") is None or os.name != "posix", reason="no POSIX shell here")


@pytest.fixture()
def machine(tmp_path):
    """Returns a machine made of files below a folder, on which the entry point runs."""

    def write(path: str, content: str) -> None:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    class Machine:
        def cpus(self, allowed: str, siblings: dict[int, str] | None = None) -> "Machine":
            write("proc/self/status", f"Name:\tsh\nCpus_allowed:\tf\nCpus_allowed_list:\t{allowed}\n")
            for cpu, text in (siblings or {}).items():
                write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{text}\n")
            return self

        def version_2(self, limit: str) -> "Machine":
            write("sys/fs/cgroup/cpu.max", f"{limit}\n")
            return self

        def version_1(self, quota: int, period: int = 100_000, folder: str = "cpu") -> "Machine":
            write(f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us", f"{quota}\n")
            write(f"sys/fs/cgroup/{folder}/cpu.cfs_period_us", f"{period}\n")
            return self

        def settings(self, **environment: str) -> dict[str, str]:
            """Returns the environment that the entry point passes to its command."""
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_"))}
            kept.update(environment, ITREX_SWEET_ROOT=str(tmp_path))
            command = ["sh", str(ENTRYPOINT), "env"]
            finished = subprocess.run(command, capture_output=True, text=True, env=kept, timeout=60)
            problems = [line for line in finished.stderr.splitlines() if not line.startswith("ERROR: ld.so")]
            assert finished.returncode == 0 and not problems, finished.stderr
            return dict(line.split("=", 1) for line in finished.stdout.splitlines() if "=" in line)

        def threads(self, **environment: str) -> int:
            return int(self.settings(**environment)["OMP_NUM_THREADS"])

    return Machine()


@needs_sh
@pytest.mark.parametrize(
    ("allowed", "limit", "threads"),
    [
        ("0-7", "max 100000", 8),
        ("0-7", "400000 100000", 4),
        ("0-7", "250000 100000", 2),
        ("0-7", "50000 100000", 1),
        ("0-7", "100000 50000", 2),
        ("0-1", "1600000 100000", 2),
        ("3", "max 100000", 1),
        ("0-3,8,10-11", "max 100000", 7),
        ("0-7", "nonsense", 8),
        ("0-7", "100000 0", 8),
    ],
)
def test_threads_from_affinity_and_version_2(machine, allowed, limit, threads):
    assert machine.cpus(allowed).version_2(limit).threads() == threads


@needs_sh
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "threads"), [(-1, 8), (300_000, 3), (199_999, 1), (1_600_000, 8)])
def test_threads_from_version_1(machine, folder, quota, threads):
    assert machine.cpus("0-7").version_1(quota, folder=folder).threads() == threads


@needs_sh
def test_hyperthreads_count_as_one_core(machine):
    siblings = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}
    assert machine.cpus("0-7", siblings).threads() == 4
    assert machine.cpus("0,4").threads() == 1
    assert machine.cpus("0-7").version_2("300000 100000").threads() == 3


@needs_sh
def test_one_thread_without_these_files(machine):
    assert machine.threads() == 1


@needs_sh
def test_settings_of_the_user_are_kept(machine):
    machine.cpus("0-7").version_2("400000 100000")
    assert machine.threads(OMP_NUM_THREADS="6") == 6
    assert machine.threads(OMP_NUM_THREADS="") == 4


@needs_sh
def test_threads_are_bound_with_intel_openmp_and_no_quota(machine, tmp_path):
    intel = dict(LD_PRELOAD=str(tmp_path / "libiomp5.so"))  # not there: the loader says so, and goes on
    assert "KMP_AFFINITY" not in machine.cpus("0-7").settings()
    assert machine.settings(**intel)["KMP_AFFINITY"] == "granularity=fine,compact,1,0"
    assert machine.settings(**intel, KMP_AFFINITY="disabled")["KMP_AFFINITY"] == "disabled"
    assert "KMP_AFFINITY" not in machine.version_2("400000 100000").settings(**intel)


@needs_sh
def test_arguments_and_status_of_the_command(machine):
    script = 'printf "%s|" "$@"; exit 7'
    command = ["sh", str(ENTRYPOINT), "sh", "-c", script, "x", "a b", "", "*"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout) == (7, "a b||*|")


@needs_sh
def test_entrypoint_is_executable_and_posix():
    assert os.access(ENTRYPOINT, os.X_OK)
    for shell in filter(None, map(shutil.which, ("dash", "bash", "busybox"))):
        argv = [shell, "sh"] if shell.endswith("busybox") else [shell]
        finished = subprocess.run([*argv, "-n", str(ENTRYPOINT)], capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
