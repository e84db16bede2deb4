"""Runs the adapter in several versions of transformers on several cases, has the dumps judged, and prints a Markdown table.

    go build -o llavaref ./cmd/llavaref
    python3 tools/adapters/transformers/matrix.py --llavaref ./llavaref

Needs uv or python3.11, and makes one environment a version from requirements-VERSION.txt, in $LLAVAREF_ADAPTERS (5 GB each, once).
Exit code 0: every run ended as --expect says, conformant where it says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("LLAVAREF_ADAPTERS", Path.home() / ".cache" / "llavaref-adapters"))
CASES = ("tiny-1.6/photo-1x3", "tiny-1.6/photo-2x2-rows", "tiny-1.6/two-images", "tiny-1.6/text-small-norms", "tiny-1.5/photo")


def environment(version: str) -> Path:
    """The python of a version's environment."""
    folder, lock = HOME / version, HERE / f"requirements-{version}.txt"
    if not (folder / "bin" / "python").exists():
        if shutil.which("uv"):
            subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", folder], check=True)
            subprocess.run(["uv", "pip", "install", "--quiet", "--python", folder / "bin" / "python", "-r", lock], check=True)
        else:
            subprocess.run(["python3.11", "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", lock], check=True)
    return folder / "bin" / "python"


def export(llavaref: str, cases: list[str], dtype: str, root: Path) -> dict[str, list[Path]]:
    """Case folders by set, their checkpoints in the dtype."""
    short = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[dtype]
    out: dict[str, list[Path]] = {}
    for case in cases:
        model, name = case.split("/")
        folder = root / dtype / model / name
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([llavaref, "case", "export", "--model", model, "--case", name, "--dtype", short, "--out", folder], check=True, stdout=subprocess.DEVNULL)
        out.setdefault(model, []).append(folder)
    return out


def judge(llavaref: str, folder: Path, model: str, name: str) -> dict:
    run = subprocess.run([llavaref, "check", "--engine", f"dir:{folder}", "--model", model, "--case", name, "--format", "json"], capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise SystemExit(f"{folder}: {run.stderr}")
    return json.loads(run.stdout)


def worst(result: dict, view: str) -> float:
    return max((c["ratio"] for s in result["sets"] for k in s["cases"] for g in k["stages"] for n in g["nodes"] for c in n["checks"] if c["view"] == view and c.get("ratio") is not None), default=0.0)


def row(args, version: str, attention: str, dtype: str, root: Path) -> bool:
    """Runs one line of the table; says whether it ended as expected."""
    python, results = environment(version), []
    for model, folders in export(args.llavaref, args.case, dtype, root).items():
        out = root / "dumps"
        command = [python, HERE / "adapter.py", "--model", folders[0] / "model", "--dtype", dtype, "--attn", attention, "--out", out]
        for folder in folders:
            command += ["--case", folder]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"transformers {version}: {run.stderr}")
        for folder in folders:
            results.append(judge(args.llavaref, out if len(folders) == 1 else out / folder.name, model, folder.name))
        shutil.rmtree(out)
    passed = sum(r["status"] == "pass" for r in results)
    checked, expected = (sum(r["coverage"][k] for r in results) for k in ("checked", "expected"))
    first = next((c["first"]["node"] for r in results for s in r["sets"] for c in s["cases"] if c.get("first")), "")
    engine = results[0]["engine"]
    cells = [engine["version"], attention, dtype, f"{passed} of {len(results)}", f"{checked} of {expected}", f"{max(worst(r, 'accumulated') for r in results):.2g}", f"{max(worst(r, 'local') for r in results):.2g}", first]
    print("| " + " | ".join(cells) + " |", flush=True)
    return (passed == len(results)) != (version in args.fails)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llavaref", required=True, help="the command")
    parser.add_argument("--version", nargs="+", default=["4.51", "4.57", "5.23"], help="requirements-VERSION.txt has to be there")
    parser.add_argument("--attn", nargs="+", default=["eager", "sdpa"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--case", nargs="+", default=list(CASES), help="SET/CASE")
    parser.add_argument("--fails", nargs="+", default=["4.42"], help="versions that must not be conformant")
    args = parser.parse_args()
    args.llavaref = str(Path(args.llavaref).resolve())
    print("| transformers | attention | dtype | cases conformant | nodes checked | worst drift | worst local | first diverging node |")
    print("|---|---|---|---|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as root:
        for version in args.version:
            for attention in args.attn:
                for dtype in args.dtype:
                    good = row(args, version, attention, dtype, Path(root)) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
