-- Compiles traces; prints a sum, and writes each trace's address and machine code to arg[1].
local util = require("jit.util")

local sum = 0
for i = 1, 211 do
	local source = ("return function(n) local s = %d for i = 1, n do s = (s * 3 + i) %% 1000003 end return s end"):format(i)
	sum = (sum + loadstring(source)()(401)) % 1000003
end
print(sum)

if arg[1] then
	local out = assert(io.open(arg[1], "w"))
	for trace = 1, 1000 do
		local code, address = util.tracemc(trace)
		if code then
			local hex = code:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
			out:write(("%.0f %s\n"):format(address % 2 ^ 48, hex))
		end
	end
	out:close()
end
