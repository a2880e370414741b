"""Small functions compiled by Numba, that is by LLVM: ``functions_numba.py FUNCTIONS DUMP``.

Writes the address and the machine code of each to DUMP, relocated, as it is right after it was compiled.
"""

import ctypes
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# Numba is no dependency of this project, so checkers of types may not find it.
numba = import_module("numba")
binding = import_module("llvmlite.binding")

TEXT = """\
def compiled(n):
    s = {}
    for i in range(n):
        s = (s * 31 + i) % 65521
    return s
"""


def machine_code(library: Any) -> str:
    """Return address and bytes of what a library of Numba's has in its section of code."""
    sections = binding.ObjectFileRef.from_data(library._get_compiled_object()).sections()
    size = sum(section.size() for section in sections if section.is_text())
    # The section begins with the function that stands first in it.
    address = min(
        library.get_pointer_to_function(function.name) for function in library.get_defined_functions()
    )
    return f"{address:x} {ctypes.string_at(address, size).hex()}"


total, lines = 0, []
for number in range(int(sys.argv[1])):
    namespace: dict[str, Any] = {}
    exec(TEXT.format(number), namespace)
    compiled = numba.njit(namespace["compiled"])
    total = (total + compiled(1000)) % 65521
    lines += [machine_code(overload.library) for overload in compiled.overloads.values()]
Path(sys.argv[2]).write_text("\n".join(lines) + "\n")
print(total)
