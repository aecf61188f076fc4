"""The number of threads of a team where other threads use the processors."""

from tests.native.programs import compile_program, needs_compiler, run


@needs_compiler
def test_contested_processors_reduce_a_team(tmp_path):
    finished = run(compile_program("backoff.cpp", tmp_path / "backoff"))
    assert finished.returncode == 0, finished.stdout
