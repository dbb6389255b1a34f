"""The published packages, each in an environment of its own -> tests/names.json: their names, kinds and signatures.

    python scripts/dump_names.py

Facts only, as `inspect` shows them: no code and no docstrings. One row is
[version, module, name, kind, signature], signature being null for what is not called; in a class
each public method written there has a row `Class.method`. A default that is an object of the
package is written as its name. Needs the network; run it only to add a version.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import json
import pkgutil
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSIONS = ["0.2.100", "1.0.2"]
NEEDED = {
    "webdataset": [
        "numpy",
        "pyyaml",
        "braceexpand",
        "pyzmq",
        "typer",
    ],  # typer and zmq: two modules import them at once
    "wids": ["numpy", "torch"],
}
"""What the modules of each package import at once."""
TARGET = Path(__file__).parent.parent / "tests" / "names.json"

Row = list[Any]


def kind_of(value: Any) -> str:
    """class, module, function, stage (a curried one), or data."""
    if inspect.isclass(value):
        return "class"
    if inspect.ismodule(value):
        return "module"
    if type(value).__name__ == "RestCurried":
        return "stage"
    return "function" if inspect.isfunction(value) else "data"


def default_of(value: Any) -> str:
    """A default as text that does not depend on the process: numbers and texts as they are, others by name."""
    if value is sys.stderr:
        return "<stderr>"
    if inspect.isfunction(value) or inspect.isclass(value) or inspect.ismodule(value):
        return f"<{value.__name__}>"
    if isinstance(value, (list, tuple, dict, set)) and value:
        return f"<{type(value).__name__}>"
    text = repr(value)
    return f"<{type(value).__name__}>" if " at 0x" in text else text


def signature_of(value: Any) -> list[list[str]] | None:
    """[name, kind, default] of each parameter, without the default where there is none; null where nothing is known."""
    if type(value).__name__ == "RestCurried":
        value = value.f
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        [p.name, p.kind.name, *([] if p.default is inspect.Parameter.empty else [default_of(p.default)])]
        for p in parameters
    ]


def is_ours(value: Any, module: str) -> bool:
    """Whether a name is the package's: not a module, class or function that it imports from elsewhere."""
    if inspect.ismodule(value):
        return value.__name__.split(".")[0] in NEEDED
    home = getattr(value, "__module__", None)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.isbuiltin(value):
        return isinstance(home, str) and home.split(".")[0] in NEEDED
    if isinstance(home, str) and home.split(".")[0] in ("typing", "collections", "__future__"):
        return False
    return not isinstance(value, types.GenericAlias)


def rows_of(version: str, module: str) -> Iterator[Row]:
    """The rows of one module."""
    for name, value in sorted(vars(importlib.import_module(module)).items()):
        if (name.startswith("__") and name != "__version__") or not is_ours(value, module):
            continue
        kind = kind_of(value)
        signature = None if kind in ("module", "data") else signature_of(value)
        yield [version, module, name, kind, signature]
        if kind == "class" and value.__module__ == module:
            for method, f in sorted(vars(value).items()):
                f = getattr(f, "__func__", f)
                if not method.startswith("_") and inspect.isfunction(f):
                    yield [version, module, f"{name}.{method}", "method", signature_of(f)]


def rows_of_package(name: str, version: str) -> list[Row]:
    """The rows of all modules of a package in this very environment, none where it is not there."""
    if importlib.util.find_spec(name) is None:
        return []  # 1.0.2 has no wids
    package = importlib.import_module(name)
    found = list(rows_of(version, name))
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__, name + ".")):
        try:
            found += rows_of(version, module)
            found.append([version, module, "", "module", None])
        except Exception as exn:  # a published module that cannot even be imported
            found.append([version, module, "", f"not importable: {exn}", None])
    return found


def installed(package: str, version: str, folder: str) -> str:
    """The interpreter of a new environment with this version."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    wanted = [f"webdataset=={version}", *NEEDED[package]]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def main() -> None:
    """Write tests/names.json; `--here PACKAGE VERSION` prints the rows of this environment instead."""
    if sys.argv[1:2] == ["--here"]:
        warnings.simplefilter("ignore")
        sys.stdout.write(json.dumps(rows_of_package(*sys.argv[2:])))
        return
    rows: list[Row] = []
    for package, version in itertools.product(NEEDED, VERSIONS):
        with tempfile.TemporaryDirectory() as folder:
            python = installed(package, version, folder)
            command = [python, str(Path(__file__).resolve()), "--here", package, version]
            rows += json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=folder).stdout)
    lines = ",\n".join(json.dumps(row) for row in rows)
    TARGET.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
