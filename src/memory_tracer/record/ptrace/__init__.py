"""The engine that needs no privilege: ptrace, with execute withheld from writable memory.

``abi`` and ``system`` speak to the kernel, ``machine`` decides (and knows neither), ``engine`` has both
do their work, ``records`` puts what was seen into the form of the kernel program's records.
"""
