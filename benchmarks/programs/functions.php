<?php
// Many small functions, each hot enough to be compiled. functions.php FUNCTIONS DIRECTORY
// They come in files, as opcache compiles only what it has read from one.
$sum = 0;
for ($number = 1; $number <= (int) $argv[1]; $number++) {
    $file = "$argv[2]/function.php";
    file_put_contents($file, "<?php return function (\$n) { \$s = $number; "
        . 'for ($i = 1; $i <= $n; $i++) { $s = ($s * 31 + $i) % 65521; } return $s; };');
    opcache_invalidate($file, true);
    $sum = ($sum + (include $file)(200)) % 65521;
}
print("$sum\n");
