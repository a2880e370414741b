<?php
// Appended to a program by auto_append_file: writes at its end what the JIT's memory, which is shared and
// executable, holds, page by page, to the file that the variable DUMP names. Pages of one byte repeated are
// not used.
$out = fopen(getenv("DUMP"), "w");
$memory = fopen("/proc/self/mem", "r");
stream_set_read_buffer($memory, 0);
foreach (file("/proc/self/maps") as $mapping) {
    // No regular expressions here: PHP compiles those, too.
    if (!str_contains($mapping, "xs ") || !str_contains($mapping, "/dev/zero")) {
        continue;
    }
    [$address, $end] = array_map("hexdec", explode("-", strtok($mapping, " ")));
    for (fseek($memory, $address); $address < $end; $address += 4096) {
        $page = fread($memory, 4096);
        if ($page !== str_repeat($page[0], 4096)) {
            fprintf($out, "%x %s\n", $address, bin2hex($page));
        }
    }
}
