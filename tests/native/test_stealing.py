"""Jobs whose threads steal work of each other."""

from tests.native.programs import compile_program, needs_compiler, run


@needs_compiler
def test_every_part_is_run_once(tmp_path):
    finished = run(compile_program("stealing.cpp", tmp_path / "stealing"))
    assert finished.returncode == 0, finished.stdout
