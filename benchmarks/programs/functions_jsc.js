// functions.js for JavaScriptCore's shell: functions_jsc.js -- FUNCTIONS
let sum = 0;
for (let number = 1; number <= Number(arguments[0]); number++) {
  const compiled = new Function("n", `let s = ${number}; for (let i = 1; i <= n; i++) s = (s * 31 + i) % 65521; return s`);
  for (let call = 0; call < 20; call++) sum = (sum + compiled(1000)) % 65521;
}
print(sum);
