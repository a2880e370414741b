// Makes functions that V8 compiles and prints a result.
let sum = 0;
for (let number = 1; number <= 97; number++) {
  const body = `let s = ${number}; for (let i = 1; i <= n; i++) s = (s * 31 + i) % 65521; return s`;
  const compiled = new Function("n", body);
  for (let call = 0; call < 20; call++) sum = (sum + compiled(1000)) % 65521;
}
console.log(sum);
