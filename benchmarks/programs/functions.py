"""Many small functions, each hot enough to be compiled by PyPy: ``functions.py FUNCTIONS``."""

import sys
from typing import Any

TEXT = """\
def compiled(n):
    s = {}
    for i in range(n):
        s = (s * 31 + i) % 65521
    return s
"""

total = 0
for number in range(int(sys.argv[1])):
    namespace: dict[str, Any] = {}
    exec(TEXT.format(number), namespace)
    total = (total + namespace["compiled"](5000)) % 65521
print(total)
