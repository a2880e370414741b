# Loaded before a program by `ruby -r`. Writes, after every tenth method that it defines and at its end, for
# each page of YJIT's memory that has changed since, its address and bytes to the file that the variable DUMP
# names. Pages of one byte repeated are filling, not code.
class CodeMemory
  def initialize(path)
    @out = File.open(path, "w")
    @memory = File.open("/proc/self/mem", "rb")
    @pages = {}
    @filling = {}
  end

  def dump
    File.foreach("/proc/self/maps").map(&:split).each do |range, protection, _, _, inode, name|
      next unless protection.include?("x") && inode == "0" && name.nil?
      first, past = range.split("-").map { |text| text.to_i(16) }
      first.step(past - 1, 1 << 16) { |address| dump_block(address, [past - address, 1 << 16].min) }
    end
    @out.flush
  end

  private

  def dump_block(address, size)
    block = IO.instance_method(:pread).bind_call(@memory, size, address)
    return if block == (@filling[block[0]] ||= block[0] * (1 << 16))
    0.step(size - 1, 4096) do |offset|
      page = block[offset, 4096]
      next if @pages[address + offset] == page || page.count(page[0]) == 4096
      @pages[address + offset] = page
      @out.puts("%x %s" % [address + offset, page.unpack1("H*")])
    end
  end
end

memory, methods = CodeMemory.new(ENV.fetch("DUMP")), 0
Object.define_singleton_method(:method_added) do |_|
  methods += 1
  memory.dump if methods % 10 == 0
end
at_exit { memory.dump }
