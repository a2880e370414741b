-- Makes traces and prints a result. With "wait", also the machine code of each trace: number, address,
-- bytes; then "ready", and waits for a line.
local util = require("jit.util")

local sum = 0
for number = 1, 97 do
    local text = "local s = " .. number .. " for i = 1, 400 do s = (s * 31 + i) % 65521 end return s"
    sum = (sum + load(text)()) % 65521
end
print(sum)

if arg[1] == "wait" then
    jit.off() -- from here on nothing is compiled: what is printed stays as it is
    local number = 1
    while util.traceinfo(number) do
        local code, address = util.tracemc(number)
        if code then
            local hex = code:gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
            print(string.format("%d %.0f %s", number, address, hex))
        end
        number = number + 1
    end
    print("ready")
    io.read()
end
