-- Many small functions, each hot enough to be compiled: every trace flips the code area twice.
-- functions.lua FUNCTIONS
local sum = 0
for number = 1, tonumber(arg[1]) do
    local text = "local n = ... local s = " .. number .. " for i = 1, n do s = (s * 31 + i) % 65521 end return s"
    sum = (sum + load(text)(200)) % 65521
end
print(sum)
