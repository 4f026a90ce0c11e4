"""`python tests/notebook.py` writes the outputs into docs/notebook.ipynb, and docs/notebook.md.

It runs the cells as Jupyter does, but needs no Jupyter, in a few minutes. `python
tests/notebook.py SIDE FILE` runs them on images of SIDE pixels and writes only the notebook FILE.
A cell whose outputs depend on the machine or on SIDE has the tag `varies`.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOK, PAGE = DOCS / "notebook.ipynb", DOCS / "notebook.md"
IMAGE = "images/notebook.png"  # of the one cell that shows an image

Cell = dict[str, Any]


def read_cells(file: Path = NOTEBOOK) -> list[Cell]:
    """Return the cells of a notebook."""
    return list(json.loads(file.read_text(encoding="utf-8"))["cells"])


def run_cells(cells: list[Cell], side: str = "299") -> None:
    """Run the code in order and keep the outputs, in the format of Jupyter."""
    names: dict[str, Any] = {"__name__": "__main__"}
    code = (cell for cell in cells if cell["cell_type"] == "code")
    for number, cell in enumerate(code, start=1):
        source = "".join(cell["source"]).replace("SIDE = 299", f"SIDE = {side}")
        printed, value = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            *body, last = ast.parse(source).body
            if not isinstance(last, ast.Expr):
                body.append(last)
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        cell |= {"execution_count": number, "outputs": []}
        if text := printed.getvalue().rstrip("\n"):
            lines = (text + "\n").splitlines(keepends=True)
            cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": lines})
        if value is not None:  # the last expression of the cell; ours are images
            png = base64.b64encode(value._repr_png_()).decode()
            data = {"image/png": png, "text/plain": ["<PIL.Image.Image>"]}
            cell["outputs"].append(
                {"data": data, "execution_count": number, "metadata": {}}
                | {"output_type": "execute_result"}
            )


def images(cells: list[Cell]) -> list[bytes]:
    """Return the images among the outputs, as PNG."""
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    return [base64.b64decode(x["data"]["image/png"]) for x in outputs if "data" in x]


def page(cells: list[Cell]) -> str:
    """Return the notebook as Markdown: text, code and outputs."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if "data" in output:
                parts.append(f"![The output of the cell]({IMAGE})")
            else:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    title, *others = parts[0].partition("\n")
    note = "This page is the notebook [docs/notebook.ipynb](notebook.ipynb) with its outputs."
    return "\n\n".join([f"{title}\n\n{note}{''.join(others)}", *parts[1:]]) + "\n"


def main(side: str = "299", file: str = str(NOTEBOOK)) -> None:
    """Run the notebook and write it with its outputs; the page too, if it is the one of docs/."""
    target, book = Path(file).resolve(), json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    run_cells(book["cells"], side)
    written = json.dumps(book, indent=1, ensure_ascii=False) + "\n"
    target.write_text(written, encoding="utf-8")
    if target == NOTEBOOK:
        (image,) = images(book["cells"])
        (DOCS / IMAGE).write_bytes(image)
        PAGE.write_text(page(book["cells"]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
