"""Checks of the disk before any job starts."""

from pathlib import Path
from typing import Any

import pytest

from decaymerge import config
from decaymerge.config import Config
from decaymerge.errors import UserError
from decaymerge.workflow import preflight

RESOURCES = Path("resources")


def config_of(**parts: Any) -> Config:
    return config.parse(parts)


def with_tasks(tasks: dict[str, Any]) -> Config:
    training = {"step_size": 1, "steps": 1, "weight_decay": [0]}
    experiment = {"tasks": tasks, "network": {"hidden": [3]}, "training": training, "seeds": 1}
    return config_of(experiments={"mine": experiment})


def with_model(**model: Any) -> Config:
    return config_of(scan={"models": {"mine": model}})


FILE = {"dataset": "file", "path": "data.npz", "dim": 2, "samples": 4}
FUNCTION = {"dataset": "function", "function": "mine.py:make", "dim": 2, "samples": 4}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal_of(settings: Config, resources: Path = RESOURCES) -> str:
    with pytest.raises(UserError) as refusal:
        preflight.check(settings, resources)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(("task", "file"), [(FILE, "data.npz"), (FUNCTION, "mine.py")])
def test_a_missing_file_of_the_user(task: dict[str, Any], file: str, tmp_path: Path) -> None:
    settings = with_tasks({"a": FILE | {"path": "there.npz"}, "b": task})
    (tmp_path / "there.npz").touch()
    message = refusal_of(settings)
    assert message.startswith(f"experiments.mine: task b needs {file}, and there is no such file")
    assert message.endswith("a path starts from the configuration that names it")
    (tmp_path / file).touch()
    preflight.check(settings, RESOURCES)


def test_an_absolute_path_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.npz").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    preflight.check(with_tasks(FILE | {"path": str(tmp_path / "data.npz")}), RESOURCES)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "data.npz").mkdir()
    assert "needs data.npz" in refusal_of(with_tasks(FILE))


def test_a_missing_folder_of_a_model(tmp_path: Path) -> None:
    settings = with_model(source="path:models/bert", path="part")
    message = refusal_of(settings)
    assert message.startswith("scan.models.mine.source = path:models/bert: models/bert/part does not exist")
    (tmp_path / "models/bert/part").mkdir(parents=True)
    preflight.check(settings, RESOURCES)


def test_what_is_fetched_need_not_be_there() -> None:
    preflight.check(with_model(source="hub:org/name"), RESOURCES)
    preflight.check(with_tasks({"dataset": "fashion_mnist", "samples": 4}), RESOURCES)


def test_braces_would_be_taken_for_wildcards(tmp_path: Path) -> None:
    (tmp_path / "{x}").mkdir()
    assert "has braces" in refusal_of(with_model(source="path:{x}"))
    preflight.check(with_model(source="hub:org/name"), RESOURCES)
    message = refusal_of(with_model(source="hub:org/name"), tmp_path / "{x}")
    assert message.startswith(f"DECAYMERGE_CACHE = {tmp_path}/{{x}}: a path with braces")


@pytest.mark.parametrize("path", ["{x}.npz", "x}.npz"])
def test_braces_in_a_path_of_the_user_are_refused_with_the_configuration(path: str) -> None:
    with pytest.raises(UserError, match=r"tasks\.path = .* String should match"):
        with_tasks(FILE | {"path": path})
