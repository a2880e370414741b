# Calls many methods often enough for YJIT to compile them, and prints a sum.
sum = 0
101.times do |i|
  eval("def method_#{i}(x) = x * #{i} + 1")
  31.times { |k| sum += send("method_#{i}", k) }
end
abort "YJIT is off" unless RubyVM::YJIT.enabled?
puts sum
