"""The version of memory-tracer; the build takes it from here.

A constant, because asking the installed package's metadata imports an e-mail parser first.
"""

VERSION = "0.1.0"
