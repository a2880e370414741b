# Many small methods, each called often enough to be compiled. functions.rb METHODS
sum = 0
Integer(ARGV[0]).times do |number|
  eval("def function(n) s = #{number}; while n > 0 do s = (s * 31 + n) % 65521; n -= 1 end; s end")
  100.times { |n| sum = (sum + function(n)) % 65521 }
end
puts sum
