"""Tests the language of comments, docstrings, test names and pages.

No comment or docstring begins with a question word, since its first line says what the code does. The docstring of a
function begins with a verb in the third person ("Returns"). Dated words are not used at all. The name of a test begins
with neither a question word nor a conjunction.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "runs"  # environments and models that benchmarks make
FOLDERS = ("itrex_sweet", "tests", "benchmarks", "examples")
QUESTION = re.compile(r"(what|how|whether|where|who)\b", re.IGNORECASE)
DATED = re.compile(
    r"\b(whoever|whomever|nobody|everyone|everybody|anew|wherein|thereof|hitherto|let go|promise[sd]?|boldest)\b",
    re.IGNORECASE,
)
VERB = re.compile(r"[A-Z][a-z]+(?:-[a-z]+)?s\b")
# Plural nouns that a docstring of a function might begin with.
NOUNS = {
    *("Arguments", "Columns", "Exits", "Facts", "Files", "Labels", "Layers", "Names", "Outputs", "Paths"),
    *("Rows", "Scores", "Seconds", "Segments", "Settings", "Texts", "Tokens", "Values", "Versions", "Weights", "Words"),
    *("Class", "This"),
}
TEST_NAME = re.compile(r"^\s*def (test_(?:what|how|whether|where|who|nor|so|neither)_\w*)", re.MULTILINE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
CPP_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def python_files() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    files = [path for path in files if RUNS not in path.parents]
    return sorted([*files, *ROOT.glob("*.py")])


def cpp_files() -> list[Path]:
    return sorted(path for path in (ROOT / "itrex_sweet").rglob("*") if path.suffix in (".h", ".cc", ".cpp"))


def markdown_files() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of each docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def python_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of the first line of each comment; a comment may continue on the following lines."""
    last = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, column = token.start
        if last != (line - 1, column):
            yield line, token.string.lstrip("#! ")
        last = (line, column)


def cpp_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of the first line of each comment; a comment may continue on the following lines."""
    last = None
    for match in CPP_TOKEN.finditer(source):
        if match[0][0] != "/":
            continue  # a string or character
        line = source.count("\n", 0, match.start()) + 1
        column = match.start() - source.rfind("\n", 0, match.start())
        if match[0].startswith("/*") or last != (line - 1, column):
            yield line, match[0].lstrip("/*!< \n")
        last = (line, column)


def dated_words(source: str) -> list[str]:
    """Returns the dated words in docstrings and comments."""
    comments = (
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    )
    return [f"line {line}: {word}" for line, text in (*docstrings(source), *comments) for word in DATED.findall(text)]


def noun_phrases(source: str) -> list[str]:
    """Returns the docstrings of functions that do not begin with a verb, except tests and properties."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("test_"):
            continue
        text = ast.get_docstring(node)
        if text is None or any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        if not VERB.match(text) or text.split()[0].strip(",.:;") in NOUNS:
            found.append(f"line {node.body[0].lineno}: {text.splitlines()[0]}")
    return found


def questions(texts: Iterator[tuple[int, str]]) -> list[str]:
    return [f"line {line}: {text.splitlines()[0]}" for line, text in texts if text and QUESTION.match(text)]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_python(path):
    source = path.read_text(encoding="utf-8")
    assert questions(docstrings(source)) + questions(python_comments(source)) == []
    assert dated_words(source) + TEST_NAME.findall(source) + noun_phrases(source) == []


@pytest.mark.parametrize("path", cpp_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_cpp(path):
    assert questions(cpp_comments(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_markdown(path):
    assert DATED.findall(path.read_text(encoding="utf-8")) == []


def test_detection():
    python = (
        '"""What it does."""\n\nx = 1  # where it is\n# The value\n# where it continues.\n# Another.\ny = "# what"\n'
    )
    assert questions(docstrings(python)) == ["line 1: What it does."]
    assert questions(python_comments(python)) == ["line 3: where it is"]
    assert dated_words('"""Adds a row.\n\nIt is read anew.\n"""\n# Nobody reads it.\nx = "anew"\n') == [
        "line 1: anew",
        "line 5: Nobody",
    ]
    assert TEST_NAME.findall("def test_nor_is_this(): ...\ndef test_normal(): ...") == ["test_nor_is_this"]
    functions = 'def f():\n    """The rows."""\ndef g():\n    """Rows of a batch."""\ndef h():\n    """Reads."""\n'
    assert noun_phrases(functions) == ["line 2: The rows.", "line 4: Rows of a batch."]
    cpp = 'int a;  // How large.\n// The rows,\n// who continue.\n/* Whether\n it is. */ char b[] = "// what";\n'
    assert questions(cpp_comments(cpp)) == ["line 1: How large.", "line 4: Whether"]
