// Makes V8 compile generated functions, and prints a sum.
let sum = 0;
for (let i = 0; i < 101; i++) {
  const f = new Function("x", `let t = 0; for (let j = 0; j < 997; j++) t = (t + j * x + ${i}) % 1000003; return t;`);
  for (let k = 0; k < 23; k++) sum = (sum + f(k)) % 1000003;
}
console.log(sum);
