# Makes methods that YJIT compiles and prints a result. With "wait", says "ready" and waits for a line.
sum = 0
97.times do |number|
  eval("def function(n) s = #{number}; while n > 0 do s = (s * 31 + n) % 65521; n -= 1 end; s end")
  60.times { |n| sum = (sum + function(n)) % 65521 }
end
puts sum

if ARGV[0] == "wait"
  puts "ready"
  $stdout.flush
  $stdin.gets
end
