"""The size gate: what is too long is named, and a reason that nobody needs any more is named too."""

from pathlib import Path

from scripts import check_sizes


def write(root: Path, text: str) -> None:
    (root / "src").mkdir()
    (root / "src" / "a.py").write_text(text)


def function(lines: int) -> str:
    return "class A:\n    def f(self):\n" + '        """One line\n        more."""\n' + "        x = 1\n" * (lines - 1)


def test_a_function_of_sixty_lines_passes(tmp_path: Path) -> None:
    write(tmp_path, function(60))
    assert check_sizes.check(tmp_path, {}) == []


def test_a_longer_function_is_named_with_its_class(tmp_path: Path) -> None:
    write(tmp_path, function(61))
    (problem,) = check_sizes.check(tmp_path, {})
    assert problem.startswith("src/a.py:2: A.f has 61 lines")


def test_a_reason_excuses_a_function(tmp_path: Path) -> None:
    write(tmp_path, function(61))
    assert check_sizes.check(tmp_path, {"src/a.py:A.f": "a table"}) == []


def test_an_empty_reason_excuses_nothing(tmp_path: Path) -> None:
    write(tmp_path, function(61))
    assert len(check_sizes.check(tmp_path, {"src/a.py:A.f": " "})) == 1


def test_an_idle_reason_is_named(tmp_path: Path) -> None:
    write(tmp_path, function(60))
    assert check_sizes.check(tmp_path, {"src/a.py:A.f": "a table"}) == [
        "scripts/long_functions.toml: src/a.py:A.f is no longer needed"
    ]


def test_a_file_of_five_hundred_lines_is_too_long(tmp_path: Path) -> None:
    write(tmp_path, "x = 1\n" * 500)
    (problem,) = check_sizes.check(tmp_path, {})
    assert "500 lines" in problem
