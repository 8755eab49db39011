-- Sends the bodies named after `--` in turn and prints one line of JSON: what was answered, what failed, how long it took.
local requests, turn = {}, 0

function init(arguments)
   wrk.method = "POST"
   for _, path in ipairs(arguments) do
      local file = assert(io.open(path, "rb"))
      requests[#requests + 1] = wrk.format(nil, nil, nil, file:read("*a"))
      file:close()
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      '\nJSON {"requests":%d,"seconds":%.6f,"bytes":%d,"status":%d,"socket":%d,"p50":%.1f,"p90":%.1f,"p99":%.1f,"max":%.1f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
