# A peer: grpc of Ruby. Arguments: the address, and the names of the cases to run.
require "grpc"
require "json"

MIB = 1024 * 1024
SAME = ->(bytes) { bytes }

# What a test writes while it reads.
class Requests
  include Enumerable

  def initialize
    @queue = Queue.new
  end

  def push(message)
    @queue.push(message)
  end

  def each
    while (message = @queue.pop)
      yield message
    end
  end
end

class Cases
  def initialize(address)
    @address = address
    @stub = stub
  end

  def empty_unary
    unary("Unary").bytesize
  end

  def large_unary
    unary("Unary", "\0" * MIB).bytesize
  end

  def client_compressed_unary_gzip
    compressed(:gzip)
  end

  def client_compressed_unary_deflate
    compressed(:deflate)
  end

  def server_compressed_unary
    unary("CompressedUnary", "x" * 100_000).bytesize
  end

  def server_compressed_streaming
    responses = @stub.server_streamer("/peers.Probe/CompressedRepeat", "x" * 100_000, SAME, SAME, deadline: after(10))
    responses.map(&:bytesize)
  end

  def client_streaming
    @stub.client_streamer("/peers.Probe/Join", ["a", "b", "", "c"].each, SAME, SAME, deadline: after(10))
  end

  def server_streaming
    @stub.server_streamer("/peers.Probe/Repeat", "a", SAME, SAME, deadline: after(10)).to_a
  end

  def ping_pong
    requests = Requests.new
    responses = bidi("Echo", requests)
    sizes = [27_182, 8, 1_828, 45_904].map do |size|
      requests.push("\0" * size)
      responses.next.bytesize
    end
    requests.push(nil)
    sizes + rest(responses)
  end

  def empty_stream
    bidi("Echo", [].each).to_a
  end

  def status_code_and_message
    request = "2 test status message"
    [failure { unary("Fail", request) }, failure { bidi("Fail", [request].each).to_a }]
  end

  def special_status_message
    failure { unary("Fail", "2 special") }
  end

  def unimplemented_method
    failure { unary("Missing") }.first
  end

  def unimplemented_service
    failure { unary("Unary", service: "peers.Missing") }.first
  end

  def cancel_after_begin
    operation = operation("Wait")
    code = Thread.new { failure { operation.execute }.first }
    unary("Begun")
    operation.cancel
    unary("Cancelled")
    code.value
  end

  def cancel_after_first_response
    requests = Requests.new
    requests.push("a")
    operation = @stub.bidi_streamer("/peers.Probe/Hold", requests, SAME, SAME, deadline: after(10), return_op: true)
    responses = operation.execute
    first = responses.next
    unary("Begun")
    operation.cancel
    unary("Cancelled")
    requests.push(nil)
    [first, failure { rest(responses) }.first]
  end

  def timeout_on_sleeping_server
    code = failure { unary("Wait", seconds: 0.05) }.first
    unary("Begun")
    unary("Cancelled")
    code
  end

  def custom_metadata
    operation = operation("Unary", metadata: { "x-text" => "some text", "x-binary-bin" => "\x00\xff\xab".b })
    operation.execute
    trailers = operation.trailing_metadata
    [trailers["x-text"], trailers["x-binary-bin"].unpack1("H*")]
  end

  def largest_message
    unary("Unary", "\0" * (4 * MIB - 1)).bytesize
  end

  def too_large_message
    failure { unary("Unary", "\0" * (4 * MIB + 1)) }.first
  end

  def deadline_propagation
    unary("SecondsLeft", seconds: 20)
  end

  private

  def stub(**channel)
    GRPC::ClientStub.new(@address, :this_channel_is_insecure, channel_args: channel)
  end

  def after(seconds)
    Time.now + seconds
  end

  def unary(method, request = "", service: "peers.Probe", seconds: 10)
    @stub.request_response("/#{service}/#{method}", request, SAME, SAME, deadline: after(seconds))
  end

  def operation(method, request = "", metadata: {}, stub: @stub)
    stub.request_response("/peers.Probe/#{method}", request, SAME, SAME, deadline: after(10), return_op: true, metadata: metadata)
  end

  def bidi(method, requests)
    @stub.bidi_streamer("/peers.Probe/#{method}", requests, SAME, SAME, deadline: after(10))
  end

  def rest(responses)
    found = []
    loop { found.push(responses.next) }
    found
  end

  def compressed(algorithm)
    options = GRPC::Core::CompressionOptions.new(default_algorithm: algorithm).to_channel_arg_hash
    operation = operation("Unary", "x" * 100_000, stub: stub(**options.transform_keys(&:to_sym)))
    response = operation.execute
    [response.bytesize, operation.trailing_metadata["encoding"]]
  end

  def failure
    yield
    [0, ""]
  rescue GRPC::BadStatus => error
    [error.code, error.details.force_encoding("UTF-8")]
  end
end

address, *names = ARGV
cases = Cases.new(address)
names.each do |name|
  puts JSON.generate(case: name, result: cases.send(name))
  $stdout.flush
end
