"""Run a loop hot enough for PyPy's tracing compiler, and print a sum."""

total = 0
for number in range(2_000_003):
    total = (total * 3 + number) % 1000003
print(total)
