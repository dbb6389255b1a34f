"""Where torch is not installed, the test files that are about it are left out, and the run says which."""

from __future__ import annotations

import importlib.util
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_IMPORTS_TORCH = re.compile(r"^(?:import|from) torch\b", re.MULTILINE)

pytest_plugins = ["stores", "nginx"]

collect_ignore: list[str] = []
if importlib.util.find_spec("torch") is None:
    collect_ignore += [str(HERE / "programs")]  # all of them train, or look as if they did
    collect_ignore += [
        str(path) for path in sorted(HERE.glob("test_*.py")) if _IMPORTS_TORCH.search(path.read_text(encoding="utf-8"))
    ]


def pytest_report_header() -> list[str]:
    """One line with the files that are left out."""
    names = ", ".join(str(Path(path).relative_to(HERE)) for path in collect_ignore)
    return [f"without torch, left out: {names}"] if names else []


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes are cached in a folder of the tests, not in that of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _impatient() -> Iterator[None]:
    """Remote reads of the tests, and of processes that they start, give up soon; what is tested is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WDS_STORAGE_OPTIONS", '{"attempts": 3, "backoff": 0.01, "deadline": 60}')
        yield


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Programs that tests start can be interrupted, also where the run is a job in the background, which cannot."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
