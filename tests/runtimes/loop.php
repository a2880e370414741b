<?php
// Calls generated functions often enough for the JIT; prints a sum, and the bytes of code on stderr.
$sum = 0;
for ($i = 0; $i < 101; $i++) {
    eval("function f$i(\$x) { \$t = 0; for (\$j = 0; \$j < 53; \$j++) \$t += \$j * \$x + $i; return \$t; }");
    for ($k = 0; $k < 11; $k++) {
        $sum += ("f$i")($k);
    }
}
echo $sum, "\n";
$jit = opcache_get_status()["jit"];
fwrite(STDERR, $jit["buffer_size"] - $jit["buffer_free"] . "\n");
