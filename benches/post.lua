-- wrk: POSTs a file with the headers of the environment, and prints what came of it as JSON.

wrk.method = "POST"
wrk.body = assert(io.open(os.getenv("BENCH_BODY"), "rb")):read("*a")
for number = 1, 9 do
  local name = os.getenv("BENCH_HEADER_" .. number)
  if name then
    wrk.headers[name] = os.getenv("BENCH_VALUE_" .. number)
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'BENCH {"seconds": %.6f, "requests": %d, "not_ok": %d, "broken": %d, "p50_us": %d, "p99_us": %d}',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
