// Many small functions, each hot enough to be compiled. functions.js FUNCTIONS
let sum = 0;
for (let number = 1; number <= Number(process.argv[2]); number++) {
  const compiled = new Function("n", `let s = ${number}; for (let i = 1; i <= n; i++) s = (s * 31 + i) % 65521; return s`);
  for (let call = 0; call < 20; call++) sum = (sum + compiled(1000)) % 65521;
}
console.log(sum);
