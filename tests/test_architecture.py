"""docs/architecture.md cannot go stale: its map is made from the modules' own first lines.

`python tests/test_architecture.py` writes the map anew.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
MAP = re.compile(r"(?<=<!-- map -->\n).*(?=<!-- end of map -->)", re.DOTALL)


def package_map() -> str:
    """List each module with the first line of its docstring, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = {
        contract["containers"][0]: [
            name for layer in contract["layers"] for name in layer.split(" | ")
        ]
        for contract in contracts["tool"]["importlinter"]["contracts"]
    }
    lines = []
    for name in layers["xception_cli"]:
        package = ROOT / "xception_cli" / name
        if not package.is_dir():
            lines.append(f"- `{name}.py`: {first_line(package.with_suffix('.py'))}")
            continue
        lines.append(f"- **`{name}/`**: {first_line(package / '__init__.py')}")
        modules = [package / f"{module}.py" for module in layers[f"xception_cli.{name}"]]
        lines += [f"  - `{name}/{module.name}`: {first_line(module)}" for module in modules]
    return "\n".join(lines) + "\n"


def first_line(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring, module
    return docstring.splitlines()[0]


def test_the_map_is_made_from_the_modules_and_names_every_one() -> None:
    shown = MAP.search(PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == package_map(), f"write it anew: python {Path(__file__).relative_to(ROOT)}"
    modules = {
        path.relative_to(ROOT / "xception_cli") for path in ROOT.glob("xception_cli/**/*.py")
    }
    named = {Path(name) for name in re.findall(r"`([\w/]+\.py)`", shown[0])}
    assert named == {path for path in modules if path.name != "__init__.py"}


if __name__ == "__main__":
    written = MAP.sub(lambda _: package_map(), PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(written, encoding="utf-8")
