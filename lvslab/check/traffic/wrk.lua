-- The script of lab.load, by which wrk prints its results as one line of JSON.

-- wrk would try the address first, and the director would count that connection too.
function wrk.resolve(host, service)
   wrk.addrs = wrk.lookup(host, service)
end

function done(summary, latency, requests)
   local errors = {}
   for _, kind in ipairs({"connect", "read", "write", "status", "timeout"}) do
      errors[#errors + 1] = string.format('"%s": %d', kind, summary.errors[kind])
   end
   local some = summary.requests > 0
   io.write(string.format(
      'lvslab {"seconds": %.6f, "requests": %d, "bytes": %d, "errors": {%s}, "median": %.6f, "slowest": %.6f}\n',
      summary.duration / 1e6, summary.requests, summary.bytes, table.concat(errors, ", "),
      some and latency:percentile(50) / 1e6 or 0, some and latency.max / 1e6 or 0))
end
