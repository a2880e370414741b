"""Rules: where they come from, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError, require

#: The starter rules that come with the package.
BUNDLED = Path(__file__).parent / "rules"
_SUFFIXES = (".yar", ".yara")


def yara() -> Any:
    """Return the module ``yara_x``. Raises ``MissingExtraError`` where it is not installed."""
    return require("yara_x", "rules", "scan")


def compile_rules(paths: Sequence[Path]) -> Any:
    """Return the compiled rules of files, and of directories of ``*.yar`` and ``*.yara``.

    Raises ``UsageError`` with file, line and column of the first mistake; the others are its detail.
    """
    engine = yara()
    compiler = engine.Compiler()
    for path in _files(paths):
        compiler.new_namespace(path.stem)
        compiler.add_include_dir(str(path.parent))
        try:
            compiler.add_source(path.read_text(encoding="utf-8"), origin=str(path))
        except engine.CompileError:
            continue  # the compiler keeps it, and goes on with the next file
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is no text in UTF-8 (byte {error.start})") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    found = compiler.errors()
    if found:
        first = found[0]
        label: dict[str, Any] = next(iter(first.get("labels", ())), {})
        place = f"{label.get('code_origin')}:{first.get('line')}:{first.get('column')}"
        more = f" (and {len(found) - 1} more; --verbose shows them)" if len(found) > 1 else ""
        raise UsageError(f"{place}: {first['title']}: {label.get('text', '')}{more}", detail=_listed(found))
    return compiler.build()


def _listed(found: Sequence[dict[str, Any]]) -> str:
    return "\n".join(str(mistake["text"]) for mistake in found)


def _files(paths: Sequence[Path]) -> Sequence[Path]:
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        if not inside:
            raise UsageError(f"{path} holds no *.yar or *.yara")
        files.extend(inside)
    return files
