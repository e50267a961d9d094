"""The errors are the tree that their module draws, and each is a sentence."""

import re

import pytest

from taskd import errors
from taskd.errors import (
    ParameterInvalid,
    ParamsInvalid,
    PluginNotFound,
    ProcessFailed,
    Stopping,
    TaskdError,
    TaskNotFound,
    TooManyTasks,
)


def drawn() -> dict[str, str | None]:
    """Each name in the docstring's picture, with the name above it."""
    above: dict[int, str] = {}
    tree: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        named = re.match(r" {4}((?:│ {3}| {4})*(?:[├└]── )?)([A-Z]\w+)(?: {2,}| [a-z]|$)", line)
        if named:
            depth, name = len(named[1]) // 4, named[2]
            above[depth] = name
            tree[name] = above.get(depth - 1)
    return tree


def real() -> dict[str, str | None]:
    """The same from the classes."""
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    return {each.__name__: None if each is TaskdError else each.__bases__[0].__name__ for each in classes}


def test_the_tree_that_is_drawn_is_the_tree_there_is() -> None:
    """Every error is in the picture, below the one that it is a kind of."""
    assert drawn() == real()


def test_every_error_is_explained_in_the_picture() -> None:
    """Each line below the root says when it is raised, unless others hang below it."""
    lines = [line for line in (errors.__doc__ or "").splitlines() if "── " in line]
    unexplained = [line.split("── ")[1] for line in lines if not re.search(r"── \w+ +\S", line)]
    assert unexplained == ["StoreError"]


def test_one_except_catches_all() -> None:
    """The root is an Exception, and no error is a BaseException that would pass by."""
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(issubclass(each, TaskdError) for each in classes)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ParameterInvalid("limit", "0", "a whole number from 1"), "limit='0': expected a whole number from 1."),
        (PluginNotFound("gti", ["backup", "git"]), "There is no plugin 'gti'; there are: backup, git."),
        (PluginNotFound("git", []), "There is no plugin 'git'; there are: none."),
        (TaskNotFound("x"), "There is no task 'x'; taskd tasks (GET /api/tasks) lists those there are."),
        (TooManyTasks(1_000, 5), "1,000 tasks are waiting to run, which is the limit; try again later."),
        (Stopping(), "taskd is stopping and takes no new tasks; try again when it is back."),
    ],
)
def test_an_error_is_a_sentence_for_the_person_who_meets_it(error: TaskdError, told: str) -> None:
    """It says what was wrong and what was expected or can be done."""
    assert str(error) == told


def test_every_fault_of_params_is_named_with_its_path() -> None:
    """One answer tells all there is to put right."""
    error = ParamsInvalid("git", [{"path": "params.a", "message": "missing"}, {"path": "params.b.0", "message": "bad"}])
    assert str(error) == "The params are not what plugin 'git' expects: params.a: missing; params.b.0: bad."
    assert len(error.faults) == 2


def test_a_failed_process_says_how_it_ended() -> None:
    """Exit code and signal are there for a plugin to look at."""
    error = ProcessFailed("git ended with 128", returncode=128, signal=None)
    assert (str(error), error.returncode, error.signal) == ("git ended with 128", 128, None)
