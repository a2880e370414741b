<?php
// Makes functions that opcache compiles and prints a result. With "wait", says "ready" and waits for a line.
function squares(int $n): int { $s = 0; for ($i = 1; $i <= $n; $i++) { $s = ($s + $i * $i) % 65521; } return $s; }
function cubes(int $n): int { $s = 1; for ($i = 1; $i <= $n; $i++) { $s = ($s * 3 + $i ** 3) % 65521; } return $s; }
function halves(int $n): int { $s = 0; while ($n > 0) { $s = ($s * 7 + $n) % 65521; $n = intdiv($n, 2); } return $s; }
function texts(int $n): int { $s = 0; for ($i = 0; $i < $n; $i++) { $s = ($s * 31 + strlen("x$i")) % 65521; } return $s; }

$sum = 0;
foreach (["squares", "cubes", "halves", "texts"] as $function) {
    for ($n = 1; $n <= 400; $n++) {
        $sum = ($sum + $function($n)) % 65521;
    }
}
print("$sum\n");

if (($argv[1] ?? "") === "wait") {
    print("ready\n");
    fgets(STDIN);
}
