"""Makes functions that PyPy compiles and prints a result."""

total = 0
for number in range(97):
    body = f"def function(n):\n s = {number}\n for i in range(n):\n  s = (s * 31 + i) % 65521\n return s\n"
    scope: dict = {}
    exec(body, scope)
    total = (total + scope["function"](3000)) % 65521
print(total)
