"""Tests of the package structure: allowed imports, owners of optional packages, and side effects of imports."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import itrex_sweet

PACKAGE = Path(itrex_sweet.__file__).resolve().parent

# Modules that both the training side and the run side import.
SHARED = {
    "arguments",
    "config",
    "defaults",
    "policy",
    "errors",
    "extras",
    "families",
    "artifact",
    "version",
    "tasks",
    "probabilities",
    "drift",
    "metrics",
    "association",
    "warning_once",
}
# package → packages it may import besides itself and `SHARED`
MAY_IMPORT = {
    "training": set(),
    "criteria": {"confidence_formulas"},
    "confidence_formulas": set(),
    "runtime": {"criteria", "confidence_formulas"},
    "tokenization": {"runtime"},
    "hub": set(),
    "supervision": set(),
    "classifier": {"runtime", "criteria", "hub", "tokenization"},
    "serving": {"runtime", "criteria", "tokenization", "classifier"},
    "modeling": {"runtime", "criteria", "hub", "tokenization", "classifier"},
    "evaluation": {"runtime", "criteria", "modeling", "hub", "tokenization"},
    "data": set(),
    "calibration": {"criteria", "evaluation", "modeling", "runtime", "data", "hub", "tokenization"},
    "quantization": {"runtime", "modeling", "evaluation", "calibration", "data", "supervision"},
    "export": {"runtime"},
    "acceleration": {
        *("training", "data", "hub", "runtime", "tokenization", "classifier"),
        *("modeling", "evaluation", "calibration", "quantization"),
    },
    "cluster": {"runtime", "classifier", "data", "hub", "tokenization"},
    "demo": {"training", "modeling", "evaluation", "criteria", "supervision"},
    "commands": {
        "acceleration",
        "training",
        "modeling",
        "classifier",
        "evaluation",
        "data",
        "runtime",
        "export",
        "hub",
        "demo",
        "criteria",
        "quantization",
        "calibration",
        "tokenization",
        "serving",
        "cluster",
    },
    "cli": {"commands"},
}
WITHOUT_TORCH = {
    *(
        "cluster",
        "cluster.folders",
        "classifier",
        "data",
        "hub",
        "tokenization",
        "runtime.backends.native",
        "runtime.machine",
        "runtime.executor",
        "runtime.runner",
    ),
    *("arguments", "config", "policy", "errors", "extras", "families", "version", "criteria", "cli"),
    *("tasks", "probabilities"),
    *("artifact", "supervision"),
    *(f"artifact.validation.{name}" for name in ("config", "settings", "tensors")),
    *(f"runtime.native.{name}" for name in ("cores", "handle", "interface", "library", "packing")),
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Returns the full names of imported modules, also inside functions, except in type-checking blocks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(map(id, ast.walk(node)))
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_allowed_imports(path):
    here = part(path)
    if here == "__init__":
        return
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("itrex_sweet.")}
    allowed = SHARED | {here} | MAY_IMPORT.get(here, set())
    if here in SHARED:
        allowed = SHARED
    assert ours <= allowed, f"{path.relative_to(PACKAGE)} may not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages_are_imported_by_their_owner(path):
    owners = {
        "matplotlib": "evaluation/plot.py",
        "peft": "training/",
        "onnx": "export/onnx.py",
        "onnxruntime": "export/onnx.py",
        "neural_compressor": "quantization/",
        "intel_extension_for_pytorch": "runtime/backends/ipex.py",
        "opentelemetry": "serving/tracing.py",
        "starlette": ("serving/", "cluster/serve.py"),
        "uvicorn": "serving/",
        "uvloop": "serving/",
        "orjson": "serving/",
        "grpc": "serving/",
        "google": "serving/",
        "openvino": ("runtime/dense/openvino.py", "export/openvino.py"),
        "ray": "cluster/",
        "pyspark": "cluster/spark.py",
    }
    relative = path.relative_to(PACKAGE).as_posix()
    for package, owner in owners.items():
        if any(name.split(".")[0] == package for name in imported(path)):
            assert relative.startswith(owner), f"{relative} imports {package}"


RUNNING = [path for path in modules() if part(path) in ("runtime", "export")]


@pytest.mark.parametrize("path", RUNNING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers_are_selected_in_the_plan_only(path):
    """Other code reaches layers through the encoder's segments and probes, because an exit may have a private layer."""
    picked = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value).rpartition(".")[2] in ("layers", "trunk")
        and ast.unparse(node.slice) != "0"
    ]
    assert not picked or path.name == "weights.py", picked


LOADERS = ("from_pretrained", "from_config")  # of transformers' classes
THEIRS = ("Auto", "PreTrained", "Pretrained")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_transformers_loads_no_remote_code(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value).rpartition(".")[2]
        if node.func.attr in LOADERS and owner.startswith(THEIRS):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("trust_remote_code") == "False", f"{path.relative_to(PACKAGE)}:{node.lineno}"
        assert node.func.attr != "load_remote_code" and not ast.unparse(node).startswith(("pickle.load", "torch.load"))


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_modules_that_do_not_import_torch(name):
    run(f"import itrex_sweet.{name}, sys; assert 'torch' not in sys.modules and 'transformers' not in sys.modules")


def test_import_has_no_side_effects():
    run(
        "import logging, os, sys; before = dict(os.environ), list(logging.root.handlers)\n"
        "import itrex_sweet; assert itrex_sweet.__version__\n"
        "assert (dict(os.environ), list(logging.root.handlers)) == before\n"
        "assert not {'torch', 'transformers', 'numpy', 'optimum'} & set(sys.modules)"
    )


def test_inference_imports_no_training_code():
    run(
        "import sys; from itrex_sweet import SweetModelForSequenceClassification\n"
        "import itrex_sweet.runtime.backends.torch, itrex_sweet.runtime.backends.cascade\n"
        "assert not [name for name in sys.modules if name.startswith('itrex_sweet.training')]\n"
        "assert 'transformers.trainer' not in sys.modules and 'datasets' not in sys.modules"
    )


def test_public_names():
    for name in itrex_sweet.__all__:
        assert getattr(itrex_sweet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        itrex_sweet.Nothing  # noqa: B018


def run(script: str) -> None:
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_test_modules_do_not_shadow_installed_packages():
    """Pytest puts the folders of tests on `sys.path`, so that a module there can take the place of a package."""
    packages = {*metadata.packages_distributions(), *sys.stdlib_module_names}
    tests = Path(__file__).resolve().parent
    names = {path.stem for path in tests.rglob("*.py")} - {"__init__", "__main__", "conftest"}
    assert names & packages == set()


def test_test_modules_have_names_of_their_own():
    """The folders of tests are no packages, so that pytest refuses to collect two modules of one name."""
    tests = Path(__file__).resolve().parent
    names = [path.name for path in tests.rglob("test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set()
