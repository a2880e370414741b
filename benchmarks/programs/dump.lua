-- Runs arg[1] with the arguments after arg[2], and writes the address and the machine code of each trace to
-- arg[2]: as it is right after it was compiled, and once more at the end, when traces are linked.
local util = require("jit.util")

local out = assert(io.open(arg[2], "w"))
local traces = 0

local function dump(trace)
    local code, address = util.tracemc(trace)
    if code then
        local hex = code:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
        out:write(("%012x %s\n"):format(address % 2 ^ 48, hex))
    end
end

local function compiled(what, trace)
    if what == "stop" then
        traces = math.max(traces, trace)
        dump(trace)
    end
end
jit.off(compiled)
jit.off(dump)
jit.attach(compiled, "trace")

local program = table.remove(arg, 1)
table.remove(arg, 1)
dofile(program)

jit.off()
jit.attach(compiled)
for trace = 1, traces do
    dump(trace)
end
out:close()
